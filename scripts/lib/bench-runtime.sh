# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# What a container costs from nothing to nothing, by our runtime and by others, beside the system calls
# alone. The measuring is done by a program, runtime/container/examples/runtime_cost; here is what it
# needs. To be sourced after bench-places.sh.

runtime_samples=5 # of each configuration, in each round

# The others by the names that the table has for them.
runtimes=(crun runc)

# A root file system with nothing but busybox, and copies of all the programs: in the virtual machine
# those of the host's would be read over its network file system now and then.
build_runtime() {
    local root=$state_dir/runtime/root programs=$state_dir/runtime/bin name
    mkdir -p "$root"/{bin,dev,etc,proc,sys} "$programs"
    cp -L -- "$(command -v busybox)" "$root/bin/busybox"
    for name in true sleep sh; do
        ln -s busybox "$root/bin/$name"
    done
    cp -L -- "$bin/examples/runtime_cost" "$bin/fairlead-oci" "$bin/fairlead-shim" "$programs"
    for name in "${runtimes[@]}"; do
        cp -L -- "$(command -v "$name")" "$programs"
    done
}

# crun refuses a machine that has controllers in both versions of cgroups. All of the runtimes get the
# same machine then: without its version 2.
without_version_2() {
    if [[ $(cat /sys/fs/cgroup/unified/cgroup.controllers 2>/dev/null) ]]; then
        # shellcheck disable=SC2016 # for the other shell
        unshare --mount -- bash -c 'umount /sys/fs/cgroup/unified && exec "$@"' bash "$@"
    else
        "$@"
    fi
}

measure_runtimes() {
    local programs=$state_dir/runtime/bin name arguments=()
    for name in "${runtimes[@]}"; do
        arguments+=(--runtime "$name=$programs/$name")
    done
    without_version_2 "$programs/runtime_cost" --rootfs "$state_dir/runtime/root" \
        --work "$run_dir/runtime" --rounds "$rounds" --samples "$runtime_samples" \
        --shim "$programs/fairlead-shim" --runtime "oci=$programs/fairlead-oci" \
        "${arguments[@]}" >"$out/runtime.tsv"
}

describe_runtimes() {
    tell_runtime kernel "$(kernel)"
    tell_runtime processors "$(nproc)"
    tell_runtime clock "$(clock)"
    tell_runtime load "$load"
    tell_runtime rounds "$rounds"
    tell_runtime samples "$runtime_samples"
    tell_runtime cgroups "$(cgroup_versions)"
    tell_runtime crun "$(crun --version | awk 'NR == 1 { print $3 }')"
    tell_runtime runc "$(runc --version | awk 'NR == 1 { print $3 }')"
    tell_runtime conmon "$(conmon --version | awk 'NR == 1 { print $3 }')"
}

tell_runtime() { printf '%s\t%s\n' "$1" "$2" >>"$out/runtime-context.tsv"; }

cgroup_versions() {
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        echo 'version 2'
    else
        echo 'version 1'
    fi
}
