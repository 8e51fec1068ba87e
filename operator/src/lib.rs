//! The operator: reconciles StreamServices into workers and autoscales them.
