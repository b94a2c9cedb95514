// Figures and tables for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gqa::cli {

/// "1,252,992"
std::string grouped(int64_t number);
/// "4.8 MiB"; plain bytes below 1 KiB.
std::string human_bytes(int64_t bytes);
/// "4.8 MiB (5,017,928 bytes)"
std::string exact_bytes(int64_t bytes);
/// "12.3 s", "45 ms", "2 min 5 s"
std::string human_seconds(double seconds);
/// "12 s", "2 min", "3 h": of an estimate.
std::string rough_seconds(double seconds);
/// One number where all are equal, else "2 to 8".
std::string range_text(const std::vector<int64_t>& values);
/// "1 layer", "6 layers"
std::string counted(int64_t n, std::string_view thing);

/// Lines of a name and a value, the values aligned.
class Fields {
 public:
  void add(std::string name, std::string value);
  std::string text() const;

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

/// Columns aligned to the right, the header first. All rows have the header's length.
std::string table_text(const std::vector<std::vector<std::string>>& rows);

}  // namespace gqa::cli
