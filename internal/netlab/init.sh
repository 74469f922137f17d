# The first process of a host: makes the host's world, then only reaps.
# ENGINE is the engine's root folder, DISK the host's own, NAME its name,
# CGROUPS where its processes belong. Says so on descriptor 3 when ready.
set -eu
umask 022
for group in $CGROUPS; do echo 0 >"$group/cgroup.procs"; done
mount --make-rslave /
mount -t overlay overlay -o "lowerdir=$ENGINE,upperdir=$DISK/upper,workdir=$DISK/work" "$DISK/root"
cd "$DISK/root"
mkdir -p var/lib/docker
mount --bind "$DISK/docker" var/lib/docker

mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
# Beside version 1, runc would put containers at the root of version 2.
umount sys/fs/cgroup/unified 2>/dev/null || true
mount -t tmpfs -o mode=755 tmpfs run
mkdir -m 1777 run/lock

mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mknod -m 600 dev/net/tun c 10 200
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
ln -s pts/ptmx dev/ptmx
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm

echo "$NAME" >/proc/sys/kernel/hostname
echo "$NAME" >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$NAME" >etc/hosts

pivot_root . mnt
cd /
umount -l /mnt
mount --make-rshared /
echo ready >&3
exec 3>&-
exec env -i PATH="$PATH" docker-init -- sleep infinity
