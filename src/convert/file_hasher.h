// SHA-256 of large files beside other work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include "gqa/progress.h"
#include "io/safetensors_writer.h"

namespace gqa {

/// Starts to hash at once, on threads of its own.
class FileHasher {
 public:
  /// n_threads 0: nothing starts before hashes(), which does it all.
  FileHasher(std::vector<std::filesystem::path> files, int n_threads);
  ~FileHasher();  ///< stops what is not done
  FileHasher(const FileHasher&) = delete;
  FileHasher& operator=(const FileHasher&) = delete;

  /// Waits for all hashes, telling progress in bytes ("hash"); in the order of the files. Once.
  /// Throws Error (no_input, io), and what progress throws.
  std::vector<FileHash> hashes(const Progress& progress);

 private:
  void work(const Progress& progress);
  void hash(size_t file, const Progress& progress);
  void finish_one(const std::exception_ptr& error);

  std::vector<std::filesystem::path> files_;
  std::vector<FileHash> hashes_;
  int64_t total_bytes_ = 0;
  std::atomic<int64_t> done_bytes_{0};
  std::atomic<size_t> next_{0};  ///< file that no thread has taken
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t working_ = 0;        ///< threads
  std::exception_ptr error_;  ///< the first
  std::vector<std::thread> threads_;
};

}  // namespace gqa
