//! Container primitives by the OCI runtime specification.
