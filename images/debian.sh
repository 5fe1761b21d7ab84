#!/bin/bash
# debian.sh [NAME]: makes the guest image var/images/NAME.img (default: base) from Debian's packages.
#
# A bare ext4 filesystem in a sparse raw file, made without mounting anything: Debian 12's own
# userland, its unmodified linux-image-cloud-amd64, an initrd by initramfs-tools, and an
# extlinux.conf for whoever boots it. The guest's own few files are in images/guest, its C programs
# in images/src. The recipe is everything in images/; while its hash is that of the image already
# there, nothing is done. Beside the image: NAME.recipe (hash), NAME.packages (what is installed).
#
# FT_DEBIAN_MIRROR   another Debian mirror (default: mmdebstrap's own choice)
# FT_IMAGES          another directory than var/images
set -eu
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
name=${1:-base}
out=${FT_IMAGES:-$here/../var/images}
size=512M
uuid=6674706f-6972-4d31-a000-000000000001
hash_seed=6674706f-6972-4d31-a000-000000000002
export SOURCE_DATE_EPOCH=1750000000

say() { printf 'image: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

[ "$name" = base ] || fail "no recipe '$name'; there is: base"
mkdir -p "$out"
out=$(cd "$out" && pwd)
image=$out/$name.img
recipe=$(cd "$here" && {
	find . -type f -print | sort
	find . -type f -print0 | sort -z | xargs -0 sha256sum
	find . -type f -printf '%p %m\n' | sort
} | sha256sum | cut -d' ' -f1)

if [ -f "$image" ] && [ "$(cat "$out/$name.recipe" 2>/dev/null)" = "$recipe" ]; then
	say "$image is up to date"
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	# Files of the guest belong to root, and dpkg's scripts want a chroot.
	command -v sudo >/dev/null || fail "needs root (or sudo) to unpack Debian's packages"
	sudo -E "$0" "$@"
	sudo chown -R "$(id -u):$(id -g)" "$out"
	exit 0
fi
for tool in mmdebstrap mke2fs gcc; do
	command -v "$tool" >/dev/null || fail "$tool is missing: run 'make deps'"
done

# One build at a time; a second waits and then finds the first one's image.
exec 9>"$out/.lock"
if ! flock -n 9; then
	say "another build is under way, waiting"
	flock 9
	[ "$(cat "$out/$name.recipe" 2>/dev/null)" != "$recipe" ] || exit 0
fi

work=$(mktemp -d "$out/.build.XXXXXX")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
root=$work/root
files=$work/files

step() { say "$1"; }
run() { # LOG COMMAND...: quiet, but the log's end is shown if it fails
	local log=$work/$1.log began=$SECONDS
	shift
	"$@" >"$log" 2>&1 </dev/null &
	local pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		if ((SECONDS - began >= 10 && (SECONDS - began) % 10 == 0)); then
			say "  ... $((SECONDS - began)) s: $(tail -n 1 "$log" | tr -d '\r' | tail -c 100)"
		fi
	done
	if ! wait "$pid"; then
		tail -n 30 "$log" >&2
		fail "failed: $1 (end of its output above)"
	fi
}

step "1/4 the guest's own programs"
cp -a "$here/guest" "$files"
mkdir -p "$files/usr/local/bin"
for source in "$here"/src/*.c; do
	program=$(basename "$source" .c)
	run "gcc-$program" gcc -O2 -Wall -Wextra -static -s -Wl,--build-id=none \
		-o "$files/usr/local/bin/$program" "$source"
done
chmod -R u=rwX,go=rX "$files"

step "2/4 Debian packages, kernel and initrd (about a minute)"
# The two dpkg path-excludes on initramfs-tools keep udev out of the initrd: the modules that it
# would find are named in images/guest instead.
run mmdebstrap mmdebstrap --variant=essential --architectures=amd64 \
	--include=busybox-static,bash,coreutils,util-linux,login,procps,kmod,gzip,initramfs-tools,lz4,linux-image-cloud-amd64 \
	--aptopt='APT::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/initramfs-tools/hooks/udev' \
	--dpkgopt='path-exclude=/usr/share/initramfs-tools/scripts/init-*/udev' \
	--setup-hook="cp -a '$files/.' \"\$1\"" \
	--customize-hook="'$here/finish.sh' \"\$1\"" \
	bookworm "$root" ${FT_DEBIAN_MIRROR:+"$FT_DEBIAN_MIRROR"}

step "3/4 filesystem"
mv "$root/packages" "$work/packages"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0 touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
truncate -s "$size" "$work/$name.img"
E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH run mke2fs mke2fs -q -F -t ext4 -L ft-base -U "$uuid" \
	-O ^orphan_file,^metadata_csum_seed -m 1 \
	-E "hash_seed=$hash_seed,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0" \
	-d "$root" "$work/$name.img"

step "4/4 check"
run e2fsck e2fsck -fn "$work/$name.img"
mv "$work/packages" "$out/$name.packages"
rm -f "$out/$name.recipe"
mv "$work/$name.img" "$image"
echo "$recipe" >"$out/$name.recipe"
say "$image: $(du -h --apparent-size "$image" | cut -f1), $(du -h "$image" | cut -f1) on disk"
