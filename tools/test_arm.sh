# shellcheck shell=bash
# ./dev test-arm, which sources this: the NEON kernels, where no Arm processor is at hand.

readonly -a pkgs_arm=(g++-aarch64-linux-gnu qemu-user)

# Makes all that the arm64 preset needs. 1, with the reason in $arm_why, where it can't be had.
arm_why=
arm_setup() {
  local log=build/arm64-sysroot.log tool
  if ! have "${pkgs_build[@]}" "${pkgs_test[@]}" "${pkgs_arm[@]}"; then
    arm_why="Debian packages are missing: one of ${pkgs_arm[*]}, or of those of ./dev test"
    return 1
  fi
  for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
    if ! command -v "$tool" >/dev/null; then
      arm_why="there is no $tool"
      return 1
    fi
  done
  mkdir -p build
  if ! tools/arm64_sysroot.sh build/arm64-sysroot libc6-dev "${libs_build[@]}" "${libs_test[@]}" \
    >"$log" 2>&1; then
    arm_why="could not make build/arm64-sysroot: $(tail -n 1 "$log") (all of it: $log)"
    return 1
  fi
}

verb_test-arm() {
  begin_times
  # What the other tests run is the same on every processor, or goes through the kernels in no other way.
  local target=simd_tests which=(--label-regex '^simd$')
  if [[ ${1:-} == all ]]; then
    target=all which=()
    shift
  fi
  if (($#)) && [[ $1 != -- ]]; then
    say "test-arm: what is '$1'? ctest's own arguments come after --"
    exit 2
  fi
  (($# == 0)) || shift
  if [[ $(uname -m) == aarch64 ]]; then
    say "test-arm: this is an Arm machine; its own tests run the NEON kernels"
    test_preset -- --label-regex '^unit$' "$@"
    return
  fi
  if ! clocked "arm64 setup" . arm_setup; then
    [[ ${CI:-} != true ]] || die "test-arm: $arm_why"
    say "test-arm: SKIPPED, NEON kernels not tested: $arm_why"
    return
  fi
  clocked "arm64 build" . build arm64 "$target" || exit 1
  # Emulated, a configuration takes about 10 times as long.
  GQA_TEST_CONFIGURATIONS=${GQA_TEST_CONFIGURATIONS:-3000} run_ctest arm64 "${which[@]}" "$@"
}
