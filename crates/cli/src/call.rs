//! `streamfleet call`: a call from the command line.

mod arguments;
mod latency;
mod mouth;
mod report;
mod run;
mod script;
mod sound;
mod source;
mod turns;

pub(crate) use arguments::Args;
pub(crate) use run::run;
