#include "io/write_journal.h"

#include <limits>

#include "core/fail.h"
#include "core/text.h"
#include "io/json_value.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// Lines that end in a line break: a last one that doesn't was torn.
std::vector<std::string> whole_lines(const fs::path& file) {
  std::vector<std::string> lines;
  std::error_code unknown;
  if (!fs::exists(file, unknown)) return lines;
  std::string text;
  try {
    text = read_text(file);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::bad_data) throw;  // not UTF-8: not what we wrote
  }
  for (size_t end; (end = text.find('\n')) != text.npos; text.erase(0, end + 1)) {
    lines.push_back(text.substr(0, end));
  }
  return lines;
}

/// The object of a line; none where a crash or someone else has left something else there.
std::optional<Json> parse_line(const std::string& line) {
  Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  return json;
}

Json to_json(const JournalEntry& entry) {
  Json json = {
      {"tensor", entry.tensor}, {"file", entry.file}, {"end", entry.end}, {"sha256", entry.sha256}};
  if (!entry.note.is_null()) json["note"] = entry.note;
  return json;
}

std::optional<JournalEntry> parse_entry(const std::string& line, const fs::path& file) {
  const auto json = parse_line(line);
  if (!json) return std::nullopt;
  try {
    const JsonFields fields(*json, file);
    return JournalEntry{fields.string("tensor"), fields.string("file"),
                        fields.integer("end", 0, std::numeric_limits<int64_t>::max()),
                        fields.string("sha256"), json->value("note", Json())};
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

fs::path WriteJournal::file_of(const fs::path& dir) { return dir.string() + ".journal"; }

void WriteJournal::discard(const fs::path& dir) {
  std::error_code ignored;
  fs::remove(file_of(dir), ignored);
}

std::optional<Json> WriteJournal::subject(const fs::path& dir) {
  const auto lines = whole_lines(file_of(dir));
  return lines.empty() ? std::nullopt : parse_line(lines.front());
}

WriteJournal::WriteJournal(const fs::path& dir, const Json& subject)
    : path_(file_of(dir)), subject_(subject) {
  const auto lines = whole_lines(path_);
  for (size_t i = 1; i < lines.size(); ++i) {
    const auto entry = parse_entry(lines[i], path_);
    if (!entry) break;
    entries_.push_back(*entry);
  }
  rewrite();
}

void WriteJournal::keep(size_t n) {
  if (n >= entries_.size()) return;
  entries_.resize(n);
  rewrite();
}

void WriteJournal::add(const JournalEntry& entry) {
  entries_.push_back(entry);
  file_->write(to_json(entry).dump() + "\n");
  file_->flush();
}

void WriteJournal::rewrite() {
  file_.reset();
  // Beside it first: a crash must not take what was recorded.
  const fs::path fresh = path_.string() + ".new";
  file_ = std::make_unique<OutputFile>(fresh);
  std::string text = subject_.dump() + "\n";
  for (const JournalEntry& entry : entries_) text += to_json(entry).dump() + "\n";
  file_->write(text);
  file_->flush();
  std::error_code error;
  fs::rename(fresh, path_, error);
  if (error) fail(ErrorKind::io, "{}: can't create: {}", path_.string(), error.message());
}

}  // namespace gqa
