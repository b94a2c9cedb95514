#include "approx/companion.h"

namespace gqa {

Companion::Companion(const KvShape& source, int64_t k_dim, int64_t v_dim, KvDType dtype) {
  for (const int64_t heads : source.kv_heads) {
    caches_.emplace_back(KvShape{{heads}, k_dim, v_dim, dtype});
  }
  entries_.resize(caches_.size());
}

Companion::Entry& Companion::entry(const Call& call) {
  auto& entries = entries_[static_cast<size_t>(call.layer)];
  const auto sequence = static_cast<size_t>(call.item.sequence);
  if (entries.size() <= sequence) entries.resize(sequence + 1);
  return entries[sequence];
}

int64_t Companion::rows(const Call& call) {
  KvCache& cache = caches_[static_cast<size_t>(call.layer)];
  Entry& e = entry(call);
  if (e.id < 0) e.id = cache.create();
  const uint64_t generation = call.kv.layer().generation;
  if (e.generation != generation) cache.truncate(e.id, 0);
  e.generation = generation;
  return cache.len(e.id);
}

void Companion::append(const Call& call, int64_t n, const float* k, const float* v) {
  KvCache& cache = caches_[static_cast<size_t>(call.layer)];
  const KvShape& shape = cache.shape();
  cache.append(call.context, entry(call).id, 0,
               {k, DType::f32, {n, shape.kv_heads[0], shape.head_dim}},
               {v, DType::f32, {n, shape.kv_heads[0], shape.v_head_dim}});
}

PackedKv Companion::view(const Call& call) {
  return caches_[static_cast<size_t>(call.layer)].view(entry(call).id, 0);
}

int64_t Companion::k_bytes() const {
  const KvShape& shape = caches_.front().shape();
  return kv_vector_bytes(shape.dtype, shape.head_dim);
}

int64_t Companion::memory_bytes() const {
  int64_t bytes = 0;
  for (const KvCache& cache : caches_) bytes += cache.usage().bytes;
  return bytes;
}

}  // namespace gqa
