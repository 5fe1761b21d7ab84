#!/bin/bash
# finish.sh ROOT: turns an unpacked Debian into the guest (called by debian.sh, before mke2fs).
set -eu
root=$1

# busybox is the init: one small static program instead of a service manager.
ln -sf /bin/busybox "$root/sbin/init"
for tool in poweroff reboot halt; do
	[ -e "$root/sbin/$tool" ] || ln -s /bin/busybox "$root/sbin/$tool"
done

echo debian >"$root/etc/hostname"
echo '127.0.0.1 localhost debian' >"$root/etc/hosts"
rm -f "$root/etc/resolv.conf"
: >"$root/etc/machine-id"
# The initrd mounts / as the kernel command line says, and ext4 replays its own journal.
echo '/dev/vda / ext4 rw,relatime 0 0' >"$root/etc/fstab"
chroot "$root" passwd -d root >/dev/null

kernel=$(cd "$root/boot" && echo vmlinuz-*)
initrd=$(cd "$root/boot" && echo initrd.img-*)
[ -f "$root/boot/$kernel" ] && [ -f "$root/boot/$initrd" ] || {
	echo "expected one kernel and one initrd in /boot, found: $kernel, $initrd" >&2
	exit 1
}
ln -sf "boot/$kernel" "$root/vmlinuz"
ln -sf "boot/$initrd" "$root/initrd.img"
mkdir -p "$root/boot/extlinux"
cat >"$root/boot/extlinux/extlinux.conf" <<END
default debian
timeout 0

label debian
	menu label Debian GNU/Linux 12, kernel ${kernel#vmlinuz-}
	linux /boot/$kernel
	initrd /boot/$initrd
	append root=/dev/vda rootfstype=ext4 rw console=ttyS0
END

# Modules that no virtual machine of ours has hardware for stay installed: the kernel package is
# unmodified. Caches and logs go.
chroot "$root" dpkg-query -W -f='${Package} ${Version} ${Architecture}\n' >"$root/packages"
rm -rf "$root"/var/cache/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt
rm -f "$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root"/boot/*.old
find "$root/dev" -mindepth 1 -delete 2>/dev/null || true
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/run"
