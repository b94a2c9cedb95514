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

/// "refine" of "refine: layer 3 of 6"
std::string_view phase_of(std::string_view what) { return what.substr(0, what.find(':')); }

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
    update(what, done, total);
  };
}

void ProgressBar::erase() {
  if (width_ == 0) return;
  put("\r" + std::string(width_, ' ') + "\r");
  width_ = 0;
}

std::optional<double> ProgressBar::Phase::seconds_left() const {
  const double made = share - first;
  if (made < 0.01) return std::nullopt;
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  return elapsed / made * (1 - share);
}

std::optional<double> ProgressBar::seconds_left(std::string_view phase) const {
  const auto found = phases_.find(phase);
  return found == phases_.end() ? std::nullopt : found->second.seconds_left();
}

void ProgressBar::update(std::string_view what, int64_t done, int64_t total) {
  const auto now = Clock::now();
  const double share =
      total <= 0 ? 0.0
                 : std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
  const auto [at, is_new] = phases_.try_emplace(std::string(phase_of(what)));
  Phase& phase = at->second;
  if (is_new || share < phase.share) phase = {now, share, share};
  phase.share = share;
  if (!shown_ || now - start_ < quiet_time || now - drawn_ < interval) return;
  drawn_ = now;
  draw(what, phase);
}

void ProgressBar::draw(std::string_view what, const Phase& phase) {
  std::string right = fmt::format(" {:3.0f} %", phase.share * 100);
  if (const auto left = phase.seconds_left())
    right += fmt::format("  {} left", human_seconds(*left));

  // One column stays free: a full line would wrap on some terminals.
  const size_t columns = terminal_columns() - 1;
  constexpr size_t fewest_cells = 5;
  const auto around = [&] { return what.size() + 3 + right.size(); };
  if (columns < around() + fewest_cells) what = phase_of(what);
  if (columns < around() + fewest_cells) {
    erase();
    return;
  }
  const size_t cells = std::min<size_t>(columns - around(), 40);
  const auto full = static_cast<size_t>(phase.share * static_cast<double>(cells));
  const std::string bar = std::string(full, '=') + std::string(cells - full, ' ');

  const size_t width = around() + cells;
  const std::string padding(width_ > width ? width_ - width : 0, ' ');
  put(fmt::format("\r{} {}[{}]{}{}{}", what, colour_ ? "\x1b[36m" : "", bar,
                  colour_ ? "\x1b[0m" : "", right, padding));
  width_ = std::max(width, width_);
}

}  // namespace gqa::cli
