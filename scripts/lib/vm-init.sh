#!/bin/busybox sh
# shellcheck shell=dash
#
# PID 1 of the VM's initramfs: finds the host's root over 9p, lays writable file systems over it,
# and hands over to vm-run.sh there. scripts/vm writes the file `config` that says what to mount.
#
# /host is the host's root, read-only, under an overlay that keeps changes in memory.
# /root is the same, with fresh file systems where programs need a real one (an overlay cannot be
# the upper layer of another overlay).

PATH=/bin
/bin/busybox --install -s /bin

fail() {
    echo "vm-init: $*" >/dev/console
    echo "$*" >/vm/error 2>/dev/null
    poweroff -f
}

mount_9p() { # TAG TARGET OPTIONS
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2" ||
        fail "cannot mount the 9p export $1 on $2"
}

# The calls that `config` is made of.

expose() { # PATH: shows a path of the host that a fresh file system covers
    if [ -d "/host$1" ]; then
        mkdir -p "/root$1"
    else
        mkdir -p "/root${1%/*}" && touch "/root$1"
    fi
    mount --bind "/host$1" "/root$1" || fail "cannot show $1"
}

copy() { # PATH: puts a copy in memory over the path
    copies=$((copies + 1))
    cp -a "/host$1" "/root/run/vm/copy$copies" || fail "cannot copy $1"
    expose "$1"
    mount --bind "/root/run/vm/copy$copies" "/root$1" || fail "cannot mount the copy of $1"
}

share() { # TAG PATH: a folder of the host, writable
    mkdir -p "/root$2"
    mount_9p "$1" "/root$2" cache=none
}

disk() { # the second disk
    # The kernel's own request for this one would look in the initramfs.
    chroot /root modprobe -q crypto-crc32c
    chroot /root modprobe -a virtio_blk ext4 || fail "no modules for the disk"
    mount -t ext4 /dev/vda /root/var/lib || fail "cannot mount the disk"
}

modules() { # DIR RELEASE: the running kernel's modules, where modprobe looks for them
    mkdir -p "/root/lib/modules/$2"
    mount --bind "/host$1" "/root/lib/modules/$2" || fail "cannot show the modules"
}

mkdir -p /proc /dev /vm /lower /upper /host /root
mount -t proc proc /proc
mount -t devtmpfs dev /dev

for module in /modules/*.ko; do
    [ -e "$module" ] || continue
    insmod "$module" || fail "cannot load $module"
done

mount_9p run /vm cache=none
mount_9p root /lower ro,cache=loose
mount -t tmpfs upper /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /host ||
    fail "cannot mount the overlay"
mount --bind /host /root

# proc and sys here, so that modprobe works in /root.
mount -t proc -o nosuid,nodev,noexec proc /root/proc
mount -t sysfs -o nosuid,nodev,noexec sys /root/sys
mount -t devtmpfs -o nosuid,mode=755 dev /root/dev
for dir in /tmp /run /var/lib; do
    mount -t tmpfs -o mode=755 "vm${dir##*/}" "/root$dir" || fail "no $dir on the host"
done
chmod 1777 /root/tmp
mkdir -p /root/run/vm/io /root/run/lock
cp /bin/busybox /root/run/vm/busybox

copies=0
# shellcheck source=/dev/null
. /vm/config
mount --move /vm /root/run/vm/io
umount /proc /dev

# exec, as PID 1: the kernel looks for modprobe in the root of this process.
exec switch_root /root /run/vm/busybox sh /run/vm/io/vm-run.sh
