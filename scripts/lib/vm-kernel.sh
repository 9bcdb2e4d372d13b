# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # shared with common.sh and scripts/vm
#
# The kernel and the initramfs that scripts/vm boots. To be sourced after common.sh.
#
# The cache holds one folder per kernel release:
#   <cache>/<release>/vmlinux            what qemu boots
#   <cache>/<release>/lib/modules/<release>
#   <cache>/<release>/initramfs-<hash>   one per version of the init and of busybox
#   <cache>/default                      the release that the distribution's kernel package stood for

# What /init needs until the host's root is there; all else is loaded from there.
readonly vm_boot_modules=(virtio_pci 9pnet_virtio 9p overlay virtio_rng)

# vm_default_release: the release that the distribution's kernel metapackage depends on.
vm_default_release() {
    local meta release
    for meta in linux-image-amd64 linux-image-generic; do
        release=$(apt-cache depends --important "$meta" 2>/dev/null |
            sed -n 's/^ *|\{0,1\}Depends: linux-image-\([0-9].*\)$/\1/p' | head -n 1)
        if [[ $release ]]; then
            printf '%s\n' "$release"
            return
        fi
    done
    die "apt knows no kernel package (linux-image-amd64, linux-image-generic): run apt-get update," \
        "or choose one by --kernel"
}

# vm_kernel CACHE RELEASE REFRESH: fills the cache and sets vm_release, vm_dir and vm_initramfs.
# RELEASE may be empty (the distribution's default), REFRESH is 1 to ask apt for it again.
vm_kernel() {
    local cache=$1 release=$2 refresh=$3 lock
    mkdir -p -- "$cache"
    # Others may be filling the same cache: one at a time, and complete before it is visible.
    exec {lock}>"$cache/lock"
    flock "$lock"
    if [[ ! $release ]]; then
        if ((refresh)) || [[ ! -s $cache/default ]]; then
            release=$(vm_default_release)
            printf '%s\n' "$release" >"$cache/default.new"
            mv -- "$cache/default.new" "$cache/default"
        fi
        release=$(<"$cache/default")
    fi
    vm_release=$release
    vm_dir=$cache/$release
    [[ -d $vm_dir ]] || vm_unpack_kernel "$vm_dir" "$release"

    local recipe
    recipe=$({
        cat -- "$scripts_dir/lib/vm-init.sh" "$(command -v busybox)"
        printf '%s\n' "${vm_boot_modules[@]}"
    } | sha256sum)
    vm_initramfs=$vm_dir/initramfs-${recipe:0:16}
    [[ -s $vm_initramfs ]] || vm_build_initramfs "$vm_initramfs"
    exec {lock}>&-
}

# vm_unpack_kernel DIR RELEASE: downloads the kernel's packages and unpacks what a boot needs.
vm_unpack_kernel() {
    local dir=$1 release=$2 work deb module_package modules
    log "downloading the kernel $release"
    work=$(mktemp -d -- "$dir.XXXXXX")
    vm_partial=$work # removed on exit if we do not get to the end
    chmod 755 "$work"
    mkdir "$work/deb" "$work/tree"
    download_packages "$work/deb" "linux-image-$release"
    # Some distributions keep the modules in packages of their own.
    for module_package in "linux-modules-$release" "linux-modules-extra-$release"; do
        if apt-cache show "$module_package" >/dev/null 2>&1; then
            download_packages "$work/deb" "$module_package"
        fi
    done
    for deb in "$work"/deb/*.deb; do
        dpkg-deb -x "$deb" "$work/tree"
    done
    modules=$work/tree/lib/modules/$release
    [[ -d $modules ]] || modules=$work/tree/usr/lib/modules/$release
    [[ -d $modules ]] || die "the packages of $release hold no modules"
    mkdir -p "$work/lib/modules"
    mv -- "$modules" "$work/lib/modules/"
    depmod -b "$work" "$release"
    vm_extract_kernel "$work/tree/boot/vmlinuz-$release" "$work/vmlinux"
    rm -rf -- "$work/deb" "$work/tree"
    mv -T -- "$work" "$dir"
    vm_partial=
}

# vm_extract_kernel VMLINUZ OUT: the ELF image inside a bzImage. qemu boots it directly (PVH),
# which spares an emulated CPU the decompression: 3 seconds.
vm_extract_kernel() {
    local image=$1 out=$2 sectors offset length unpack magic trailer=4
    [[ -r $image ]] || die "no kernel image in the package: ${image##*/}"
    # Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, payload_offset and _length at 0x248.
    read -r sectors < <(od -An -tu1 -j $((0x1f1)) -N 1 "$image")
    read -r offset length < <(od -An -tu4 -j $((0x248)) -N 8 "$image")
    offset=$(((sectors + 1) * 512 + offset))
    read -r magic < <(od -An -tx1 -j "$offset" -N 4 "$image")
    case $magic in
        'fd 37 7a 58') unpack=(xz -dc) ;;
        '28 b5 2f fd') unpack=(zstd -dcq) ;;
        '1f 8b '*) unpack=(gzip -dc) trailer=0 ;; # the size at the end is gzip's own
        '02 21 4c 18') unpack=(lz4 -dc) ;;
        *) unpack=() ;;
    esac
    if ((${#unpack[@]})) && command -v "${unpack[0]}" >/dev/null &&
        dd if="$image" bs=1M iflag=skip_bytes,count_bytes skip="$offset" \
            count=$((length - trailer)) status=none | "${unpack[@]}" >"$out" &&
        [[ $(od -An -tx1 -N 4 -- "$out") == ' 7f 45 4c 46' ]]; then
        return
    fi
    # The packed image boots as well, only slower.
    cp -- "$image" "$out"
}

# vm_build_initramfs OUT: busybox, /init and the modules for it, numbered in loading order.
vm_build_initramfs() {
    local out=$1 work path number=100
    work=$(mktemp -d -- "$out.XXXXXX")
    vm_partial=$work
    mkdir -p "$work/root/bin" "$work/root/modules"
    cp -- "$(command -v busybox)" "$work/root/bin/busybox"
    install -m 755 -- "$scripts_dir/lib/vm-init.sh" "$work/root/init"
    # busybox loads plain files only, so packed modules are unpacked here.
    while read -r path; do
        number=$((number + 1))
        case $path in
            *.ko) cat -- "$path" ;;
            *.ko.xz) xz -dc -- "$path" ;;
            *.ko.zst) zstd -dcq -- "$path" ;;
            *.ko.gz) gzip -dc -- "$path" ;;
            *) die "unknown kind of kernel module: $path" ;;
        esac >"$work/root/modules/$number.ko"
    done < <(vm_module_files)
    ((number > 100)) || log "the kernel $vm_release has all modules for the boot built in"
    # Not compressed: qemu loads it faster than an emulated CPU unpacks it.
    (cd "$work/root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work/cpio"
    mv -- "$work/cpio" "$out"
    rm -rf -- "$work"
    vm_partial=
}

# The files of the boot modules and of what they need, in loading order, each once.
vm_module_files() {
    local module
    for module in "${vm_boot_modules[@]}"; do
        modprobe -d "$vm_dir" -S "$vm_release" --show-depends "$module" ||
            die "the kernel $vm_release has no module $module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'
}
