//! A real Kubernetes cluster on one machine, and what the product does on it.
