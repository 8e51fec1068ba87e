//! `streamfleet call`: a call from the command line.

mod arguments;
mod latency;
mod report;
mod run;
mod sound;
mod source;

pub(crate) use arguments::Args;
pub(crate) use run::run;
