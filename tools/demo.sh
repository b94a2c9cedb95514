# shellcheck shell=bash
# ./dev demo, which sources this: what it will do and about how long that takes, then the doing.

# Seconds of one core, measured on an AMD EPYC on which yardstick() took 104 ms. Both scale with that.
readonly demo_compile_ms=3500 # a source file
readonly demo_convert_ms=335000
readonly demo_yardstick_us=104000

# How long bash needs to count: the only measure of a core's speed where nothing is installed yet.
yardstick() {
  local begin=${EPOCHREALTIME//[!0-9]/} i
  for ((i = 0; i < 30000; ++i)); do :; done
  echo $((${EPOCHREALTIME//[!0-9]/} - begin))
}

# about SECONDS
about() { if (($1 < 90)); then echo "about $1 s"; else echo "about $((($1 + 30) / 60)) min"; fi; }

# On all cores of this machine, in seconds: scaled MILLISECONDS YARDSTICK
scaled() { echo $(($1 * $2 / demo_yardstick_us / $(nproc) / 1000 + 1)); }

plan_packages() {
  local package missing=() bytes=0
  command -v dpkg-query >/dev/null || return 0 # have() will say what is needed
  for package in "${pkgs_build[@]}" "${pkgs_faster[@]}"; do
    installed "$package" || missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then
    say "  packages: all there"
    return
  fi
  # With what they need in turn; 0 where apt has no lists yet.
  bytes=$(apt-get install --print-uris -qq -y --no-install-recommends "${missing[@]}" 2>/dev/null |
    awk '{ sum += $3 } END { print int(sum) }') || bytes=0
  if ((bytes)); then
    # Unpacking takes about as long as fetching does at that speed.
    say "  packages: $((bytes / 1000000)) MB to fetch and install," \
      "$(about $((bytes / 5000000 + 1))) where 10 MB come in a second"
  else
    say "  packages: ${#missing[@]} to install, and what they need: about a minute"
  fi
}

plan_compile() {
  local yardstick=$1 build=build/release steps said='' what=files
  steps=$(find src cli -name '*.cpp' | wc -l)
  if [[ -f $build/build.ninja ]] && command -v ninja >/dev/null; then
    said=$(ninja -C "$build" -n gqa 2>/dev/null) || said=
  fi
  if [[ $said == *"no work to do"* ]]; then
    say "  compile: nothing, the program is up to date"
    return
  fi
  # A build that is to be configured anew first does not know its steps.
  if [[ $said =~ .*\[[0-9]+/([0-9]+)\] && $said != *Re-running* ]]; then
    steps=${BASH_REMATCH[1]} what=steps
  fi
  say "  compile: $steps $what, $(about "$(scaled $((steps * demo_compile_ms)) "$yardstick")") with $(nproc) processes"
}

verb_demo() {
  local yardstick
  yardstick=$(yardstick)
  say "the demo has three parts:"
  plan_packages
  plan_compile "$yardstick"
  say "  convert and measure: $(about "$(scaled "$demo_convert_ms" "$yardstick")"); rows of a table," \
    "each as soon as it is there"
  build release gqa
  "$python" -B examples/demo.py --gqa build/release/gqa --model models/tales-mha \
    --text models/tales-mha/heldout.txt "$@"
}
