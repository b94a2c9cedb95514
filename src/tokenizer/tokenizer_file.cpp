#include "tokenizer/tokenizer_file.h"

#include <limits>

#include "core/fail.h"
#include "core/text.h"

namespace gqa {
namespace {

constexpr size_t kMaxDepth = 64;

class Reader : public nlohmann::json_sax<Json> {
 public:
  explicit Reader(TokenizerFile& file) : file_(file) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return number(v, v); }
  bool number_unsigned(number_unsigned_t v) override {
    constexpr auto top = static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max());
    return number(v <= top ? static_cast<int64_t>(v) : -1, v);
  }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool string(string_t& v) override { return inside_ == Inside::merges ? merge(v) : value(v); }
  bool binary(binary_t&) override { return false; }  // JSON text has none

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& k) override {
    if (inside_ == Inside::vocab) {
      key_ = k;
      return true;
    }
    if (stack_.back()->contains(k)) {
      fail(ErrorKind::bad_data, "{}: key `{}` is given twice", file_.path.string(), k);
    }
    key_ = k;
    if (!in_model()) return true;
    if ((k == "vocab" && file_.has_vocab) || (k == "merges" && file_.has_merges)) {
      fail(ErrorKind::bad_data, "{}: key `{}` is given twice", file_.path.string(), k);
    }
    return true;
  }

  bool parse_error(size_t offset, const std::string&,
                   const nlohmann::detail::exception& e) override {
    fail(ErrorKind::bad_data, "{}: not JSON at offset {}: {}", file_.path.string(), offset,
         e.what());
  }

 private:
  enum class Inside { rest, vocab, merges, pair };

  bool in_model() const { return stack_.size() == 2 && path_ == "model"; }

  /// `exact`: the same number in its own type.
  template <typename Number>
  bool number(int64_t v, Number exact) {
    if (inside_ != Inside::vocab) return value(exact);
    file_.vocab.emplace_back(key_, v);
    return true;
  }

  bool value(Json v) {
    switch (inside_) {
      case Inside::rest:
        put(std::move(v));
        return true;
      case Inside::vocab:
        fail(ErrorKind::bad_data,
             "{}: field `model.vocab`: token \"{}\": expected an integer, got {}",
             file_.path.string(), key_, v.type_name());
      case Inside::merges:
        fail_merge(file_.merges.size(), v.type_name());
      case Inside::pair:
        if (!v.is_string()) fail_merge(file_.merges.size(), v.type_name());
        pair_.push_back(v.get<std::string>());
        return true;
    }
    return false;
  }

  Json* put(Json v) {
    if (stack_.empty()) {
      file_.rest = std::move(v);
      return &file_.rest;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    return &(parent[key_] = std::move(v));
  }

  bool open(Json container) {
    if (stack_.size() >= kMaxDepth) {
      fail(ErrorKind::bad_data, "{}: nested deeper than {} levels", file_.path.string(), kMaxDepth);
    }
    if (inside_ == Inside::merges && container.is_array()) {
      inside_ = Inside::pair;
      pair_.clear();
      return true;
    }
    if (inside_ != Inside::rest) return value(std::move(container));  // throws
    if (in_model() && key_ == "vocab" && container.is_object()) {
      inside_ = Inside::vocab;
      file_.has_vocab = true;
      return true;
    }
    if (in_model() && key_ == "merges" && container.is_array()) {
      inside_ = Inside::merges;
      file_.has_merges = true;
      return true;
    }
    if (stack_.size() == 1) path_ = key_;
    stack_.push_back(put(std::move(container)));
    return true;
  }

  bool close() {
    if (inside_ == Inside::pair) {
      if (pair_.size() != 2)
        fail_merge(file_.merges.size(), fmt::format("{} tokens", pair_.size()));
      file_.merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
      inside_ = Inside::merges;
    } else if (inside_ != Inside::rest) {
      inside_ = Inside::rest;
    } else {
      stack_.pop_back();
    }
    return true;
  }

  /// "a b", as older files have it.
  bool merge(const std::string& text) {
    if (text.starts_with("#version")) return true;
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      fail_merge(file_.merges.size(), fmt::format("\"{}\"", text));
    }
    file_.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    return true;
  }

  [[noreturn]] void fail_merge(size_t index, std::string_view got) const {
    fail(ErrorKind::bad_data, "{}: field `model.merges[{}]`: expected two tokens, got {}",
         file_.path.string(), index, got);
  }

  TokenizerFile& file_;
  Inside inside_ = Inside::rest;
  std::vector<Json*> stack_;  ///< the open containers of `rest`; a parent isn't touched while it
                              ///< has an open child, so that these stay valid
  std::string path_;          ///< the key of the open container in the top object
  std::string key_;
  std::vector<std::string> pair_;
};

}  // namespace

TokenizerFile TokenizerFile::read(const std::filesystem::path& path) {
  TokenizerFile file;
  file.path = path;
  Reader reader(file);
  Json::sax_parse(read_text(path), &reader);
  return file;
}

}  // namespace gqa
