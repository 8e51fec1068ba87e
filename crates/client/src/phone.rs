//! A telephone company's side of a call, as Twilio's Media Streams document it: for tests of services that people phone.
//!
//! [`webhook`] asks the service what to do with an incoming call (TwiML), [`words`] are the frames on the media stream.
//! The call itself is a call over a WebSocket like any other ([`crate::socket`]).

pub(crate) mod options;
pub(crate) mod webhook;
pub(crate) mod words;
