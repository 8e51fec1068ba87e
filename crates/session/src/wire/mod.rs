//! What goes over the wire between clients and a server: the bodies of requests and messages of the data channel. Golden
//! tests hold every byte.
//!
//! `to_json` gives the exact text to send. Types that leave as JSON are `Serialize` too, with the same bytes.

mod answer;
mod body_error;
pub mod client;
mod failure;
mod fields;
mod message;
mod offer;

pub use answer::{Answer, Success};
pub use body_error::BodyError;
pub use client::{InputBody, OutputsQuery, TriggerBody};
pub use failure::Failure;
pub use message::{ServerMessage, UnknownMessage};
pub use offer::{Offer, OfferBody};

/// JSON of a type of ours.
fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("our wire types have string keys and no failing serializer")
}

#[cfg(test)]
mod tests;
