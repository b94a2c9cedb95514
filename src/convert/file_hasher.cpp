#include "convert/file_hasher.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/mapped_file.h"
#include "io/sha256.h"

namespace gqa {
namespace {

constexpr size_t piece_bytes = size_t{4} << 20;
constexpr auto patience = std::chrono::milliseconds(50);

}  // namespace

FileHasher::FileHasher(std::vector<std::filesystem::path> files, int n_threads)
    : files_(std::move(files)) {
  for (const auto& file : files_) {
    std::error_code unknown;  // hashing will say what is wrong
    const auto size = std::filesystem::file_size(file, unknown);
    if (!unknown) total_bytes_ += static_cast<int64_t>(size);
    hashes_.push_back({file.filename().string(), {}});
  }
  const size_t threads = std::min(files_.size(), static_cast<size_t>(n_threads));
  working_ = threads;  // counted down from here on
  for (size_t t = 0; t < threads; ++t) {
    threads_.emplace_back([this] {
      std::exception_ptr error;
      try {
        work({});
      } catch (...) {
        error = std::current_exception();
        stop_ = true;
      }
      finish_one(error);
    });
  }
}

FileHasher::~FileHasher() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
}

void FileHasher::finish_one(const std::exception_ptr& error) {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = error;
  --working_;
  changed_.notify_all();
}

void FileHasher::work(const Progress& progress) {
  for (size_t file; !stop_ && (file = next_.fetch_add(1)) < files_.size();) hash(file, progress);
}

void FileHasher::hash(size_t file, const Progress& progress) {
  const MappedFile mapped(files_[file]);
  auto rest = mapped.bytes();
  Sha256 hash;
  while (!rest.empty() && !stop_) {
    const auto piece = rest.first(std::min(piece_bytes, rest.size()));
    hash.update(piece);
    rest = rest.subspan(piece.size());
    done_bytes_ += std::ssize(piece);
    if (progress) progress("hash", done_bytes_, total_bytes_);
  }
  hashes_[file].sha256 = hash.hex();
}

std::vector<FileHash> FileHasher::hashes(const Progress& progress) {
  if (threads_.empty()) work(progress);
  std::unique_lock lock(mutex_);
  while (working_ > 0) {
    changed_.wait_for(lock, patience);
    if (progress) progress("hash", done_bytes_, total_bytes_);
  }
  if (error_) std::rethrow_exception(error_);
  if (progress) progress("hash", done_bytes_, total_bytes_);
  return std::move(hashes_);
}

}  // namespace gqa
