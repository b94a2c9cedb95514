// Matrices too large for memory, on a disk.
#pragma once

#include <algorithm>
#include <filesystem>
#include <utility>

#include "core/aligned_buffer.h"
#include "core/scratch_file.h"
#include "regroup/matrix.h"

namespace gqa {

/// Where they lie.
struct ScratchPlace {
  std::filesystem::path folder = {};           ///< of scratch files; empty: TMPDIR
  int64_t in_memory_bytes = int64_t{4} << 20;  ///< what takes no more stays in memory
};

/// A matrix of fixed size, in memory or, if it is large, in a scratch file. A copy is one of its
/// own.
template <typename Dense>
class ScratchMatrix {
 public:
  using Map = Eigen::Map<Dense, Eigen::Aligned64>;
  using ConstMap = Eigen::Map<const Dense, Eigen::Aligned64>;

  ScratchMatrix() = default;
  /// Not filled. Throws Error as ScratchFile does.
  ScratchMatrix(ScratchPlace place, int64_t rows, int64_t cols)
      : place_(std::move(place)), rows_(rows), cols_(cols) {
    const auto element = static_cast<int64_t>(sizeof(typename Dense::Scalar));
    const int64_t bytes = rows * cols * element;
    if (bytes > place_.in_memory_bytes) {
      file_ = ScratchFile(place_.folder, bytes);
      data_ = file_.data();
    } else {
      data_ = memory_.reserve(std::max(bytes, element));
    }
  }
  ScratchMatrix(ScratchPlace place, const Dense& values)
      : ScratchMatrix(std::move(place), values.rows(), values.cols()) {
    map() = values;
  }
  ScratchMatrix(const ScratchMatrix& other)
      : ScratchMatrix(other.place_, other.rows_, other.cols_) {
    map() = other.map();
  }
  ScratchMatrix(ScratchMatrix&&) noexcept = default;
  ScratchMatrix& operator=(ScratchMatrix&&) noexcept = default;

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  const ScratchPlace& place() const { return place_; }
  Map map() { return Map(data(), rows_, cols_); }
  ConstMap map() const { return ConstMap(data(), rows_, cols_); }
  /// Passes for any other matrix where one is read.
  operator Eigen::Ref<const Dense>() const { return map(); }  // NOLINT(google-explicit-constructor)

 private:
  auto* data() const { return static_cast<typename Dense::Scalar*>(data_); }

  ScratchPlace place_;
  AlignedBuffer memory_;
  ScratchFile file_;
  void* data_ = nullptr;  ///< of one of the two
  int64_t rows_ = 0;
  int64_t cols_ = 0;
};

/// f32 activations of all tokens of a text.
using ScratchRows = ScratchMatrix<Rows>;

}  // namespace gqa
