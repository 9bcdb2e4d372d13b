# shellcheck shell=bash
# The options of scripts/vm. To be sourced after common.sh.

vm_help() {
    cat <<'HELP'
Usage: scripts/vm [options] -- COMMAND [ARGUMENT...]
       scripts/vm [options] --shell
       scripts/vm [options] --prepare

Runs a command as root in a virtual machine with the distribution's kernel, on this machine's own
files: the root is shown inside at the same paths, changes to it are lost at the end. Standard
output and error are the command's, so is the exit status. See docs/vm.md.

  --cwd DIR          run the command there (default: the current folder)
  --env NAME[=VALUE] set a variable, or pass ours; nothing else of our environment gets in
  --timeout SECONDS  kill the machine after that time, status 124 (default: 1800)
  --smp N            processors (default: 2)
  --memory MB        memory (default: 4096)
  --disk SIZE        put /var/lib on a new ext4 disk of this size (as 8G) instead of memory
  --share DIR        show DIR writable: what the command writes there stays (repeatable)
  --expose PATH      show PATH although it is below /tmp, /run or /var/lib, which are empty inside
                     (repeatable; the project, CARGO_TARGET_DIR, the current folder and the
                     command itself are shown anyway)
  --copy PATH        show PATH from a copy in memory, made before the command starts (repeatable)
  --modules LIST     kernel modules to load first, separated by commas
  --kernel VERSION   another kernel release, as 6.1.0-37-amd64 (default: the distribution's)
  --append WORDS     more words on the kernel's command line
  --console FILE     keep the kernel's messages in FILE
  --kvm              use /dev/kvm (default: software emulation)
  --icount           one processor whose clock counts instructions, 2 ns each
  --cache DIR        where kernels are kept (default: ~/.cache/fairlead/vm)
  --shell            run the command (default: bash) on this terminal
  --prepare          only download and build; also looks for a newer default kernel

Status: the command's; 123 a processor was stuck; 124 time-out; 125 the machine failed or its kernel
panicked (the end of its messages is shown); 2 wrong usage.
HELP
}

# vm_parse ARGUMENT...: sets the opt_ variables and the array `command`.
# shellcheck disable=SC2034 # they are read by scripts/vm
vm_parse() {
    opt_cwd=$PWD opt_timeout=1800 opt_smp=2 opt_memory=4096 opt_disk='' opt_kernel='' opt_console='' opt_append=''
    opt_kvm=0 opt_icount=0 opt_shell=0 opt_prepare=0
    opt_cache=${XDG_CACHE_HOME:-$HOME/.cache}/fairlead/vm
    opt_env=() opt_share=() opt_expose=() opt_copy=() opt_modules=() command=()
    local smp_given=0 name modules
    while (($#)); do
        case $1 in
            --cwd | --env | --timeout | --smp | --memory | --disk | --share | --expose | --copy | \
                --modules | --kernel | --append | --console | --cache)
                (($# > 1)) || die_usage "$1 needs a value"
                ;;
        esac
        case $1 in
            --cwd) opt_cwd=$(vm_folder "$1" "$2") ;;
            --env)
                name=${2%%=*}
                [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || die_usage "--env: not a name: $name"
                if [[ $2 == *=* ]]; then
                    opt_env+=("$2")
                elif [[ -v $name ]]; then
                    opt_env+=("$name=${!name}")
                fi
                ;;
            --timeout) opt_timeout=$(vm_number "$1" "$2") ;;
            --smp) opt_smp=$(vm_number "$1" "$2") smp_given=1 ;;
            --memory) opt_memory=$(vm_number "$1" "$2") ;;
            --disk)
                [[ $2 =~ ^[1-9][0-9]*[MGT]$ ]] || die_usage "--disk: not a size as 512M or 8G: $2"
                opt_disk=$2
                ;;
            --share) opt_share+=("$(vm_folder "$1" "$2")") ;;
            --expose) opt_expose+=("$(vm_path "$1" "$2")") ;;
            --copy) opt_copy+=("$(vm_path "$1" "$2")") ;;
            --modules)
                IFS=, read -r -a modules <<<"$2"
                opt_modules+=("${modules[@]}")
                ;;
            --kernel)
                [[ $2 =~ ^[0-9][A-Za-z0-9.+~-]*$ ]] || die_usage "--kernel: not a release: $2"
                opt_kernel=$2
                ;;
            --append) opt_append=$2 ;;
            --console) opt_console=$2 ;;
            --cache) opt_cache=$(realpath -m -- "$2") ;;
            --kvm) opt_kvm=1 ;;
            --icount) opt_icount=1 ;;
            --shell) opt_shell=1 ;;
            --prepare) opt_prepare=1 ;;
            --help | -h)
                vm_help
                exit
                ;;
            --)
                shift
                command=("$@")
                break
                ;;
            *) die_usage "unknown option: $1" ;;
        esac
        case $1 in
            --kvm | --icount | --shell | --prepare) shift ;;
            *) shift 2 ;;
        esac
    done
    if ((opt_icount)); then
        ((!opt_kvm)) || die_usage "--icount needs software emulation: not with --kvm"
        ((!smp_given || opt_smp == 1)) || die_usage "--icount has one processor"
        opt_smp=1
    fi
    if ((opt_shell)) && ((!${#command[@]})); then
        # Not the operator's start-up files: they are slow on an emulated processor.
        command=(bash --norc)
        opt_env+=('PS1=\h:\w\$ ')
    fi
    ((opt_prepare || ${#command[@]})) || die_usage "no command given"
    if ((opt_shell)) && [[ ! -t 0 ]]; then
        die_usage "--shell needs a terminal"
    fi
}

vm_number() { # OPTION VALUE
    [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || die_usage "$1: not a positive number: $2"
    printf '%s' "$2"
}

vm_path() { # OPTION PATH
    [[ -e $2 ]] || die_usage "$1: no such file or folder: $2"
    realpath -s -- "$2"
}

vm_folder() { # OPTION PATH
    [[ -d $2 ]] || die_usage "$1: no such folder: $2"
    realpath -s -- "$2"
}
