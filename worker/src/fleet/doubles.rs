//! What a worker says of itself where nothing turns on it.

use streamfleet_store::{Gate, Heartbeat, Order};

/// Nine places, of which nobody has any.
pub(crate) fn heartbeat(gate: Gate) -> Heartbeat {
    Heartbeat {
        capacity: 9,
        active: 0,
        reserved: 0,
        gate,
        heard: Order::default(),
        variant: None,
        http: "127.0.0.1:1".to_owned(),
        media: Vec::new(),
        version: "0".to_owned(),
    }
}
