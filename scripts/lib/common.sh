# shellcheck shell=bash
# What every script here starts with: strict mode, paths, messages. To be sourced.
set -euo pipefail

# The folder of the scripts, and of the project, without symlinks.
scripts_dir=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
project_dir=$(dirname -- "$scripts_dir")
# shellcheck disable=SC2034 # for the scripts that source this file
readonly scripts_dir project_dir

# Progress and errors go to standard error: standard output belongs to results.
log() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    log "$*"
    exit 1
}
# A mistake in the arguments: status 2, as usual for commands.
die_usage() {
    log "$* (see --help)"
    exit 2
}

need_root() {
    ((EUID == 0)) || die "must run as root"
}

# need_tool COMMAND PACKAGE: dies with the package to install if COMMAND is not there.
need_tool() {
    command -v "$1" >/dev/null || die "$1 is missing: apt-get install $2 (or run scripts/setup)"
}

# quote WORD...: the words, quoted for any POSIX shell, unlike printf %q, which uses bash's $'...'.
quote() {
    local word out=
    for word; do
        out+=" '${word//\'/\'\\\'\'}'"
    done
    printf '%s' "${out# }"
}

# download_packages DIR PACKAGE...: puts the .deb files of the packages into DIR.
download_packages() {
    local dir=$1
    shift
    # apt drops to the user _apt for a download, which cannot write into our folder.
    local fetch=(apt-get -qq -o APT::Sandbox::User=root download "$@")
    (cd "$dir" && "${fetch[@]}") >/dev/null 2>&1 && return
    # The usual reason is a package list that is missing or too old.
    ((EUID != 0)) || apt-get -qq update >/dev/null 2>&1 || true
    (cd "$dir" && "${fetch[@]}" >/dev/null) || die "apt could not download $*"
}
