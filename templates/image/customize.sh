#!/bin/bash
# Only for the local base image, in its chroot, after install.sh: what makes a small, quick machine of it.
set -euo pipefail

# The folder image/root is laid over the tree as it is.
cp -rT "$(dirname "$0")/root" /
chmod 0644 /etc/resolv.conf

# No keys, no identity: every machine gets its own.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /etc/hostname
: > /etc/machine-id
passwd -q -l root

# One disk without partitions, direct kernel boot.
echo '/dev/vda / ext4 defaults,noatime 0 0' > /etc/fstab

systemctl -q enable systemd-networkd.service vcluster-configure.service
systemctl -q disable systemd-networkd-wait-online.service nfs-blkmap.service
# Work at boot that a machine of an hour's life does not need.
systemctl -q mask apparmor.service cloud-config.service cloud-final.service cloud-init-hotplugd.socket \
  console-setup.service dev-hugepages.mount dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
  getty@tty1.service keyboard-setup.service man-db.timer modprobe@configfs.service modprobe@dm_mod.service \
  modprobe@drm.service modprobe@fuse.service modprobe@loop.service rpc-gssd.service rpc-svcgssd.service \
  sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  systemd-binfmt.service systemd-network-generator.service systemd-pstore.service systemd-update-utmp.service \
  systemd-update-utmp-runlevel.service
install -d /etc/systemd/system-generators
for generator in cryptsetup debug gpt-auto hibernate-resume integritysetup rc-local run system-update sysv tpm2 veritysetup; do
  ln -sf /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done
# With a script of the same name there, "systemctl enable" starts perl to keep the two in step.
find /etc/init.d -type f -delete

# What systemd does once after an update is done already.
touch -d '1 minute' /etc/.updated /var/.updated

# The kernel beside the image must go on finding its modules: no upgrade takes them away.
apt-mark -q hold "linux-image-$(basename /lib/modules/*)" > /dev/null
