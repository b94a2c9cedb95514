#include "tokenizer/decode_steps.h"

#include <algorithm>

#include "tokenizer/byte_level.h"

namespace gqa {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/// The byte of a token such as <0x0A>; -1 for others.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/// The text without up to `most` copies of `unit` at its start.
std::string_view strip_start(std::string_view text, std::string_view unit, size_t& most) {
  for (; most > 0 && text.starts_with(unit); --most) text.remove_prefix(unit.size());
  return text;
}

std::string_view strip_stop(std::string_view text, std::string_view unit, size_t most) {
  for (; most > 0 && text.ends_with(unit); --most) text.remove_suffix(unit.size());
  return text;
}

}  // namespace

void WholeTokenStep::finish() {
  send(token_);
  DecodeStep::finish();
}

void JoinStep::feed(std::string_view token) {
  if (!std::exchange(first_, false)) send(" ");
  send(token);
}

void ByteFallbackStep::feed(std::string_view token) {
  const int byte = fallback_byte(token);
  if (byte >= 0) {
    run_.push_back(static_cast<char>(byte));
    return;
  }
  end_run();
  send(token);
}

void ByteFallbackStep::finish() {
  end_run();
  DecodeStep::finish();
}

void ByteFallbackStep::end_run() {
  if (run_.empty()) return;
  const std::string run = std::exchange(run_, {});
  if (!find_invalid_utf8(run)) {
    send(run);
    return;
  }
  for (size_t i = 0; i < run.size(); ++i) send(kReplacementCharacter);
}

void StripStep::feed(std::string_view token) {
  size_t start = options_.start;
  send(strip_stop(strip_start(token, content_, start), content_, options_.stop));
}

void StripFusedStep::feed(std::string_view part) {
  part = strip_start(part, content_, options_.start);
  if (part.empty()) return;
  options_.start = 0;
  const std::string text = std::exchange(held_, {}).append(part);
  const std::string_view sure = strip_stop(text, content_, options_.stop);
  held_ = text.substr(sure.size());
  send(sure);
}

void MetaspaceStep::feed(std::string_view token) {
  std::string text;
  for (size_t at = 0; at < token.size();) {
    if (token.substr(at).starts_with(replacement_)) {
      if (!drop_) text.push_back(' ');
      at += replacement_.size();
    } else {
      text.push_back(token[at++]);
    }
  }
  drop_ = drop_ && fused_;
  send(text);
}

void ByteLevelStep::feed(std::string_view token) {
  const auto bytes = byte_level_bytes(token);
  const std::string text = repair_.push(bytes ? std::string_view(*bytes) : token);
  if (!text.empty()) send(text);
}

void ByteLevelStep::finish() {
  send(repair_.finish());
  DecodeStep::finish();
}

}  // namespace gqa
