# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# Pulling images by ours and by other people's programs. The measuring is done by
# bench/images_measure.py, in namespaces of its own. To be sourced after bench-places.sh.

measure_images() {
    local place=$state_dir/images arguments=()
    ((!quick)) || arguments+=(--quick)
    [[ ! $images_place ]] || arguments+=(--place "$images_place")
    mkdir -p "$place"
    # In a process tree of its own, whose registry ends with it however it ends.
    unshare --net --mount --pid --fork --kill-child --mount-proc -- \
        python3 -B "$scripts_dir/lib/bench/images_measure.py" --program "$bin/examples/image_pull" \
        --work "$place" --rounds "$rounds" "${arguments[@]}" >"$out/images.tsv"
}

describe_images() {
    tell_images kernel "$(kernel)"
    tell_images processors "$(nproc)"
    tell_images clock "$(clock)"
    tell_images load "$load"
    tell_images rounds "$rounds"
    tell_images place "$(if [[ $images_on ]]; then findmnt -no FSTYPE -T "$images_on"; else echo tmpfs; fi)"
    tell_images skopeo "$(skopeo --version | awk '{ print $3 }')"
    tell_images umoci "$(umoci --version | awk '{ print $3 }')"
    tell_images podman "$(podman --version | awk '{ print $3 }')"
}

tell_images() { printf '%s\t%s\n' "$1" "$2" >>"$out/images-context.tsv"; }
