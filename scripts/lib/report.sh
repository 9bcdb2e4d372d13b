# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# What a person sees of the demo and the tests: sections, steps, tables, checks. To be sourced after
# common.sh. Colours only on a terminal, or with CLICOLOR_FORCE=1; never with NO_COLOR.

bold='' dim='' red='' green='' plain=''
if [[ -z ${NO_COLOR:-} && (-t 1 || ${CLICOLOR_FORCE:-0} != 0) ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
fi

section() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '  %s\n' "$*"; }

# seconds_since EPOCHREALTIME: with one decimal.
seconds_since() {
    local from=${1/[.,]/} to=${EPOCHREALTIME/[.,]/}
    local tenths=$(((to - from + 50000) / 100000))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# step TEXT COMMAND...: shows what is going on, and how long it took. The command's output goes to
# $step_log. When it fails, that is shown, step_failed is called, and the script ends.
step() {
    local text=$1 started=$EPOCHREALTIME status=0
    shift
    printf '  %-60s ' "$text"
    # Not in a condition: bash would ignore every failure inside of a function.
    set +e
    (
        set -e
        "$@"
    ) >"$step_log" 2>&1
    status=$?
    set -e
    if ((status)); then
        printf '%sfailed%s (%s)\n' "$red" "$plain" "$(seconds_since "$started") s"
        sed 's/^/    | /' "$step_log"
        step_failed
        exit 1
    fi
    printf '%s%6s s%s\n' "$dim" "$(seconds_since "$started")" "$plain"
}

# What else to show when a step fails; a script that has logs of its own overrides it.
step_failed() { :; }

# table: lines of fields between tabs on standard input, the first one the headings. An empty field
# becomes a dash.
table() {
    awk -F '\t' -v dim="$dim" -v plain="$plain" '
        {
            for (i = 1; i <= NF; i++) {
                cell[NR, i] = $i == "" ? "-" : $i
                if (length(cell[NR, i]) > width[i]) width[i] = length(cell[NR, i])
            }
            fields[NR] = NF
        }
        END {
            for (row = 1; row <= NR; row++) {
                line = "  "
                for (i = 1; i < fields[row]; i++) line = line sprintf("%-" width[i] "s   ", cell[row, i])
                line = line cell[row, fields[row]]
                print row == 1 ? dim line plain : line
            }
        }'
}

checks_failed=0

# check TEXT COMMAND...: whether the command succeeds, told and counted. It always returns 0.
check() {
    local text=$1
    shift
    if "$@" >/dev/null 2>&1; then
        printf '  %sok%s      %s\n' "$green" "$plain" "$text"
    else
        printf '  %sFAILED%s  %s\n' "$red" "$plain" "$text"
        checks_failed=$((checks_failed + 1))
    fi
}
