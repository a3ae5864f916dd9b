#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The first process of the VM: sets the machine up, loads the modules, runs the command and powers
# off. Ports: ttyS0 kernel console, ttyS1 the command's output, ttyS3 its errors, ttyS2 how it went.

/bin/busybox mkdir -p /usr /sbin /proc /sys /dev /tmp /run /etc /root
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/root HOME=/root USER=root
umask 022

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
ip link set lo up
hostname bus1

# Kept open, so that what stty sets stays.
exec 5>/dev/ttyS1 6>/dev/ttyS3 7>/dev/ttyS2
for port in ttyS1 ttyS2 ttyS3; do
    stty -F /dev/$port raw -echo
done

finish() {
    echo "$1 $2" >&7
    # Closing waits until all is out.
    exec 5>&- 6>&- 7>&-
    # QEMU ends at a reboot, and the debug kernel cannot switch the power off.
    reboot -f
}

# Tells the host of trouble that the kernel has no report of its own for.
trouble() {
    echo "<2>xtask: trouble: $1" >/dev/kmsg
}

# Lets kmemleak search. It passes over memory that is younger than 5 s, or changed since the scan
# before.
find_leaks() {
    kmemleak=/sys/kernel/debug/kmemleak
    sleep 6
    echo scan >$kmemleak && echo scan >$kmemleak || trouble "kmemleak does not work"
    while read -r line; do
        echo "<2>kmemleak: $line" >/dev/kmsg
    done <$kmemleak
    echo clear >$kmemleak
}

# Looks for faults that the checkers of a debug kernel do not report by themselves.
look() {
    find_leaks
    if [ -d /sys/module/bus1 ]; then
        if rmmod bus1 2>&6; then
            find_leaks
        else
            trouble "bus1 cannot be unloaded"
        fi
    fi
    # A report of lockdep, and the first of KASAN, switches lockdep off.
    grep -q '^ *debug_locks: *1$' /proc/lockdep_stats || trouble "lockdep is switched off"
}

. /xtask/settings

echo "<6>xtask: begin" >/dev/kmsg
for module in $MODULES; do
    if ! insmod "/xtask/$module" 2>&6; then
        finish insmod "$module"
    fi
done
if [ -n "$BUS1" ] && ! insmod /xtask/bus1.ko $PARAMS 2>&6; then
    finish insmod bus1.ko
fi

cd /root
if [ -n "$TTY" ]; then
    export TERM COLUMNS LINES
    for port in ttyS1 ttyS3; do
        stty -F /dev/$port cols "$COLUMNS" rows "$LINES"
    done
    setsid sh /xtask/command </dev/null >&5 2>&6 5>&- 6>&- 7>&-
    status=$?
else
    # A pipe in between, so that the command does not take the port for a terminal.
    mkfifo /run/out /run/err
    cat /run/out >&5 7>&- &
    out=$!
    cat /run/err >&6 7>&- &
    err=$!
    setsid sh /xtask/command </dev/null >/run/out 2>/run/err 5>&- 6>&- 7>&-
    status=$?
    # Whatever the command left running ends here, or the pipes would stay open.
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        case $pid in
        1 | $out | $err) ;;
        *) [ -e "$process/exe" ] && kill -9 "$pid" ;;
        esac
    done
    wait $out $err
fi
if [ -n "$CHECKERS" ]; then
    look
fi
finish exit $status
