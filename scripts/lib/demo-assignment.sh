# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# What the nodes shall do, as files for `fairlead apply`: those of examples/web, with this demo's
# paths, and later edited as an agent would change them. To be sourced after demo-nodes.sh.

assignment_of() { printf '%s/node-%s.yaml' "$run_dir" "${1#n}"; }

# write_assignments IMAGE
write_assignments() {
    local node
    for node in "${nodes[@]}"; do
        sed -e "s|^  socket: .*|  socket: $(socket_of "$node")|" \
            -e "s|docker-archive:.*|docker-archive:$1|" \
            "$project_dir/examples/web/node-${node#n}.yaml" >"$(assignment_of "$node")"
    done
}

# edit_assignments TASK ACTION: edits what is about a task in each file. ACTION is awk's, run for each
# `line`, where `of` tells whether it belongs to the task itself or to one of its endpoints.
edit_assignments() {
    local node file
    for node in "${nodes[@]}"; do
        file=$(assignment_of "$node")
        awk -v task="$1" '
            function flush(  i, of) {
                for (i = 1; i <= n; i++) if (lines[i] == "  taskId: " task) of = "endpoint"
                if (lines[1] == "- id: " task) of = "task"
                for (i = 1; i <= n; i++) edit(lines[i], of)
                n = 0
            }
            function edit(line, of) {
                '"$2"'
                print line
            }
            # An object begins with "- id:", and ends before the next line that is not indented.
            /^[^ ]/ { flush() }
            { lines[++n] = $0 }
            END { flush() }' "$file" >"$file.new"
        mv -- "$file.new" "$file"
    done
}

# Takes the task out of balancing; it goes on running. A changed record needs a higher version.
edit_drain() {
    edit_assignments "$1" 'if (of == "endpoint" && line ~ /^  version: /)
        line = "  version: 2\n  state: draining"'
}

edit_stop() {
    edit_assignments "$1" 'if (of == "task" && line ~ /^- id: /)
        line = line "\n  desiredState: shutdown"'
}

edit_remove() {
    edit_assignments "$1" 'if (of != "") return'
}

# The nodes know each other, and nothing shall be on them any more.
edit_remove_all() {
    local node file
    for node in "${nodes[@]}"; do
        file=$(assignment_of "$node")
        awk '/^[^ -]/ { keep = /^(version|node|nodes):/ } keep' "$file" >"$file.new"
        mv -- "$file.new" "$file"
    done
}

# apply [OPTION...]: all files at once, so that the nodes' acknowledgements are passed on.
apply() {
    local node files=()
    for node in "${nodes[@]}"; do
        files+=(-f "$(assignment_of "$node")")
    done
    "$bin/fairlead" apply "${files[@]}" --timeout "$patience" "$@"
}
