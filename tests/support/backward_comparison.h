// A batch of the backward on several instruction sets, held against the oracle.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "attention/backward_pairs.h"
#include "gqa/context.h"
#include "kernels/context.h"
#include "support/backward_agrees.h"

namespace gqa::test {

/// What the oracle says of a batch, and a context for each instruction set that is held against it.
class BackwardComparison {
 public:
  explicit BackwardComparison(const std::vector<std::string>& isas) {
    for (const std::string& isa : isas) {
      contexts_.push_back(std::make_unique<Context>(ContextOptions{.threads = 2, .isa = isa}));
    }
  }

  void expect_gradients(BackwardBatch& b) const {
    std::vector<std::unique_ptr<BackwardExpected>> expected;
    int64_t tokens = 0;
    for (size_t i = 0; i < b.problems.size(); ++i) {
      expected.push_back(
          std::make_unique<BackwardExpected>(b.problems[i]->item, b.sizes[i], b.options.options));
      tokens += b.sizes[i].q_len;
    }
    for (const auto& context : contexts_) {
      attend(*context, b.forward_items(), b.options.options);
      for (const auto& p : b.problems) p->forget_gradients();
      std::fill(b.dsinks.begin(), b.dsinks.end(), 99.0f);
      std::vector<GradientMemory> before;
      for (const auto& p : b.problems) before.emplace_back(*p);
      attend_backward(*context, b.items(), b.options.options, b.dsinks);
      for (size_t i = 0; i < b.problems.size(); ++i) {
        const BackwardProblem& p = *b.problems[i];
        const bool rounded = takes_pairs(*context->impl().kernels, p.item);
        ASSERT_TRUE(agrees(p, before[i], expected[i]->gradients, expected[i]->bound(rounded)))
            << context->isa() << ", item " << i << " of " << b.problems.size() << ": "
            << describe(b.sizes[i], b.options, p.item.forward);
      }
      ASSERT_TRUE(agrees(b.dsinks, tokens, expected)) << context->isa();
    }
  }

 private:
  std::vector<std::unique_ptr<Context>> contexts_;
};

}  // namespace gqa::test
