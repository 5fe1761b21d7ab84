#!/bin/bash
# Installs the Debian packages that building, testing and the demo need, if any are missing.
set -eu

packages=(
	gcc g++ libc6-dev make cmake pkg-config # C parts of crates, programs for the guest
	capnproto                               # the test that the generated code is current
	mmdebstrap e2fsprogs                    # the guest image
	procps util-linux                       # the demo: ps, setsid, flock
)

missing=()
for package in "${packages[@]}"; do
	state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} != 0 ]; then
	echo "== Debian packages: ${missing[*]}"
	sudo=()
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || {
			echo "deps: install as root: apt-get install ${missing[*]}" >&2
			exit 1
		}
		sudo=(sudo)
	fi
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	for step in update "install -y --no-install-recommends ${missing[*]}"; do
		echo "   apt-get ${step%% *}"
		# shellcheck disable=SC2086 # the step is a list of words
		"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q $step >"$log" 2>&1 </dev/null || {
			tail -n 30 "$log" >&2
			echo "deps: apt-get ${step%% *} failed (end of its output above)" >&2
			exit 1
		}
	done
fi
command -v "${CARGO:-cargo}" >/dev/null || {
	echo "deps: cargo is missing: install a Rust toolchain with rustup" >&2
	exit 1
}
