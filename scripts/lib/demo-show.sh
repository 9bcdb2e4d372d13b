# shellcheck shell=bash disable=SC2016,SC2154
# The $ in single quotes are jq's; other variables are set by the script that sources this file.
#
# What the daemons say, as tables. Everything is asked by the `fairlead` command. To be sourced after
# demo-nodes.sh.

# each_node KIND...: what `fairlead KIND... --format json` answers, one array of all nodes' objects,
# each with the `node` that was asked.
each_node() {
    local node
    for node in "${nodes[@]}"; do
        on "$node" --format json "$@" | jq -c --arg node "$node" \
            'if type == "array" then .[] else . end | {node: $node, of: .}'
    done | jq -s .
}

# rows FILTER: runs jq, one line of fields between tabs per array.
rows() { jq -r "$1 | map(tostring) | @tsv"; }

show_nodes() {
    {
        printf 'NODE\tADDRESS\tENGINE\tKERNEL\tCGROUPS\n'
        each_node node describe | rows '.[] | [.node, "192.0.2." + .node[1:], .of.engine,
            .of.kernel, .of.cgroups]'
    } | table
}

show_tasks() {
    {
        printf 'NODE\tTASK\tSTATE\tADDRESSES\tPID\n'
        each_node ps | rows '.[] | [.node, .of.name, .of.state,
            ([.of.spec.networks[] | .networkId + " " + (.addresses[0] | split("/")[0])] | join(", ")),
            .of.pid]'
    } | table
}

show_networks() {
    {
        printf 'NETWORK\tVNI\tSUBNET\tMTU\tON NODE\tTASKS HERE\tELSEWHERE\n'
        each_node network ls | rows 'sort_by(.of.name)[] | select(.of.active) | [.of.name,
            .of.spec.subnets[0].vni, .of.spec.subnets[0].cidr, .of.mtu, .node,
            .of.localEndpoints, .of.remoteEndpoints]'
    } | table
}

show_service() { # NAME
    local all
    all=$(each_node service inspect "$1")
    {
        printf 'SERVICE\tVIP\tPORT\tENGINE\tSCHEDULER\n'
        rows '.[0].of | [.name, .spec.virtualIps[0].address,
            (.spec.ports[0] | "\(.published) -> \(.target)/\(.protocol // "tcp")"), .engine, .scheduler]' <<<"$all"
    } | table
    echo
    {
        printf 'BACKEND\tON NODE\tNETWORK\tADDRESS\tSTATE\tUSED BY\n'
        rows '[.[] | .node as $by | .of.backends[] | . + {by: $by}]
            | group_by(.networkId, .endpointId)[] | [.[0].taskId, .[0].nodeId, .[0].networkId,
              .[0].addresses[0], .[0].state,
              ([.[] | select(.enabled) | .by] | join(" "))]' <<<"$all"
    } | table
}

# tasks_in_state TASK STATE COUNT: whether so many tasks, whose names match, are in a state, on all nodes.
tasks_in_state() {
    each_node ps | jq -e --arg name "$1" --arg state "$2" --argjson count "$3" \
        '[.[] | select((.of.name | test($name)) and .of.state == $state)] | length == $count'
}

pid_of() { # NODE TASK
    on "$1" --format json inspect task "$2" | jq -r '.[0].pid'
}

engine_in_use() {
    each_node node describe | jq -r '[.[].of.engine] | unique | join(", ")'
}
