#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "cli/format.h"
#include "cli/signals.h"

namespace gqa::cli {
namespace {

constexpr auto quiet_time = std::chrono::seconds(1);
constexpr auto interval = std::chrono::milliseconds(100);

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

size_t terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void put(std::string_view text) {
  // A bar that can't be drawn is no reason to stop.
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

ProgressBar::ProgressBar(const Common& common)
    : shown_(!common.quiet && isatty(STDERR_FILENO) != 0 && environment("TERM") != "dumb"),
      colour_(environment("NO_COLOR").empty()) {}

Progress ProgressBar::callback() {
  return [this](std::string_view what, int64_t done, int64_t total) {
    throw_if_interrupted();
    if (shown_) update(what, done, total);
  };
}

void ProgressBar::erase() {
  if (width_ == 0) return;
  put("\r" + std::string(width_, ' ') + "\r");
  width_ = 0;
}

void ProgressBar::update(std::string_view what, int64_t done, int64_t total) {
  const auto now = Clock::now();
  if (what != what_) {
    what_ = what;
    phase_start_ = now;
  }
  if (now - start_ < quiet_time || now - drawn_ < interval) return;
  drawn_ = now;
  const double share = total <= 0 ? 0.0 : static_cast<double>(done) / static_cast<double>(total);
  draw(what, std::clamp(share, 0.0, 1.0));
}

void ProgressBar::draw(std::string_view what, double share) {
  const double elapsed = std::chrono::duration<double>(Clock::now() - phase_start_).count();
  std::string right = fmt::format(" {:3.0f} %", share * 100);
  if (share > 0.02) right += fmt::format("  {} left", human_seconds(elapsed / share - elapsed));

  // One column stays free: a full line would wrap on some terminals.
  const size_t columns = terminal_columns() - 1;
  const size_t around = what.size() + 3 + right.size();
  if (columns < around + 5) {
    erase();
    return;
  }
  const size_t cells = std::min<size_t>(columns - around, 40);
  const auto full = static_cast<size_t>(share * static_cast<double>(cells));
  const std::string bar = std::string(full, '=') + std::string(cells - full, ' ');

  const size_t width = around + cells;
  const std::string padding(width_ > width ? width_ - width : 0, ' ');
  put(fmt::format("\r{} {}[{}]{}{}{}", what, colour_ ? "\x1b[36m" : "", bar,
                  colour_ ? "\x1b[0m" : "", right, padding));
  width_ = std::max(width, width_);
}

}  // namespace gqa::cli
