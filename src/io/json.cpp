#include "io/json_value.h"

#include <algorithm>
#include <limits>

#include "core/fail.h"
#include "core/mapped_file.h"
#include "core/text.h"

namespace gqa {
namespace {

constexpr size_t max_depth = 64;
constexpr size_t preview_bytes = 80;

/// The start of a text, cut between code points.
std::string shortened(std::string text, size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0u) == 0x80u) --limit;
  return text.substr(0, limit) + "...";
}

/// Builds the tree from the parser's events. The library's own builder looks for each new key among
/// all earlier ones, which is quadratic: ten seconds for a vocabulary of 128k tokens. Here keys are
/// appended unseen and checked for duplicates when their object ends.
class Builder {
 public:
  Builder(const std::filesystem::path& file, Json& root) : file_(file), root_(root) {}

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(int64_t value) { return add(value); }
  bool number_unsigned(uint64_t value) { return add(value); }
  bool number_float(double value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }  // text has none

  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_array() { return close(); }
  bool end_object() {
    check_keys(open_.back()->get_ref<const Json::object_t&>());
    return close();
  }
  bool key(std::string& name) {
    append_member(*open_.back(), std::move(name), nullptr);  // add() gives it its value
    return true;
  }
  bool parse_error(size_t offset, const std::string&, const nlohmann::detail::exception& error) {
    std::string what = error.what();  // "[json.exception.parse_error.101] parse error at line ..."
    if (const size_t end = what.find("] "); what.starts_with('[') && end != what.npos) {
      what.erase(0, end + 2);
    }
    fail(ErrorKind::bad_data, "{}: not valid JSON, byte {}: {}", file_.string(), offset,
         shortened(what, 300));
  }

 private:
  Json* add(Json&& value) {
    Json* place = &root_;
    if (!open_.empty()) {
      Json& parent = *open_.back();
      if (parent.is_object()) {
        place = &parent.get_ref<Json::object_t&>().back().second;
      } else {
        auto& items = parent.get_ref<Json::array_t&>();
        items.emplace_back();
        place = &items.back();
      }
    }
    *place = std::move(value);
    return place;
  }

  bool open(Json&& container) {
    if (open_.size() == max_depth) {
      fail(ErrorKind::bad_data, "{}: JSON nested deeper than {} levels, in `{}`", file_.string(),
           max_depth, path());
    }
    // The pointer holds: a container does not grow while one inside it is open.
    open_.push_back(add(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  void check_keys(const Json::object_t& object) const {
    std::vector<std::string_view> keys;
    keys.reserve(object.size());
    for (const auto& member : object) keys.push_back(member.first);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice == keys.end()) return;
    fail(ErrorKind::bad_data, "{}: key `{}` is given twice{}", file_.string(),
         shortened(std::string(*twice), preview_bytes),
         open_.size() > 1 ? " in `" + path() + "`" : "");
  }

  /// Where the parser is: "model.vocab".
  std::string path() const {
    std::string text;
    for (const Json* container : open_) {
      if (container->is_array()) {
        text += fmt::format("[{}]", container->empty() ? 0 : container->size() - 1);
      } else if (container != open_.back() && !container->empty()) {
        if (!text.empty()) text += '.';
        text += container->get_ref<const Json::object_t&>().back().first;
      }
    }
    return shortened(text, 2 * preview_bytes);
  }

  const std::filesystem::path& file_;
  Json& root_;
  std::vector<Json*> open_;
};

[[noreturn]] void fail_type(const std::string& where, std::string_view expected,
                            const Json& value) {
  fail(ErrorKind::bad_data, "{}: expected {}, got {}", where, expected, json_preview(value));
}

int64_t to_integer(const Json& value, int64_t low, int64_t high, const std::string& where) {
  const auto wanted = [&] {
    if (high == std::numeric_limits<int64_t>::max()) return fmt::format("an integer >= {}", low);
    return fmt::format("an integer from {} to {}", low, high);
  };
  if (!value.is_number_integer()) fail_type(where, wanted(), value);
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) {
    fail_type(where, wanted(), value);
  }
  const auto integer = value.get<int64_t>();
  if (integer < low || integer > high) fail_type(where, wanted(), value);
  return integer;
}

/// The list that stands at `key` of an object, or deeper: "key[3]".
std::vector<int64_t> to_integers(const Json& list, int64_t low, int64_t high,
                                 const JsonFields& fields, std::string_view key) {
  std::vector<int64_t> integers;
  integers.reserve(list.size());
  for (const Json& item : list) {
    const std::string at = fmt::format("{}[{}]", key, integers.size());
    integers.push_back(to_integer(item, low, high, fields.where(at)));
  }
  return integers;
}

}  // namespace

Json parse_json(std::string_view text, const std::filesystem::path& file) {
  if (const auto bad = find_invalid_utf8(text)) {
    fail(ErrorKind::bad_data, "{}: not valid JSON: not UTF-8 at byte {}", file.string(), *bad);
  }
  Json root;
  Builder builder(file, root);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return root;
}

void append_member(Json& object, std::string key, Json value) {
  using Members = std::vector<Json::object_t::value_type>;  // the base of object_t
  static_cast<Members&>(object.get_ref<Json::object_t&>())
      .emplace_back(std::move(key), std::move(value));
}

std::string json_preview(const Json& value) {
  return shortened(value.dump(-1, ' ', false, Json::error_handler_t::replace), preview_bytes);
}

Json read_json(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  const auto bytes = mapped.bytes();
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file);
}

JsonFields::JsonFields(const Json& object, const std::filesystem::path& file, std::string at)
    : object_(&object), file_(&file), at_(std::move(at)) {
  if (object.is_object()) return;
  fail_type(at_.empty() ? file.string() : fmt::format("{}: field `{}`", file.string(), at_),
            "a JSON object", object);
}

std::string JsonFields::where(std::string_view key) const {
  return fmt::format("{}: field `{}{}{}`", file_->string(), at_, at_.empty() ? "" : ".", key);
}

bool JsonFields::has(std::string_view key) const {
  const auto found = object_->find(key);
  return found != object_->end() && !found->is_null();
}

const Json& JsonFields::get(std::string_view key) const {
  const auto found = object_->find(key);
  if (found == object_->end()) fail(ErrorKind::bad_data, "{}: missing", where(key));
  if (found->is_null()) fail(ErrorKind::bad_data, "{}: expected a value, got null", where(key));
  return *found;
}

int64_t JsonFields::integer(std::string_view key, int64_t low, int64_t high) const {
  return to_integer(get(key), low, high, where(key));
}

std::optional<int64_t> JsonFields::maybe_integer(std::string_view key, int64_t low,
                                                 int64_t high) const {
  if (!has(key)) return std::nullopt;
  return integer(key, low, high);
}

double JsonFields::number(std::string_view key, double low, double high) const {
  const Json& value = get(key);
  const auto number = value.is_number() ? value.get<double>() : 0.0;
  if (!value.is_number() || !(number >= low && number <= high)) {
    fail_type(where(key), fmt::format("a number from {:g} to {:g}", low, high), value);
  }
  return number;
}

std::optional<double> JsonFields::maybe_number(std::string_view key, double low,
                                               double high) const {
  if (!has(key)) return std::nullopt;
  return number(key, low, high);
}

std::string JsonFields::string(std::string_view key) const {
  const Json& value = get(key);
  if (!value.is_string()) fail_type(where(key), "a string", value);
  return value.get<std::string>();
}

std::optional<std::string> JsonFields::maybe_string(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return string(key);
}

bool JsonFields::boolean(std::string_view key, bool absent) const {
  if (!has(key)) return absent;
  const Json& value = get(key);
  if (!value.is_boolean()) fail_type(where(key), "true or false", value);
  return value.get<bool>();
}

JsonFields JsonFields::object(std::string_view key) const {
  return {get(key), *file_, fmt::format("{}{}{}", at_, at_.empty() ? "" : ".", key)};
}

std::vector<int64_t> JsonFields::integers(std::string_view key, int64_t low, int64_t high) const {
  if (!has(key)) return {};
  const Json& value = get(key);
  if (!value.is_array()) return {to_integer(value, low, high, where(key))};
  return to_integers(value, low, high, *this, key);
}

std::vector<std::vector<int64_t>> JsonFields::integer_lists(std::string_view key, int64_t low,
                                                            int64_t high) const {
  std::vector<std::vector<int64_t>> lists;
  if (!has(key)) return lists;
  const Json& value = get(key);
  if (!value.is_array()) fail_type(where(key), "a list", value);
  for (const Json& item : value) {
    const std::string at = fmt::format("{}[{}]", key, lists.size());
    const bool is_list = item.is_array() && !item.empty();
    if (!is_list && !item.is_null()) fail_type(where(at), "a list of integers, or null", item);
    lists.push_back(is_list ? to_integers(item, low, high, *this, at) : std::vector<int64_t>());
  }
  return lists;
}

}  // namespace gqa
