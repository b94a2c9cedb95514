#include "bench/timing.h"

#include <algorithm>
#include <chrono>
#include <ctime>

namespace gqa::bench {
namespace {

constexpr double enough_seconds = 2;
constexpr int least_turns = 5;
constexpr int most_turns = 100;

double wall_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpu_now() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

}  // namespace

double median(std::vector<double> numbers) {
  std::sort(numbers.begin(), numbers.end());
  const size_t half = numbers.size() / 2;
  return numbers.size() % 2 == 1 ? numbers[half] : (numbers[half - 1] + numbers[half]) / 2;
}

BenchTimes summary_ms(std::span<const double> seconds) {
  const auto [min, max] = std::minmax_element(seconds.begin(), seconds.end());
  return {median({seconds.begin(), seconds.end()}) * 1e3, *min * 1e3, *max * 1e3};
}

Timing::Now::Now() : wall(wall_now()), cpu(cpu_now()) {}

double cpu_fraction(std::span<const Timing* const> timings, int threads) {
  double cpu = 0;
  double wall = 0;
  for (const Timing* timing : timings) {
    cpu += timing->cpu_seconds();
    wall += timing->wall_seconds();
  }
  return std::min(1.0, cpu / (wall * threads));
}

Turns::Turns(int repeats, const Progress& progress)
    : repeats_(repeats), progress_(progress), start_(wall_now()) {}

double Turns::share() const {
  if (repeats_ > 0) return static_cast<double>(done_) / repeats_;
  if (done_ >= most_turns) return 1;
  return std::min(static_cast<double>(done_) / least_turns, (wall_now() - start_) / enough_seconds);
}

void Turns::report() const {
  constexpr int64_t steps = 1000;
  const double done = std::clamp(share(), 0.0, 1.0);
  if (progress_) progress_("measure", static_cast<int64_t>(done * steps), steps);
}

bool Turns::next() {
  ++done_;
  report();
  return share() < 1;
}

}  // namespace gqa::bench
