// Random problems of the backward.
#pragma once

#include <memory>
#include <vector>

#include "gqa/attention_backward.h"
#include "support/attention_case.h"

namespace gqa::test {

/// One item of the backward with the memory that it points into.
struct BackwardProblem {
  Problem forward;
  Array<3> d_out, dq, dbias;
  Array<4> dk, dv;
  AttendBackwardItem item;

  void forget_gradients() {
    const auto forget = [](auto& x) { x.fill([] { return 99.0f; }); };
    forget(dq);
    forget(dk);
    forget(dv);
    forget(dbias);
  }
};

/// A problem of attend() with gradients asked for: all of them, or some. of: as of fill_problem().
inline void fill_backward(Random& random, BackwardProblem& p, const Sizes& s,
                          std::optional<DType> of = {}) {
  fill_problem(random, p.forward, s, of);
  const bool dense = draw(random, 0, 2) == 0;
  const auto like = [&](auto& gradient, const auto& x) {
    gradient = {random, draw_dtype(random), x.shape, dense};
  };
  like(p.d_out, p.forward.out);
  if (of) p.d_out = {random, *of, p.forward.out.shape, dense};
  like(p.dq, p.forward.q);
  like(p.dk, p.forward.k);
  like(p.dv, p.forward.v);
  if (p.forward.item.bias.data) like(p.dbias, p.forward.bias);
  std::normal_distribution<float> normal;
  const bool ones = draw(random, 0, 5) == 0;  // of a loss that is the outputs' sum
  p.d_out.fill([&] { return ones ? 1.0f : normal(random); });
  p.item.forward = p.forward.item;
  p.item.d_out = p.d_out.view();
  if (ones) p.item.d_out.strides = {0, 0, 0};
  const auto wanted = [&] { return draw(random, 0, 7) != 0; };
  if (wanted()) p.item.dq = p.dq.mut();
  if (wanted()) p.item.dk = p.dk.mut();
  if (wanted()) p.item.dv = p.dv.mut();
  if (p.forward.item.bias.data && wanted()) p.item.dbias = p.dbias.mut();
}

/// Random problems of one head count, with options that draw every feature.
struct BackwardBatch {
  Options options;
  std::vector<std::unique_ptr<BackwardProblem>> problems;
  std::vector<Sizes> sizes;
  std::vector<float> dsinks;  ///< empty: there are none, or they are not wanted

  BackwardBatch(Random& random, int64_t budget, std::optional<DType> of = {}) {
    const Heads heads = draw_heads(random);
    for (int64_t n = draw(random, 1, 4); n-- > 0;) {
      sizes.push_back(draw_sizes(random, budget, heads));
      problems.push_back(std::make_unique<BackwardProblem>());
      fill_backward(random, *problems.back(), sizes.back(), of);
    }
    draw_options(random, heads, sizes.front().kv_len, options);
    if (draw(random, 0, 4) != 0) dsinks.resize(options.sinks.size());
  }

  std::vector<AttendItem> forward_items() const {
    std::vector<AttendItem> items;
    for (const auto& p : problems) items.push_back(p->forward.item);
    return items;
  }
  std::vector<AttendBackwardItem> items() const {
    std::vector<AttendBackwardItem> items;
    for (const auto& p : problems) items.push_back(p->item);
    return items;
  }
};

}  // namespace gqa::test
