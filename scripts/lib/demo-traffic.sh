# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# Requests, and how they were answered. Each is a connection of its own, as only connections are
# balanced. To be sourced after demo-nodes.sh.

# fetch COUNT HOST PLACE...: asks so often, from the network namespace that the options name for
# nsenter. An answer gives two lines: who answered, at which address, to whom; then the status,
# or what went wrong.
fetch() {
    local count=$1 host=$2
    shift 2
    # The pattern at the end makes one curl ask so many times.
    nsenter "$@" -- curl -sS --noproxy '*' --max-time "$curl_timeout" -H 'Connection: close' \
        -w '%{http_code} %{errormsg}\n' "http://$host/text?[1-$count]" 2>/dev/null || true
}

# answers FILE...: lines of `replica client` for each good answer.
answers() {
    awk '/^web-/ { who = $1; client = $3 } /^200 / { print who, client }' "$@"
}

replicas=(web-1 web-2 web-3 web-4)

# traffic_heading, traffic_row LABEL COUNT FILE: a line for traffic that went to one address.
traffic_heading() {
    local IFS=$'\t'
    printf '%s\t%s\tFAILED\tCLIENT SEEN AS\n' "$1" "${replicas[*]^^}"
}
traffic_row() {
    local label=$1 count=$2 file=$3 replica good
    good=$(answers "$file" | count)
    printf '%s\t' "$label"
    for replica in "${replicas[@]}"; do
        printf '%s\t' "$(answers "$file" | grep -c "^$replica " || true)"
    done
    printf '%s\t%s\n' $((count - good)) "$(answers "$file" | cut -d ' ' -f 2 | sort -u | paste -sd ' ')"
}

# Whether every replica answered, every request was answered, and only that client was seen.
all_replicas() { # FILE
    [[ $(answers "$1" | cut -d ' ' -f 1 | sort -u | count) == "${#replicas[@]}" ]]
}
none_failed() { # COUNT FILE
    [[ $(answers "$2" | count) == "$1" ]]
}
client_seen() { # ADDRESS FILE
    [[ $(answers "$2" | cut -d ' ' -f 2 | sort -u) == "$1" ]]
}

# load FILE HOST PLACE...: asks on and on, until $run_dir/load exists no more. Not as fast as
# it could: the daemons share the processors.
load() {
    local file=$1
    shift
    while [[ -e $run_dir/load ]]; do
        fetch 10 "$@" >>"$file"
        sleep 0.05
    done
}

# load_row LABEL FILE: a line for a load, in which a line `mark` says when the replica was drained.
load_row() { # LABEL REPLICA FILE
    awk -v label="$1" -v replica="$2" -v OFS='\t' '
        $1 == "mark" { marked = 1 }
        /^web-/ { who = $1 }
        /^[0-9][0-9][0-9] / {
            total++
            if ($1 != 200) failed++
            else if (who == replica) { if (marked) after++; else before++ }
        }
        END { print label, total + 0, failed + 0, before + 0, after + 0 }' "$3"
}
