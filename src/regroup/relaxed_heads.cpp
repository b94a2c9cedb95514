#include "regroup/relaxed_heads.h"

#include <utility>

#include "regroup/products.h"

namespace gqa {
namespace {

template <typename Part, typename R>
std::vector<Part> parts(R& heads) {
  std::vector<Part> all;
  for (auto* m : {&heads.logits, &heads.keys, &heads.values, &heads.key_factors, &heads.value_maps,
                  &heads.q, &heads.o}) {
    all.emplace_back(m->data(), static_cast<size_t>(m->size()));
  }
  return all;
}

/// The maps U, each times its share in the assignment.
Rows weighted_maps(const RelaxedHeads& heads, const Rows& assignment) {
  const int64_t d = heads.head_dim;
  Rows maps = heads.value_maps;
  for (int64_t a = 0; a < heads.heads(); ++a) {
    for (int64_t g = 0; g < heads.groups(); ++g) maps.block(a * d, g * d, d, d) *= assignment(a, g);
  }
  return maps;
}

/// One plane's factor t, and where its two rows lie in a head and in a shared head.
struct Plane {
  float real, imaginary;
  int64_t from[2];  ///< rows of the shared keys
  int64_t to[2];    ///< rows of the mixed keys, and of the factors
};

Plane plane_of(const RelaxedHeads& heads, int64_t a, int64_t g, int64_t p) {
  const int64_t d = heads.head_dim;
  const int64_t half = d / 2;
  return {heads.key_factors(a * d + p, g),
          heads.key_factors(a * d + p + half, g),
          {g * d + p, g * d + p + half},
          {a * d + p, a * d + p + half}};
}

Rows mixed_keys(Context::Impl& context, const RelaxedHeads& heads, const Rows& assignment) {
  Rows k = Rows::Zero(heads.heads() * heads.head_dim, heads.keys.cols());
  context.pool.parallel_for(heads.heads(), [&](int64_t a, int) {
    for (int64_t g = 0; g < heads.groups(); ++g) {
      const float share = assignment(a, g);
      for (int64_t p = 0; p < heads.head_dim / 2; ++p) {
        const Plane t = plane_of(heads, a, g, p);
        const auto real = heads.keys.row(t.from[0]);
        const auto imaginary = heads.keys.row(t.from[1]);
        k.row(t.to[0]) += share * (t.real * real - t.imaginary * imaginary);
        k.row(t.to[1]) += share * (t.imaginary * real + t.real * imaginary);
      }
    }
  });
  return k;
}

/// By the shared keys: conj(t) times what comes.
Rows by_shared_keys(Context::Impl& context, const RelaxedHeads& heads, const Rows& assignment,
                    const Rows& by_k) {
  Rows by = Rows::Zero(heads.keys.rows(), heads.keys.cols());
  context.pool.parallel_for(heads.groups(), [&](int64_t g, int) {
    for (int64_t a = 0; a < heads.heads(); ++a) {
      const float share = assignment(a, g);
      for (int64_t p = 0; p < heads.head_dim / 2; ++p) {
        const Plane t = plane_of(heads, a, g, p);
        const auto real = by_k.row(t.to[0]);
        const auto imaginary = by_k.row(t.to[1]);
        by.row(t.from[0]) += share * (t.real * real + t.imaginary * imaginary);
        by.row(t.from[1]) += share * (t.real * imaginary - t.imaginary * real);
      }
    }
  });
  return by;
}

/// By share * t; what factors and shares then make of it is left to the caller.
Rows by_weighted_factors(Context::Impl& context, const RelaxedHeads& heads, const Rows& by_k) {
  Rows by(heads.key_factors.rows(), heads.key_factors.cols());
  context.pool.parallel_for(heads.heads(), [&](int64_t a, int) {
    for (int64_t g = 0; g < heads.groups(); ++g) {
      for (int64_t p = 0; p < heads.head_dim / 2; ++p) {
        const Plane t = plane_of(heads, a, g, p);
        const auto real = heads.keys.row(t.from[0]);
        const auto imaginary = heads.keys.row(t.from[1]);
        by(t.to[0], g) = by_k.row(t.to[0]).dot(real) + by_k.row(t.to[1]).dot(imaginary);
        by(t.to[1], g) = by_k.row(t.to[1]).dot(real) - by_k.row(t.to[0]).dot(imaginary);
      }
    }
  });
  return by;
}

/// Through the softmax: l_g moves p_b by p_b (1[b = g] - p_g) / temperature.
Rows by_logits(const Rows& assignment, double temperature, const Rows& by_assignment) {
  Rows by = by_assignment;
  by.colwise() -= by_assignment.cwiseProduct(assignment).rowwise().sum().eval();
  return by.cwiseProduct(assignment) / static_cast<float>(temperature);
}

}  // namespace

Parts parts_of(RelaxedHeads& heads) { return parts<std::span<float>>(heads); }
ConstParts parts_of(const RelaxedHeads& heads) { return parts<std::span<const float>>(heads); }

Rows assignment(const Rows& logits, double temperature) {
  Rows p = logits / static_cast<float>(temperature);
  p.colwise() -= p.rowwise().maxCoeff().eval();
  p = p.array().exp().matrix().eval();
  for (int64_t a = 0; a < p.rows(); ++a) p.row(a) /= p.row(a).sum();
  return p;
}

BlockWeights mixed(Context::Impl& context, const RelaxedHeads& heads, const Rows& assignment) {
  const Rows maps = weighted_maps(heads, assignment).transpose();
  return {heads.q, mixed_keys(context, heads, assignment),
          transposed_times(context, maps, heads.values), heads.o};
}

RelaxedHeads pullback(Context::Impl& context, const RelaxedHeads& heads, const Rows& assignment,
                      double temperature, const BlockWeights& gradient, Rows by_assignment) {
  const int64_t d = heads.head_dim;
  RelaxedHeads by;
  by.head_dim = d;
  by.q = gradient.q;
  by.o = gradient.o;
  by.keys = by_shared_keys(context, heads, assignment, gradient.k);
  by.values = transposed_times(context, weighted_maps(heads, assignment), gradient.v);
  by.key_factors = by_weighted_factors(context, heads, gradient.k);
  by.value_maps = times_transposed(context, gradient.v, heads.values);
  for (int64_t a = 0; a < heads.heads(); ++a) {
    for (int64_t g = 0; g < heads.groups(); ++g) {
      auto factors = by.key_factors.block(a * d, g, d, 1);
      auto maps = by.value_maps.block(a * d, g * d, d, d);
      by_assignment(a, g) += factors.cwiseProduct(heads.key_factors.block(a * d, g, d, 1)).sum() +
                             maps.cwiseProduct(heads.value_maps.block(a * d, g * d, d, d)).sum();
      factors *= assignment(a, g);
      maps *= assignment(a, g);
    }
  }
  by.logits = by_logits(assignment, temperature, by_assignment);
  return by;
}

}  // namespace gqa
