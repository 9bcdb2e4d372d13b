# shellcheck shell=bash
#
# The machine's own network, which demo, tests and benchmarks must not change. To be sourced after
# common.sh.

machine_links() { ip -o link show | awk -F ': ' '{ print $2 }'; }
machine_rules() {
    nft --stateless list ruleset
    ip rule show
    ip -6 rule show
}

# Links, addresses, routes, rules and nftables; without what changes by itself.
machine_network() {
    echo "links:"
    machine_links
    echo "addresses:"
    ip -br address show | awk '{ $2 = ""; print }'
    echo "routes:"
    ip -4 route show table all
    ip -6 route show table all | sed 's/ expires [^ ]*//'
    echo "rules:"
    machine_rules
}

# network_unchanged BEFORE AFTER: writes what is now to AFTER; tells what differs from BEFORE.
network_unchanged() {
    machine_network >"$2"
    diff -u --label before --label after "$1" "$2"
}
