#!/bin/busybox sh
# shellcheck shell=dash
#
# PID 1 of the VM once the root is there: mounts the kernel's own file systems, runs the command
# and reports. /run/vm/io is a folder of the host: `command` comes from there, `stdout`, `stderr`
# and `status` go there.

bb=/run/vm/busybox
io=/run/vm/io
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

mount_new() { # TYPE TARGET OPTIONS
    $bb mkdir -p "$2"
    $bb mount -t "$1" -o "$3" "$1" "$2"
}
mount_new devpts /dev/pts newinstance,ptmxmode=666,mode=620,gid=5
$bb ln -sf pts/ptmx /dev/ptmx
mount_new tmpfs /dev/shm mode=1777
mount_new mqueue /dev/mqueue nosuid,nodev,noexec
mount_new bpf /sys/fs/bpf mode=700
mount_new securityfs /sys/kernel/security nosuid
mount_new cgroup2 /sys/fs/cgroup nsdelegate
for controller in cpu cpuset io memory pids; do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null
done
# With the first group the kernel rewrites a jump where it allocates memory. Here nobody does; with both
# processors at work, qemu 7.2 once hung there for ever.
$bb mkdir /sys/fs/cgroup/first && $bb rmdir /sys/fs/cgroup/first
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    $bb ln -sf "/proc/self/${link#*:}" "/dev/${link%%:*}"
done
$bb hostname vm
$bb ifconfig lo up

finish() { # STATUS: reports and stops the machine
    echo "$1" >$io/status.new
    $bb mv $io/status.new $io/status
    # qemu's debug-exit device ends it at once, where powering off takes another half second.
    printf '\0' | $bb dd of=/dev/port bs=1 seek=1281 conv=notrunc 2>/dev/null
    $bb poweroff -f
}

if [ -e $io/terminal ]; then
    $bb setsid -c /bin/sh $io/command </dev/ttyS1 >/dev/ttyS1 2>&1
    finish $?
fi

# The command gets pipes, not the files on the host: a program may open /dev/stdout again, and
# what it wrote then must not be cut off.
$bb mkfifo /run/vm/out /run/vm/err
$bb cat </run/vm/out >$io/stdout &
out=$!
$bb cat </run/vm/err >$io/stderr &
err=$!
$bb setsid /bin/sh $io/command </dev/null >/run/vm/out 2>/run/vm/err &
# Another child's end must not be taken for the command's.
wait $!
status=$?

# What the command left running may hold the pipes open for ever.
for process in /proc/[0-9]*; do
    process=${process#/proc/}
    case $process in
        1 | "$out" | "$err") ;;
        *) kill -9 "$process" 2>/dev/null ;;
    esac
done
wait "$out" "$err"
finish "$status"
