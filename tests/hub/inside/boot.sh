#!/bin/sh
# Makes a machine of the bed out of a few namespaces, and becomes its first process.
# boot.sh FOLDER TREE SHARED NAME ADDRESS/BITS
set -eu
folder=$1 tree=$2 shared=$3 name=$4 address=$5
root=$folder/root

mount --make-rprivate /
mount -t overlay -o "lowerdir=$tree,upperdir=$folder/upper,workdir=$folder/work" overlay "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  : > "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do
  ln -s "/proc/self/fd/${n%%:*}" "$root/dev/${n##*:}"
done
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
# What NFS carries between machines is one folder here.
mkdir -p "$root/home" "$root/srv/shared"
mount --bind "$shared/home" "$root/home"
mount --bind "$shared/shared" "$root/srv/shared"

hostname "$name"
ip link set lo up
# Whoever started this puts the other end of a cable into this network as soon as it is there.
tries=0
until ip link show eth0 > /dev/null 2>&1; do
  tries=$((tries + 1))
  [ "$tries" -lt 2400 ] || { echo "no eth0 came" >&2; exit 1; }
  sleep 0.05
done
ip address add "$address" dev eth0
ip link set eth0 up
# Debian's unit gives Caddy the right to ports below 1024.
echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start

exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root \
  chroot "$root" /usr/bin/python3 -I /usr/local/lib/bed/units.py
