//! Linux IPVS over generic netlink: services, destinations, time-outs.
