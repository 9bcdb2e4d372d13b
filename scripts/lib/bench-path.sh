# shellcheck shell=bash disable=SC2154,SC2016 # set by the script that sources this file; awk's variables
#
# The paths that are compared: how each is built, and how it is measured. To be sourced after
# bench-files.sh.

# What is compared, in the order of the table. A configuration is who asks, and where the servers are:
# the namespace's file, the address, the ports of nginx and iperf3.
path_configurations=()
declare -A from=() address=() http_port=() bulk_port=()

configuration() { # NAME NAMESPACE ADDRESS [HTTP-PORT BULK-PORT]
    path_configurations+=("$1")
    from[$1]=$2 address[$1]=$3 http_port[$1]=${4:-80} bulk_port[$1]=${5:-5201}
}

# Two namespaces and a veth pair: what everything is compared with.
build_veth() {
    add_place v1
    add_place v2
    ip -n fl-bench-v1 link add eth0 type veth peer name eth0 netns fl-bench-v2
    ip -n fl-bench-v1 address add 10.7.0.1/24 dev eth0
    ip -n fl-bench-v2 address add 10.7.0.2/24 dev eth0
    ip -n fl-bench-v1 link set eth0 up
    ip -n fl-bench-v2 link set eth0 up
    serve v2
}

# hand_task TASK NODE: a namespace on the bridge of a node.
hand_task() {
    add_place "t$1"
    ip -n "fl-bench-t$1" link add eth0 address "02:42:0a:09:00:0$1" mtu 1450 type veth \
        peer name "task$1" mtu 1450 netns "fl-bench-h$2"
    ip -n "fl-bench-h$2" link set "task$1" master br0 up
    bridge -n "fl-bench-h$2" link set dev "task$1" learning off flood off
    bridge -n "fl-bench-h$2" fdb replace "02:42:0a:09:00:0$1" dev "task$1" master static
    ip -n "fl-bench-t$1" address add "10.9.0.$1/24" dev eth0
    ip -n "fl-bench-t$1" link set eth0 up
}

# hand_neighbour TASK OTHER
hand_neighbour() {
    ip -n "fl-bench-t$1" neighbour replace "10.9.0.$2" lladdr "02:42:0a:09:00:0$2" dev eth0 nud permanent
}

# hand_remote NODE TASK: where a task of the other node is.
hand_remote() {
    bridge -n "fl-bench-h$1" fdb replace "02:42:0a:09:00:0$2" dev vx0 dst "192.0.2.2$((3 - $1))" self permanent
    bridge -n "fl-bench-h$1" fdb replace "02:42:0a:09:00:0$2" dev vx0 master static
}

# The same road as our overlay's, with nothing of ours: two nodes (h1, h2) with a bridge and a VXLAN
# device each; tasks t1 and t3 on the first, t2 on the second. Nothing is learned, nothing is flooded.
build_hand() {
    local node
    for node in 1 2; do
        plug_in "h$node" "192.0.2.2$node"
        ip -n "fl-bench-h$node" link add vx0 type vxlan id 4242 dstport 4789 local "192.0.2.2$node" nolearning
        ip -n "fl-bench-h$node" link add br0 mtu 1450 type bridge
        ip -n "fl-bench-h$node" link set br0 up
        ip -n "fl-bench-h$node" link set vx0 mtu 1450 master br0 up
        bridge -n "fl-bench-h$node" link set dev vx0 learning off flood off
    done
    hand_task 1 1
    hand_task 3 1
    hand_task 2 2
    hand_neighbour 1 2
    hand_neighbour 2 1
    hand_neighbour 1 3
    hand_neighbour 3 1
    hand_remote 1 2
    hand_remote 2 1
    serve t2
    serve t3
}

# write_assignment PREFIX NODE: one of the two nodes of a cluster. Service `far` has its replica on node
# 2, `near` on node 1, where the client is; each is published for nginx and for iperf3.
write_assignment() {
    local prefix=$1 node=$2 task home network number offset=0
    [[ $prefix == n ]] || offset=10
    cat <<YAML
version: 1
node: {id: n$node, hostname: node-$node, socket: $(socket_of "$prefix$node")}
networks:
- id: ingress
  name: ingress
  ingress: true
  subnets: [{cidr: 10.0.0.0/24, gateway: 10.0.0.1, vni: 4096}]
- id: app
  name: app
  subnets: [{cidr: 10.1.0.0/24, gateway: 10.1.0.1, vni: 4097}]
services:
- id: near
  name: near
  virtualIps: [{networkId: app, address: 10.1.0.2}]
  ports: [{published: 8081, target: 80}, {published: 5211, target: 5201}]
- id: far
  name: far
  virtualIps: [{networkId: app, address: 10.1.0.3}]
  ports: [{published: 8082, target: 80}, {published: 5212, target: 5201}]
nodes:
- {id: n1, version: 1, vteps: [192.0.2.$((offset + 1))], ingressAddresses: [10.0.0.2], steeringId: $((offset + 1))}
- {id: n2, version: 1, vteps: [192.0.2.$((offset + 2))], ingressAddresses: [10.0.0.3], steeringId: $((offset + 2))}
endpoints:
- {id: client-app, version: 1, networkId: app, nodeId: n1, taskId: client, taskName: client, addresses: [10.1.0.10]}
YAML
    for task in near:n1:11 far:n2:12; do
        IFS=: read -r task home number <<<"$task"
        for network in app:10.1.0 ingress:10.0.0; do
            echo "- {id: $task-${network%:*}, version: 1, networkId: ${network%:*}, nodeId: $home, serviceId: $task," \
                "taskId: $task, taskName: $task, addresses: [${network#*:}.$number]}"
        done
    done
    echo "tasks:"
    if ((node == 1)); then
        cat <<YAML
- id: client
  name: client
  container: {image: "dir:$server_root", command: [sleep], args: [infinity], stopSignal: SIGKILL}
  networks: [{networkId: app, addresses: [10.1.0.10/24]}]
YAML
        task=near number=11
    else
        task=far number=12
    fi
    cat <<YAML
- id: $task
  name: $task
  serviceId: $task
  serviceName: $task
  slot: 1
  container: {image: "dir:$server_root", command: [/usr/sbin/nginx], args: [-g, daemon off;], stopSignal: SIGKILL}
  networks: [{networkId: app, addresses: [10.1.0.$number/24]}, {networkId: ingress, addresses: [10.0.0.$number/24]}]
YAML
}

task_netns() { # NODE TASK
    on "$1" --format json inspect task "$2" | jq -r '.[0].netns'
}

# build_cluster PREFIX ENGINE: two nodes PREFIX1 and PREFIX2 with a daemon each, and their tasks.
build_cluster() {
    local prefix=$1 engine=$2 node offset=0
    [[ $prefix == n ]] || offset=10
    for node in 1 2; do
        plug_in "$prefix$node" "192.0.2.$((offset + node))"
        start_daemon "$prefix$node" "$engine"
        write_assignment "$prefix" "$node" >"$run_dir/$prefix$node.yaml"
    done
    "$bin/fairlead" apply -f "$run_dir/${prefix}1.yaml" -f "$run_dir/${prefix}2.yaml" \
        --wait --wait-tasks --timeout 120s
    [[ $(on "${prefix}1" --format json node describe | jq -r .engine) == "$engine" ]]
    background "$run_dir/near-iperf3.log" nsenter --net="$(task_netns "${prefix}1" near)" -- iperf3 -s -p 5201
    background "$run_dir/far-iperf3.log" nsenter --net="$(task_netns "${prefix}2" far)" -- iperf3 -s -p 5201
}

configure_hand() {
    configuration veth "$(netns v1)" 10.7.0.2
    configuration hand-1 "$(netns t1)" 10.9.0.3
    configuration hand-2 "$(netns t1)" 10.9.0.2
}
# Overlay and VIP are the same with both engines, so only the first cluster is asked for them.
configure_tasks() { # PREFIX
    local client
    client=$(task_netns "${1}1" client)
    configuration overlay-1 "$client" 10.1.0.11
    configuration overlay-2 "$client" 10.1.0.12
    configuration vip-1 "$client" 10.1.0.2
    configuration vip-2 "$client" 10.1.0.3
}
configure_ports() { # PREFIX ENGINE
    local node=192.0.2.1
    [[ $1 == n ]] || node=192.0.2.11
    configuration "port-$2-1" "$(netns client)" "$node" 8081 5211
    configuration "port-$2-2" "$(netns client)" "$node" 8082 5212
}

# Whether a configuration answers at all, and with the right thing: nginx, and the end of iperf3's port.
probe() { # CONFIGURATION
    local name=$1 answer deadline=$((SECONDS + 30))
    until answer=$(nsenter --net="${from[$name]}" -- curl -sS --noproxy '*' --max-time 5 \
        "http://${address[$name]}:${http_port[$name]}/" 2>&1) && [[ $answer == hello ]]; do
        ((SECONDS < deadline)) || {
            echo "$name does not answer: $answer"
            return 1
        }
        sleep 0.2
    done
    until nsenter --net="${from[$name]}" -- iperf3 -c "${address[$name]}" -p "${bulk_port[$name]}" -n 100K >/dev/null; do
        ((SECONDS < deadline)) || {
            echo "$name: iperf3 is not answered"
            return 1
        }
        sleep 0.2
    done
}

# balanced_by PREFIX ENGINE: whether the kernel, asked itself, has had the connections of the ingress in
# IPVS, or has nothing in IPVS. The kernel adds its counters up every two seconds.
balanced_by() {
    local place services connections deadline=$((SECONDS + 10))
    place=$(on "${1}1" --format json network inspect ingress | jq -r '.[0].netns')
    # The second is the sum of all processors: the first number, hexadecimal, of the third line.
    services=$(nsenter --net="$place" -- grep -cE '^(TCP|UDP|FWM)' /proc/net/ip_vs 2>/dev/null) || true
    until connections=$(nsenter --net="$place" -- awk 'NR == 3 { print $1 }' /proc/net/ip_vs_stats 2>/dev/null) &&
        ((16#${connections:-0} > 0)) || [[ $2 != ipvs ]] || ((SECONDS > deadline)); do
        sleep 0.5
    done
    echo "$2: ${services:-0} services in IPVS, 0x${connections:-0} connections"
    if [[ $2 == ipvs ]]; then
        ((${services:-0} == 4 && 16#${connections:-0} > 0))
    else
        ((${services:-0} == 0))
    fi
}

# measure CONFIGURATION METRIC: prints the figure. Mbit/s for bulk, else answers per second.
measure() {
    local name=$1 out close=()
    local place=(nsenter --net="${from[$name]}" --)
    case $2 in
        bulk)
            out=$("${place[@]}" iperf3 -c "${address[$name]}" -p "${bulk_port[$name]}" -t "$seconds" -f k 2>&1) || {
                echo "$name: $out" >&2
                return 1
            }
            awk '/receiver/ { for (i = 2; i <= NF; i++) if ($i == "Kbits/sec") value = $(i - 1) / 1000 }
                END { if (value <= 0) exit 1; print value }' <<<"$out"
            return
            ;;
        connections) close=(-H 'Connection: close') ;;
    esac
    out=$("${place[@]}" wrk -t 1 -c 16 -d "${seconds}s" "${close[@]}" \
        "http://${address[$name]}:${http_port[$name]}/" 2>&1) || true
    # Whatever was not answered makes the figure worthless.
    awk '/Requests\/sec:/ { value = $2 } /Non-2xx|Socket errors/ { bad = $0 }
        END { if (bad != "") print bad > "/dev/stderr"; if (value <= 0 || bad != "") exit 1; print value }' \
        <<<"$out" || {
        echo "$name, $2: $out" >&2
        return 1
    }
}

# One round over all configurations, begun at another one each time. What is compared is measured close
# together in time: one metric after the other.
path_round() { # ROUND
    local round=$1 count=${#path_configurations[@]} index metric name value
    for metric in bulk requests connections; do
        for ((index = 0; index < count; index++)); do
            name=${path_configurations[(index + round) % count]}
            value=$(measure "$name" "$metric") || return 1
            printf 'path\t%s\t%s\t%d\t%s\n' "$name" "$metric" "$round" "$value" >>"$samples"
        done
    done
}

build_paths() {
    build_switch
    unpack_server
    build_veth
    build_hand
    plug_in client 192.0.2.100
}
build_clusters() { # ENGINE...
    local engine prefix=n
    for engine; do
        build_cluster "$prefix" "$engine"
        prefix=m
    done
}
configure() { # ENGINE...
    local engine prefix=n
    configure_hand
    configure_tasks n
    for engine; do
        configure_ports "$prefix" "$engine"
        prefix=m
    done
}
probe_paths() { # ENGINE...
    local name engine prefix=n
    for name in "${path_configurations[@]}"; do
        probe "$name"
    done
    for engine; do
        balanced_by "$prefix" "$engine"
        prefix=m
    done
}
