//! Batched UDP sockets and STUN.
//!
//! Everything that touches the kernel by hand lives here, and so does all of the product's `unsafe` code. The parts that
//! decide something ([`stun`], [`demux`], [`Outbox`]) are pure: no socket, no clock.
//!
//! Linux only: the point of this crate is `recvmmsg`, `sendmmsg`, UDP segmentation offload and `ppoll`.

mod address;
mod control;
pub mod demux;
mod heap;
mod interfaces;
mod outbox;
mod poller;
mod prefetch;
mod process;
mod receiver;
mod send_plan;
mod sender;
mod slab;
mod socket;
mod socket_set;
pub mod stun;
mod thread;

pub use heap::heap_in_use;
pub use interfaces::interfaces;
pub use outbox::{MAX_DATAGRAM, Outbox, Source};
pub use poller::{Poller, Ready, Waker, wait_for};
pub use prefetch::{Words, prefer_large_pages, prefetch};
pub use process::{end_with_parent, interrupt, terminate};
pub use receiver::{Receiver, RecvBatch, Unusable};
pub use sender::{SendReport, Sender};
pub use socket::{Fragmentation, LocalAddresses, Offload, ReusePort, SocketOptions, UdpSocket};
pub use socket_set::SocketSet;
pub use thread::{raise_descriptor_limit, set_timer_slack, thread_cpu_time, work_in_batches};
