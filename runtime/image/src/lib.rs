//! Container images: archives, layers, snapshots.
