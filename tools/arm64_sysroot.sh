#!/bin/bash
# tools/arm64_sysroot.sh FOLDER PACKAGE...: unpacks these Debian packages for arm64, and all that
# they depend on, into FOLDER, unless that is what it holds. apt reads the system's sources and keeps
# its state beside FOLDER: nothing is installed, no architecture is added, and nobody need be root.
set -euo pipefail
root=$(realpath -m "$1")
shift
[[ -f $root/packages && $(<"$root/packages") == "$*" ]] && exit

new=$root.new
apt=$root.apt
rm -rf "$new" "$apt"
mkdir -p "$new" "$apt"/{lists,archives}/partial
: >"$apt/status" # no package is installed, so apt fetches every one
quiet_apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o APT::Architecture=arm64 \
    -o APT::Architectures=arm64 -o APT::Install-Recommends=false -o Dir::State="$apt" \
    -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" "$@" </dev/null
}
# One source that has nothing for arm64 need not matter.
quiet_apt update || echo "apt-get update failed; going on"
quiet_apt install --download-only "$@"
for deb in "$apt"/archives/*.deb; do dpkg-deb -x "$deb" "$new"; done

# Links to absolute paths would lead out of the folder.
while IFS= read -r -d '' link; do
  ln -sfnr "$new$(readlink "$link")" "$link"
done < <(find "$new" -type l -lname '/*' -print0)

echo "$*" >"$new/packages"
rm -rf "$root" "$apt"
mv "$new" "$root"
