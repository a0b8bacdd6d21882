#!/bin/sh
# Boots systemd in namespaces of its own, with the files of $1: etc (a copy of /etc) and bin. Run it by
#   unshare --pid --fork --mount --mount-proc --net --cgroup sh boot.sh DIR
# What it would write to, or clean up at a boot, is hidden below empty file systems first: the machine keeps its own.
set -e
mount --make-rprivate /
mount --bind "$1/etc" /etc
mount --bind "$1/bin" /usr/local/bin
for d in /run /tmp /var/tmp /var/log /var/lib/private /var/lib/systemd; do
	[ ! -d $d ] || mount -t tmpfs tmpfs $d
done
ip link set lo up
exec env container=other /usr/lib/systemd/systemd --system --unit=basic.target
