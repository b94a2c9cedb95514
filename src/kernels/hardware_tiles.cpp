#include "kernels/hardware_tiles.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace gqa::kernels {
namespace {

bool processor_has_them() {
  constexpr unsigned tile = 1u << 24, bf16 = 1u << 22, int8 = 1u << 25;  // in edx
  constexpr unsigned rounds_to_bf16 = 1u << 5;                           // in eax of the next
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned wanted = tile | bf16 | int8;
  if ((d & wanted) != wanted) return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & rounds_to_bf16) != 0;
}

/// Tiles are state that Linux saves for those alone who ask (Documentation/arch/x86/xstate.rst).
bool linux_lets_us() {
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

bool HardwareTiles::available() {
  static const bool available = processor_has_them() && linux_lets_us();
  return available;
}

}  // namespace gqa::kernels

#endif
