//! The socket contract of the Fairlead executor.
