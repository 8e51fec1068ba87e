//! A real Kubernetes cluster on one machine, and what the product does on it.
//!
//! A [`Cluster`] is the programs of Kubernetes itself, each part on a [`Machine`] of its own: namespaces of network, processes
//! and mounts, whose end is the end of everything that was started there. Between the nodes and a client outside stands a load
//! balancer as clouds have them ([`balancer`]). Nothing is shared with another cluster, nor with the network of the host.
//!
//! ```text
//!   client 198.51.100.2 ── .1 edge 10.240.0.1 ──┬── .10 control   etcd, API server, controllers, scheduler
//!                     load balancer,            ├── .11 node1     containerd, kubelet, kube-proxy, pods 10.244.1.0/24
//!                     203.0.113.10 and up       └── .12 node2     …                                  pods 10.244.2.0/24
//! ```

pub mod balancer;
mod cgroup;
mod cluster;
mod config;
mod dial;
pub mod fleet;
mod folder;
mod image;
mod machine;
mod node;
mod part;
mod plan;
pub mod pods;
mod programs;
pub mod promises;
mod report;
mod store;
mod talk;
mod tls;
mod wait;

pub use cluster::{Cluster, helm, kubectl};
pub use folder::{Folder, began, sweep};
pub use image::{Image, Layers, Product};
pub use machine::{Machine, Place, Plug};
pub use node::{Node, import};
pub use plan::{Plan, Timing, addresses};
pub use programs::{Programs, built, root};
pub use report::{on_cluster, tell};
pub use store::Store;
pub use talk::Talk;
pub use tls::{Authority, Signed};
pub use wait::eventually;
