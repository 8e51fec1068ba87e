//! The media loop in virtual time: an untouched `rtc` as client, a simulated network between.

mod client;
mod echo;
mod ending;
mod frames;
mod hostile;
mod network;
mod rebinding;
mod world;
