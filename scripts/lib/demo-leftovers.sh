# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# What there is of a demo in the kernel. Everything is found by what it is (the namespace it lives
# in, its place), not by what the demo remembers, so a killed demo can be cleaned up as well. To be
# sourced after demo-nodes.sh and machine.sh.

demo_named_namespaces() {
    find /run/netns -mindepth 1 -maxdepth 1 -name 'fl-demo-*' -printf '%f\n' 2>/dev/null || true
}

# Every mount that the demo made, the files of its network namespaces among them.
demo_mounts() {
    awk -v run="$run_dir/" -v state="$state_dir/" '
        index($5, run) == 1 || index($5, state) == 1 { print $5 }' /proc/self/mountinfo
}

# The inodes of the demo's network namespaces, one per line.
demo_namespaces() {
    local path
    {
        demo_named_namespaces | sed 's|^|/run/netns/|'
        demo_mounts
    } | while read -r path; do
        # Of the mounts, only those that are namespaces.
        [[ $(stat -f -c %T -- "$path" 2>/dev/null) != nsfs ]] || stat -L -c %i -- "$path"
    done | sort -u
}

demo_cgroups() {
    find /sys/fs/cgroup -type d -path "*$cgroup_parent*" 2>/dev/null || true
}

# Processes in a namespace or a cgroup of the demo.
demo_processes() {
    {
        # A process may end while it is looked at.
        stat -L -c '%i %n' /proc/[0-9]*/ns/net 2>/dev/null |
            awk 'NR == FNR { ours[$1]; next } $1 in ours { print $2 }' <(demo_namespaces) - || true
        grep -ls ":$cgroup_parent-" /proc/[0-9]*/cgroup || true
    } | cut -d / -f 3 | sort -un
}

# What a daemon may have made in its node's own namespace.
node_network() { # NODE
    echo "links:"
    inside "$1" ip -o link show | awk -F ': ' '{ print $2 }'
    echo "rules:"
    inside "$1" nft --stateless list ruleset
    inside "$1" ip rule show
    inside "$1" ip -6 rule show
    echo "routes:"
    inside "$1" ip route show table all | grep -v ' proto kernel' || true
}

count() { wc -l | tr -d ' '; }

# One line of counts, in the order of leftovers_table.
leftovers() {
    printf '%s\t' "$(demo_namespaces | count)" "$(demo_mounts | count)" "$(demo_cgroups | count)" \
        "$(demo_processes | count)" "$(machine_links | count)" "$(machine_rules | count)"
}

# leftovers_table BEFORE RUNNING STOPPED AFTER
leftovers_table() {
    local was is stopped will index names=('network namespaces of the demo' 'mounts' 'cgroups'
        'processes' "links in the machine's own namespace" "rules in the machine's own namespace")
    IFS=$'\t' read -r -a was <<<"$1"
    IFS=$'\t' read -r -a is <<<"$2"
    IFS=$'\t' read -r -a stopped <<<"$3"
    IFS=$'\t' read -r -a will <<<"$4"
    {
        printf '\tWITHOUT DAEMONS\tRUNNING\tDAEMONS ENDED\tREMOVED\n'
        for index in "${!names[@]}"; do
            printf '%s\t%s\t%s\t%s\t%s\n' "${names[index]}" "${was[index]}" "${is[index]}" \
                "${stopped[index]}" "${will[index]}"
        done
    } | sed '1s/^/ /' | table
}
