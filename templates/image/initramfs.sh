#!/bin/bash
# The boot image, from this chroot's own kernel modules and busybox, as /boot/vcluster-initrd; the kernel beside it.
set -euo pipefail
kernel=$(basename /lib/modules/*)
work=$(mktemp -d)
mkdir -p "$work"/{bin,dev,proc,root,modules}
cp /bin/busybox "$work/bin/busybox"
install -m 0755 "$(dirname "$0")/init" "$work/init"
: > "$work/modules/order"
for driver in virtio_pci virtio_blk virtio_net ext4 isofs; do
  # A driver that is built into the kernel needs no file.
  modprobe --set-version "$kernel" --show-depends "$driver" | awk '$1 == "insmod" {print $2}' | while read -r file; do
    name=$(basename "$file")
    if [ ! -e "$work/modules/$name" ]; then
      cp "$file" "$work/modules/$name"
      echo "$name" >> "$work/modules/order"
    fi
  done
done
(cd "$work" && find . | busybox cpio -o -H newc 2> /dev/null) | gzip -9 > /boot/vcluster-initrd
rm -rf "$work"
cp "/boot/vmlinuz-$kernel" /boot/vcluster-kernel
