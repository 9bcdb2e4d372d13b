#!/usr/bin/env bash
# shellcheck disable=SC2154 # set by report.sh
#
# Runs suites of tests and tells of each in one line. Sourced by scripts/test; as a program it is what
# runs in the virtual machine: test-suites.sh RESULTS FILTER.

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    # shellcheck source-path=SCRIPTDIR source=common.sh
    source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
    # shellcheck source-path=SCRIPTDIR source=report.sh
    source "$scripts_dir/lib/report.sh"
fi

# How long one suite may take, in seconds; an emulated processor is slow.
suite_timeout=2700
# Tests that run side by side.
suite_threads=2

# suite RESULTS NAME COMMAND...: runs it. What it says of its tests is summed up in RESULTS/counts, one line
# of passed and failed; a command that says nothing of tests counts as one. Whose name is in RESULTS/done
# has been run.
suite() {
    local results=$1 name=$2 status=0 started=$EPOCHREALTIME passed failed skipped took text
    shift 2
    ! grep -qxF -- "$name" "$results/done" 2>/dev/null || return 0
    # On a terminal the line is there at once, and is then replaced.
    [[ ! -t 1 ]] || printf '  %s ...\r' "$name"
    set +e
    (
        set -e
        "$@"
    ) >"$results/log" 2>&1
    status=$?
    set -e
    took=$(seconds_since "$started")
    # test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
    read -r passed failed skipped < <(awk '
        /^test result: / { passed += $4; failed += $6; skipped += $8; told++ }
        END { print (told ? passed : "-"), failed + 0, skipped + 0 }' "$results/log")
    if [[ $passed == - ]]; then
        passed=$((status == 0)) failed=$((status != 0))
    elif ((status && !failed)); then
        # It ended before it could tell, or beside its tests.
        failed=1
    fi
    echo "$passed $failed" >>"$results/counts"
    echo "$name" >>"$results/done"
    if ((failed)); then
        text="$passed passed, $failed failed"
        printf '  %-36s %s%-24s%s %8s s\n' "$name" "$red" "$text" "$plain" "$took"
        sed 's/^/    | /' "$results/log"
        ((status != 124)) || note "time-out after $suite_timeout s"
    elif ((passed || skipped)); then # not where the filter leaves nothing
        text="$passed passed"
        ((!skipped)) || text+=", $skipped ignored"
        printf '  %-36s %-24s %s%8s s%s\n' "$name" "$text" "$dim" "$took" "$plain"
    fi
}

# run_suite FOLDER PROGRAM [FILTER]...: as cargo would; without a filter all tests.
run_suite() {
    cd "$1"
    # The tools of this distribution, which scripts/setup has looked for, and no others.
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_MANIFEST_DIR=$1 \
        timeout --kill-after=10 "$suite_timeout" "$2" --test-threads "$suite_threads" "${@:3}" </dev/null
}

# run_suites RESULTS FILTER: those in RESULTS/suites, each a line of kind, name, folder, program.
run_suites() {
    local name folder program
    while IFS=$'\t' read -r -u 3 _ name folder program; do
        suite "$1" "$name" run_suite "$folder" "$program" ${2:+"$2"}
    done 3<"$1/suites"
}

# run_tests FOLDER PROGRAM TEST...: these tests, which all must be there: who gives one another name is told.
run_tests() {
    local there
    there=$("$2" --list --exact "${@:3}" | grep -c ': test$' || true)
    if ((there != $# - 2)); then
        printf 'there are %d of these %d tests: %s\n' "$there" $(($# - 2)) "${*:3}"
        return 1
    fi
    run_suite "$1" "$2" --exact "${@:3}"
}

# What is run in the virtual machine of suites that take five to ten minutes each there. Most of what they test
# is the same on every kernel. Here is what its file systems and namespaces have a part in: layers that other
# tools have made, of everything that a file system can hold, unpacked and saved again; a process that dies
# while it writes them; and one test of each way to a registry (TLS, passwords, proxies), whose programs come
# with the distribution.
declare -A part=(
    ['runtime/image pull']='content::everything_that_umoci_unpacks_is_there
        content::what_buildah_builds_is_there
        killed::a_pull_that_is_killed_at_some_moment_is_gone_on_with
        login::a_password_comes_with_the_task_or_by_configuration
        proxies::https_goes_through_a_tunnel_of_a_proxy_that_knows_us
        tls::only_known_authorities_are_trusted'
    ['runtime/image save']='same::new_sparse_maps_and_attributes'
)

# run_parts RESULTS FILTER: of those in RESULTS/parts, which are lines as those of RESULTS/suites.
run_parts() {
    local name folder program test tests
    while IFS=$'\t' read -r -u 3 _ name folder program; do
        tests=()
        for test in ${part[$name]-}; do
            [[ $test != *"$2"* ]] || tests+=("$test")
        done
        ((${#tests[@]})) || continue
        suite "$1" "$name, a part" run_tests "$folder" "$program" "${tests[@]}"
    done 3<"$1/parts"
}

# What of the integration tests is run for the second engine too: what a client sees of a published
# port (each replica, its own address, one client port through many nodes), and draining.
second_engine=(
    mesh::each_replica_through_each_node
    mesh::the_same_client_port_through_three_nodes_at_once
    mesh::the_engine_is_seen_by_its_own_tool
    survive::draining_loses_nothing
)

# run_second_engine RESULTS FILTER: where the kernel has IPVS, which is then what all suites have used,
# the data plane's own tests and some of the integration tests with nft. Without those for which it is the same which
# engine balances.
run_second_engine() {
    local name folder program test tests
    [[ -e /proc/net/ip_vs ]] || return 0
    while IFS=$'\t' read -r -u 3 _ name folder program; do
        case $name in
            'netdp mesh') tests=(${2:+"$2"} --skip limits:: --skip firewalls:: --skip recovery::) ;;
            'tests integration')
                tests=(--exact)
                for test in "${second_engine[@]}"; do
                    [[ $test != *"$2"* ]] || tests+=("$test")
                done
                ((${#tests[@]} > 1)) || continue
                ;;
            *) continue ;;
        esac
        FAIRLEAD_TEST_ENGINE=nft suite "$1" "$name, engine nft" \
            run_suite "$folder" "$program" "${tests[@]}"
    done 3<"$1/suites"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    # On the disk, because an overlay cannot hold the upper layer of another one; at a short path,
    # because an overlay of many layers has to fit them into one page of mount options.
    mkdir -p /var/lib/tests /t
    mount --bind /var/lib/tests /t
    export TMPDIR=/t
    run_suites "$1" "$2"
    run_parts "$1" "$2"
    run_second_engine "$1" "$2"
fi
