# shellcheck shell=bash disable=SC2154,SC2016 # set by the script that sources this file; jq's variables
#
# How long tasks take to start and to end, on a node of its own, beside what the kernel's part of it
# costs when done by hand. To be sourced after bench-files.sh.

task_node=s1

# Microseconds since the epoch.
now() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

sample() { # CONFIGURATION METRIC ROUND MICROSECONDS
    printf 'task\t%s\t%s\t%d\t%d.%03d\n' "$1" "$2" "$3" $(($4 / 1000)) $(($4 % 1000)) >>"$samples"
}

# task_assignment SERIES COUNT: the node with so many tasks on one network, beside one that is always
# there, so that the network itself is. A task ends at once when told to: what it does itself is not
# measured. The ids are other ones in each series, as an id names one task for ever.
task_assignment() {
    local series=$1 count=$2 number id
    cat <<YAML
version: 1
node: {id: s1, hostname: s1, socket: $(socket_of "$task_node")}
networks:
- id: app
  name: app
  subnets: [{cidr: 10.1.0.0/24, gateway: 10.1.0.1, vni: 4097}]
nodes:
- {id: s1, version: 1, vteps: [192.0.2.31], ingressAddresses: [10.0.0.2], steeringId: 1}
endpoints:
YAML
    for ((number = 0; number <= count; number++)); do
        id=$(task_id "$series" "$number")
        echo "- {id: $id-app, version: 1, networkId: app, nodeId: s1, taskId: $id, taskName: $id, addresses: [10.1.0.$((10 + number))]}"
    done
    echo 'tasks:'
    for ((number = 0; number <= count; number++)); do
        id=$(task_id "$series" "$number")
        echo "- {id: $id, name: $id, networks: [{networkId: app, addresses: [10.1.0.$((10 + number))/24]}]," \
            "container: {image: \"dir:$server_root\", command: [sleep], args: [infinity], stopSignal: SIGKILL}}"
    done
}

task_id() { # SERIES NUMBER
    if (($2)); then
        printf '%s-%d' "$1" "$2"
    else
        printf resident
    fi
}

# The files of a series, written before it is timed.
write_series() { # SERIES COUNT...
    local series=$1 count
    shift
    for count; do
        task_assignment "$series" "$count" >"$run_dir/$series-$count.yaml"
    done
}

build_task_node() {
    build_switch
    unpack_server
    plug_in "$task_node" 192.0.2.31
    add_place floor
    start_daemon "$task_node" "${engines[0]}"
    write_series first 0
    assign_tasks first 0 --wait-tasks
}

assign_tasks() { # SERIES COUNT [OPTION...]
    local file=$run_dir/$1-$2.yaml
    shift 2
    "$bin/fairlead" apply -f "$file" --timeout 120s "$@" >/dev/null 2>>"$run_dir/apply.log"
}

# running_since: lines of task and microseconds since the epoch, as the daemon tells when it was RUNNING.
running_since() {
    on "$task_node" --format json ps | jq -r '.[] | select(.state == "running" and .id != "resident")
        | [.id, (.since[0:19] + "Z" | fromdateiso8601), .since[20:26]] | @tsv' |
        awk -F '\t' '{ print $1, $2 $3 }'
}

# Where to look for what is left of a task; known once one runs: the folders of the tasks' cgroups, one in
# each hierarchy that is used, and the network's namespace.
find_traces() {
    overlay=$(on "$task_node" --format json network inspect app | jq -r '.[0].netns')
    mapfile -t cgroup_roots < <(find /sys/fs/cgroup -type d -path "*$cgroup_parent/$task_node/*resident" -printf '%h/\n')
    # A pipe that nobody writes to: waiting at it is waiting without a process.
    mkfifo "$run_dir/never"
}

# wait_links NETNS COUNT: until so many ends of veth pairs are there. The kernel removes them some time
# after their namespace.
wait_links() {
    local deadline=$((SECONDS + 60))
    while (($(nsenter --net="$1" -- ip -o link show type veth | wc -l) != $2)); do
        ((SECONDS < deadline)) || {
            echo "$1 does not get to $2 links" >&2
            return 1
        }
    done
}

# wait_gone SERIES COUNT FROM: until of its tasks after COUNT, up to FROM, runtime folder, cgroups and
# links are gone.
wait_gone() {
    local number id path deadline=$((SECONDS + 120))
    for ((number = $2 + 1; number <= $3; number++)); do
        id=$(task_id "$1" "$number")
        for path in "$run_dir/$task_node/tasks/$id" "${cgroup_roots[@]/%/$id}"; do
            while [[ -e $path ]]; do
                ((SECONDS < deadline)) || {
                    echo "still there: $path" >&2
                    return 1
                }
                # A builtin: a process would cost more than what is waited for.
                read -r -t 0.001 <>"$run_dir/never" || true
            done
        done
    done
    wait_links "$overlay" $(($2 + 1))
}

# by_hand ROUND: what is least for a task on a network: a namespace, a veth pair, and a process in
# namespaces of its own; and the process alone.
by_hand() {
    local round=$1 number begin end
    local own=(unshare --mount --pid --ipc --uts --cgroup --fork)
    for ((number = 1; number <= hand_count; number++)); do
        begin=$(now)
        ip netns add "fl-bench-f$number"
        ip -n "fl-bench-f$number" link add eth0 type veth peer name "f$number" netns fl-bench-floor
        nsenter --net="$(netns "f$number")" -- "${own[@]}" chroot "$server_root" /bin/true
        end=$(now)
        sample floor-network start "$round" $((end - begin))
    done
    for ((number = 1; number <= hand_count; number++)); do
        begin=$(now)
        ip netns delete "fl-bench-f$number"
        wait_links "$(netns floor)" $((hand_count - number)) || return 1
        end=$(now)
        sample floor-network stop "$round" $((end - begin))
    done
    for ((number = 1; number <= hand_count; number++)); do
        begin=$(now)
        "${own[@]}" --net chroot "$server_root" /bin/true
        end=$(now)
        sample floor-process start "$round" $((end - begin))
    done
}

in_a_row() { # ROUND
    local round=$1 series=row$1 number begin since counts=()
    for ((number = 0; number <= task_count; number++)); do
        counts+=("$number")
    done
    write_series "$series" "${counts[@]}"
    for ((number = 1; number <= task_count; number++)); do
        begin=$(now)
        assign_tasks "$series" "$number" --wait-tasks || return 1
        since=$(running_since | awk -v task="$series-$number" '$1 == task { print $2 }')
        [[ $since ]] || return 1
        sample row start "$round" $((since - begin))
    done
    for ((number = task_count - 1; number >= 0; number--)); do
        begin=$(now)
        assign_tasks "$series" "$number" || return 1
        wait_gone "$series" "$number" $((number + 1)) || return 1
        sample row stop "$round" $(($(now) - begin))
    done
}

# All of them by one assignment: the time of the last one, shared out.
at_once() { # ROUND
    local round=$1 series=once$1 begin last count
    write_series "$series" 0 "$task_count"
    begin=$(now)
    assign_tasks "$series" "$task_count" --wait-tasks || return 1
    read -r count last < <(running_since | awk '{ n++; if ($2 > last) last = $2 } END { print n, last }')
    ((count == task_count)) || return 1
    sample once start "$round" $(((last - begin) / task_count))
    begin=$(now)
    assign_tasks "$series" 0 || return 1
    wait_gone "$series" 0 "$task_count" || return 1
    sample once stop "$round" $((($(now) - begin) / task_count))
}

task_round() { # ROUND
    by_hand "$1" && in_a_row "$1" && at_once "$1"
}
