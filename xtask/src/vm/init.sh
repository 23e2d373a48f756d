#!/bin/busybox sh
# The first process of the emulated machine: makes it a usual one, runs the test programs of /vm/list, and turns it off.
# What is for the host goes out over the second serial port, a line beginning with @ for what this script has to say; the first is the kernel's console.
/bin/busybox --install -s /bin 2> /dev/null # not over what is there
export PATH=/usr/bin:/bin HOME=/root CARGO_TARGET_DIR=/tmp/target RUST_BACKTRACE=0
export LIFETRACE_BIN=/usr/bin/lifetrace LIFETRACE_FIXTURES=/fixtures LIFETRACE_OWN_MACHINE=1

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracing /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
echo "+cpu +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
ln -s /proc/self/fd /dev/fd
ip link set lo up
hostname lifetrace
for module in /vm/modules/*.ko; do insmod "$module"; done
ulimit -n 65536
mkdir -p "$CARGO_TARGET_DIR"
export LIFETRACE_PATIENCE="$(cat /vm/patience)"
cd /tmp

exec > /dev/ttyS1
echo "@kernel $(uname -r)"
echo "@doctor $(lifetrace doctor --programs --json)"
while read -r seconds program filter; do
    rm -f "$CARGO_TARGET_DIR/skips.jsonl"
    echo "@begin $program"
    timeout -s KILL "$seconds" "/tests/$program" --test-threads 1 --include-ignored $filter < /dev/null
    code=$?
    # What a killed test leaves must not stand in the next one's way.
    [ $code = 137 ] && killall -q -KILL lifetrace
    echo
    [ -f "$CARGO_TARGET_DIR/skips.jsonl" ] && sed 's/^/@skip /' "$CARGO_TARGET_DIR/skips.jsonl"
    echo "@end $program $code"
done < /vm/list
echo "@over"
sync
poweroff -f
