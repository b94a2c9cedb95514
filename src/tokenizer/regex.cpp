#include "tokenizer/regex.h"

#include <oniguruma.h>

#include <memory>
#include <mutex>

#include "core/fail.h"
#include "core/text.h"
#include "tokenizer/newer_characters.h"

namespace gqa {
namespace {

const OnigUChar* bytes(const char* text) { return reinterpret_cast<const OnigUChar*>(text); }

std::string message_of(int code, OnigErrorInfo* info) {
  OnigUChar buffer[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int n = info != nullptr ? onig_error_code_to_str(buffer, code, info)
                                : onig_error_code_to_str(buffer, code);
  return {reinterpret_cast<const char*>(buffer), static_cast<size_t>(n)};
}

void initialize_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
  });
}

struct FreeRegion {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};
using Region = std::unique_ptr<OnigRegion, FreeRegion>;

/// Whether there is a match at or after `from`; it is then in `region`.
bool search(regex_t* compiled, const std::string& expression, std::string_view text, size_t from,
            OnigRegion* region) {
  const OnigUChar* begin = bytes(text.data());
  const OnigUChar* end = begin + text.size();
  const int found = onig_search(compiled, begin, end, begin + from, end, region, ONIG_OPTION_NONE);
  if (found >= 0) return true;
  if (found == ONIG_MISMATCH) return false;
  fail(ErrorKind::bad_data, "regular expression `{}`: search failed after offset {} of a text: {}",
       expression, from, message_of(found, nullptr));
}

}  // namespace

Regex::Regex(const std::string& expression, const std::string& where) : expression_(expression) {
  initialize_once();
  const OnigUChar* begin = bytes(expression.data());
  OnigErrorInfo info;
  const int code = onig_new(&compiled_, begin, begin + expression.size(), ONIG_OPTION_NONE,
                            ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
  if (code != ONIG_NORMAL) {
    fail(ErrorKind::bad_data, "{}: malformed regular expression `{}`: {}", where, expression,
         message_of(code, &info));
  }
}

Regex::~Regex() { onig_free(compiled_); }

void Regex::for_each_match(std::string_view original,
                           const std::function<void(size_t, size_t)>& visit) const {
  const auto changed = with_stand_ins(original);
  const std::string_view text = changed ? std::string_view(*changed) : original;
  const Region region(onig_region_new());
  size_t from = 0;
  bool any = false;
  size_t last_end = 0;
  while (from <= text.size() && search(compiled_, expression_, text, from, region.get())) {
    const size_t begin = static_cast<size_t>(region->beg[0]);
    const size_t end = static_cast<size_t>(region->end[0]);
    if (begin == end && any && last_end == end) {  // no endless loop on empty matches
      from += from < text.size() ? static_cast<size_t>(utf8_length(text, from)) : 1;
      continue;
    }
    visit(begin, end);
    from = last_end = end;
    any = true;
  }
}

bool Regex::matches_anywhere(std::string_view text) const {
  const auto changed = with_stand_ins(text);
  return search(compiled_, expression_, changed ? *changed : text, 0, nullptr);
}

}  // namespace gqa
