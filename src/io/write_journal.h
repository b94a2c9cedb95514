// What of a folder is written, so that an interrupted run can be gone on with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/json_value.h"
#include "io/output_file.h"

namespace gqa {

/// A file of the folder up to the end of a tensor.
struct JournalEntry {
  std::string tensor;
  std::string file;
  int64_t end = 0;     ///< bytes of the file, header included
  std::string sha256;  ///< of these bytes
  Json note = {};      ///< what else is to be known of the tensor; null: nothing

  bool operator==(const JournalEntry&) const = default;
};

/// A file of JSON lines: what is being made, then an entry for each tensor that is complete, in the
/// order of writing. It lies beside the folder, not in it: so it lasts until the folder is in place
/// as a whole, and is never part of that. It is never ahead of the data that this process handed to
/// the system, but may be after a power failure: trust an entry only once its hash has been
/// compared.
class WriteJournal {
 public:
  /// Where the journal of `dir` is.
  static std::filesystem::path file_of(const std::filesystem::path& dir);
  /// What the journal of `dir` says that is being made; none where there is no (whole) first line.
  static std::optional<Json> subject(const std::filesystem::path& dir);

  /// Goes on with the journal of `dir`, or starts one for `subject`.
  WriteJournal(const std::filesystem::path& dir, const Json& subject);

  const std::vector<JournalEntry>& entries() const { return entries_; }
  /// Forgets all entries but the first `n`.
  void keep(size_t n);
  void add(const JournalEntry& entry);

  /// Removes the journal of `dir`, if there is one and it can be.
  static void discard(const std::filesystem::path& dir);

 private:
  void rewrite();

  std::filesystem::path path_;
  Json subject_;
  std::vector<JournalEntry> entries_;
  std::unique_ptr<OutputFile> file_;
};

}  // namespace gqa
