// What a killed process left behind.
#pragma once

#include <filesystem>
#include <string>

namespace gqa {

/// "PREFIX-PID-N": a name that remove_abandoned() knows.
std::string name_in_use(const std::string& prefix, int n);

/// Says for as long as it lives that a folder or file is in use: other machines and containers
/// number processes in their own ways. Where a file system can't lock, it says nothing.
class InUse {
 public:
  explicit InUse(const std::filesystem::path& path);
  ~InUse();
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  int fd_;
};

/// Removes the folders and files in `parent` of that prefix whose process is dead and that no one
/// says are in use. What can't be removed stays.
void remove_abandoned(const std::filesystem::path& parent, const std::string& prefix);

}  // namespace gqa
