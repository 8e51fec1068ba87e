//! The media loop in virtual time: an untouched `rtc` as client, a simulated network between.

mod again;
mod allocations;
mod candidates;
mod client;
mod closing;
mod echo;
mod ending;
mod frames;
mod hand;
mod hostile;
mod interruption;
mod network;
mod pictures;
mod proving;
mod quality;
mod reasons;
mod rebinding;
mod relayed;
mod sharing;
mod speaking;
mod world;
