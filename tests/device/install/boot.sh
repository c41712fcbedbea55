#!/usr/bin/env bash
# A machine of systemd's own, booted in a container over an overlay of this one; what it writes goes to memory.
#
#     boot.sh WORK SITE SCENARIO FILES...    runs /root/SCENARIO in it; what that puts into /root/out comes to WORK/out
#
# WORK is an empty folder, SITE the packages that headwater needs, FILES are copied to /opt. Root, systemd-nspawn and
# overlayfs are needed. The mounts are of a name space of their own and vanish with it.
set -euo pipefail
if [[ -z ${APART:-} ]]; then
	APART=1 exec unshare --mount --propagation private "$0" "$@"
fi
work=$1 site=$2 scenario=$3
tree=$(realpath "$(dirname "$0")/../../..")
mkdir "$work"/{memory,out}
mount -t tmpfs tmpfs "$work/memory"
mkdir "$work"/memory/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/memory/upper,workdir=$work/memory/work" "$work/memory/root"
root=$work/memory/root

# Nothing of this machine's own is started but what a boot needs.
rm -rf "$root"/etc/systemd/system/{multi-user,sockets,timers,graphical}.target.wants
mkdir -p "$root"/etc/systemd/system/multi-user.target.wants "$root"/opt/headwater/{bin,lib/headwater,site}
for folder in protos compression device server simulations; do
	cp -r "$tree/$folder" "$root/opt/headwater/lib/headwater/"
done
cp -r "${@:4}" "$root/opt/"
cp "$scenario" "$root/root/scenario.py"
cat >"$root/opt/headwater/bin/headwater" <<-'END'
	#!/bin/sh
	PYTHONPATH=/opt/headwater/lib:/opt/headwater/site exec /usr/bin/python3 -m headwater.compression.cli "$@"
END
chmod +x "$root/opt/headwater/bin/headwater"
cat >"$root/etc/systemd/system/scenario.service" <<-'END'
	[Unit]
	After=multi-user.target
	[Service]
	Type=oneshot
	TimeoutStartSec=infinity
	ExecStart=/usr/bin/python3 /root/scenario.py
	ExecStopPost=/bin/systemctl poweroff --no-block
END
ln -s ../scenario.service "$root/etc/systemd/system/multi-user.target.wants/"
mkdir "$root/root/out"

systemd-nspawn --quiet --register=no --keep-unit --private-network --boot --directory="$root" \
	--bind-ro="$site:/opt/headwater/site" systemd.unit=multi-user.target </dev/null >"$work/out/console" 2>&1
cp -r "$root/root/out/." "$work/out/"
