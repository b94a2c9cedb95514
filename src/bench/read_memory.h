// The ceiling of what is bound by memory: reading it, and no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "gqa/mask.h"
#include "kv/pages.h"

namespace gqa::bench {

/// A piece of memory that one thread reads at a time.
using Piece = std::span<const std::byte>;

/// Cuts memory into pieces.
void append_pieces(std::span<const std::byte> memory, std::vector<Piece>& pieces);
/// The pages that hold tokens `keys` of a layer of a sequence, whole.
void append_pages(const detail::KvLayer& layer, KeyRange keys, std::vector<Piece>& pieces);

int64_t total_bytes(std::span<const Piece> pieces);

/// Reads all pieces with vector loads, shared out over the threads in their order.
void read_memory(ThreadPool& pool, std::span<const Piece> pieces);

}  // namespace gqa::bench
