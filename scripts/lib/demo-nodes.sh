# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# The demo's machines, each a network namespace: three nodes with a daemon each, a client that is no
# node, and the switch between them. To be sourced after report.sh.

state_dir=/var/lib/fairlead-demo
run_dir=/run/fairlead-demo
cgroup_parent=/fairlead-demo
nodes=(n1 n2 n3)
# shellcheck disable=SC2034 # for the scripts that source this file
client_address=192.0.2.100

netns() { printf '/run/netns/fl-demo-%s' "$1"; }
address_of() { printf '192.0.2.%s' "${1#n}"; }
socket_of() { printf '%s/%s/executor.sock' "$run_dir" "$1"; }
log_of() { printf '%s/%s.log' "$run_dir" "$1"; }

# inside WHO COMMAND...: runs the command in the namespace of a node or of the client. Only the
# network is another: `ip netns exec` would also make a mount namespace.
inside() {
    local who=$1
    shift
    nsenter --net="$(netns "$who")" -- "$@"
}

# on NODE ARGUMENT...: asks the daemon of a node.
on() {
    local node=$1
    shift
    "$bin/fairlead" --socket "$(socket_of "$node")" "$@"
}

plug_in() { # WHO ADDRESS
    ip netns add "fl-demo-$1"
    ip -n "fl-demo-$1" link set lo up
    ip -n fl-demo-sw link add "to-$1" type veth peer name eth0 netns "fl-demo-$1"
    ip -n fl-demo-sw link set "to-$1" master sw0 up
    ip -n "fl-demo-$1" address add "$2/24" dev eth0
    ip -n "fl-demo-$1" link set eth0 up
}

build_underlay() {
    local node
    mkdir -p "$state_dir" "$run_dir"
    ip netns add fl-demo-sw
    ip -n fl-demo-sw link add sw0 type bridge
    ip -n fl-demo-sw link set sw0 up
    for node in "${nodes[@]}"; do
        plug_in "$node" "$(address_of "$node")"
    done
    plug_in client "$client_address"
}

start_daemons() {
    local node deadline options=()
    [[ ! $engine ]] || options=(--engine "$engine")
    for node in "${nodes[@]}"; do
        # In a session of its own: an interrupt at the terminal is for this script.
        NO_COLOR=1 setsid nsenter --net="$(netns "$node")" -- "$bin/fairleadd" \
            --state-dir "$state_dir/$node" --run-dir "$run_dir/$node" \
            --cgroup-parent "$cgroup_parent-$node" "${options[@]}" \
            </dev/null >"$(log_of "$node")" 2>&1 {lock}>&- &
        echo $! >"$run_dir/$node.pid"
    done
    for node in "${nodes[@]}"; do
        deadline=$((SECONDS + 30))
        until on "$node" node describe >/dev/null 2>&1; do
            if ! kill -0 "$(<"$run_dir/$node.pid")" 2>/dev/null; then
                echo "the daemon of $node has ended"
                return 1
            fi
            if ((SECONDS > deadline)); then
                echo "the daemon of $node does not answer"
                return 1
            fi
            sleep 0.1
        done
    done
}

stop_daemons() {
    local node pid deadline=$((SECONDS + 20))
    for node in "${nodes[@]}"; do
        kill -TERM "$(<"$run_dir/$node.pid")"
    done
    for node in "${nodes[@]}"; do
        pid=$(<"$run_dir/$node.pid")
        while kill -0 "$pid" 2>/dev/null; do
            if ((SECONDS > deadline)); then
                echo "the daemon of $node does not end"
                return 1
            fi
            sleep 0.1
        done
    done
}

# daemon_logs [DIR]
daemon_logs() {
    local node log
    for node in "${nodes[@]}"; do
        log=${1:-$run_dir}/$node.log
        if [[ -s $log ]]; then
            note "the end of the log of $node:"
            tail -n 25 -- "$log" | sed 's/^/    | /'
        fi
    done
}

# Takes away the machines, and all else that there is of a demo, in whatever state it was left.
remove_machines() {
    local pids target path name
    for _ in {1..50}; do
        mapfile -t pids < <(demo_processes)
        ((${#pids[@]})) || break
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.1
    done
    # The deepest first.
    while read -r target; do
        umount -l -- "$target"
    done < <(demo_mounts | sort -r)
    while read -r name; do
        ip netns delete "$name"
    done < <(demo_named_namespaces)
    while read -r path; do
        for _ in {1..20}; do
            ! rmdir -- "$path" 2>/dev/null || break
            sleep 0.1
        done
    done < <(demo_cgroups | sort -r)
    rm -rf --one-file-system -- "$run_dir" "$state_dir"
}
