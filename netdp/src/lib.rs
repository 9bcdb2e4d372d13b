//! The network data plane: links, overlays, gwbridge, ingress, load balancing, DNS.
