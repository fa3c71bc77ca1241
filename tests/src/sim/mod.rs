//! A simulated cluster.
