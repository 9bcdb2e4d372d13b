# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# Where the benchmark runs: network namespaces named fl-bench-*, one switch between them, folders and
# a cgroup of its own. Everything is found by where it is, not by what a run remembers, so what a
# killed run left can be removed too. To be sourced after report.sh.

state_dir=/var/lib/fairlead-bench
run_dir=/run/fairlead-bench
cgroup_parent=/fairlead-bench

netns() { printf '/run/netns/fl-bench-%s' "$1"; }

# inside WHO COMMAND...: only the network is another; `ip netns exec` would also make a mount namespace.
inside() {
    local who=$1
    shift
    nsenter --net="$(netns "$who")" -- "$@"
}

# background LOG COMMAND...: in a session of its own, as an interrupt at the terminal is for the script
# alone, and without the script's lock, which must end with the script.
background() {
    local log=$1
    shift
    setsid "$@" </dev/null >"$log" 2>&1 {lock}>&- &
}

add_place() {
    ip netns add "fl-bench-$1"
    ip -n "fl-bench-$1" link set lo up
}

build_switch() {
    mkdir -p "$state_dir" "$run_dir"
    add_place sw
    ip -n fl-bench-sw link add sw0 type bridge
    ip -n fl-bench-sw link set sw0 up
}

# plug_in WHO ADDRESS: a place with a cable to the switch.
plug_in() {
    add_place "$1"
    ip -n fl-bench-sw link add "to-$1" type veth peer name eth0 netns "fl-bench-$1"
    ip -n fl-bench-sw link set "to-$1" master sw0 up
    ip -n "fl-bench-$1" address add "$2/24" dev eth0
    ip -n "fl-bench-$1" link set eth0 up
}

socket_of() { printf '%s/%s/executor.sock' "$run_dir" "$1"; }

# on NODE ARGUMENT...: asks the daemon of a node.
on() {
    local node=$1
    shift
    "$bin/fairlead" --socket "$(socket_of "$node")" "$@"
}

# start_daemon NODE ENGINE: until it answers.
start_daemon() {
    local node=$1 pid deadline=$((SECONDS + 60))
    background "$run_dir/$node.log" nsenter --net="$(netns "$node")" -- "$bin/fairleadd" \
        --state-dir "$state_dir/$node" --run-dir "$run_dir/$node" \
        --cgroup-parent "$cgroup_parent/$node" --engine "$2"
    pid=$!
    until on "$node" node describe >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || {
            echo "the daemon of $node has ended"
            return 1
        }
        ((SECONDS < deadline)) || {
            echo "the daemon of $node does not answer"
            return 1
        }
        sleep 0.1
    done
}

daemon_logs() {
    local log
    for log in "$run_dir"/*.log; do
        [[ -s $log ]] || continue
        note "the end of ${log##*/}:"
        tail -n 15 -- "$log" | sed 's/^/    | /'
    done
}

bench_names() {
    find /run/netns -mindepth 1 -maxdepth 1 -name 'fl-bench-*' -printf '%f\n' 2>/dev/null || true
}

bench_mounts() {
    awk -v run="$run_dir/" -v state="$state_dir/" '
        index($5, run) == 1 || index($5, state) == 1 { print $5 }' /proc/self/mountinfo
}

# The inodes of all network namespaces of the benchmark, the daemons' included.
bench_inodes() {
    local path
    {
        bench_names | sed 's|^|/run/netns/|'
        bench_mounts
    } | while read -r path; do
        [[ $(stat -f -c %T -- "$path" 2>/dev/null) != nsfs ]] || stat -L -c %i -- "$path"
    done | sort -u
}

# Processes in a network namespace or in a cgroup of the benchmark.
bench_processes() {
    {
        # A process may end while it is looked at.
        stat -L -c '%i %n' /proc/[0-9]*/ns/net 2>/dev/null |
            awk 'NR == FNR { ours[$1]; next } $1 in ours { print $2 }' <(bench_inodes) - || true
        grep -ls ":$cgroup_parent/" /proc/[0-9]*/cgroup || true
    } | cut -d / -f 3 | sort -un
}

bench_cgroups() {
    find /sys/fs/cgroup -type d -path "*$cgroup_parent*" 2>/dev/null || true
}

# Takes all of it away, in whatever state it is. Says what it could not.
remove_places() {
    local pids target name path
    for _ in {1..50}; do
        mapfile -t pids < <(bench_processes)
        ((${#pids[@]})) || break
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.1
    done
    # The deepest first.
    while read -r target; do
        umount -l -- "$target"
    done < <(bench_mounts | sort -r)
    while read -r name; do
        ip netns delete "$name"
    done < <(bench_names)
    while read -r path; do
        for _ in {1..20}; do
            ! rmdir -- "$path" 2>/dev/null || break
            sleep 0.1
        done
    done < <(bench_cgroups | sort -r)
    rm -rf --one-file-system -- "$run_dir" "$state_dir"
    nothing_left
}

nothing_left() {
    local left
    left=$(bench_processes && bench_mounts && bench_names && bench_cgroups)
    [[ ! $left ]] || {
        echo "still there:"
        echo "$left"
        return 1
    }
}
