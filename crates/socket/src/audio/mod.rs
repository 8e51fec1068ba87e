//! A session's audio on a socket: payloads to frames for its handler, its handler's PCM to payloads in real time.
//!
//! WebSockets lose nothing and keep the order, so there is no jitter buffer here: what comes is decoded and handed on.
//! What goes is paced, because whatever the client has been sent cannot be taken back when it is interrupted.

mod block;
mod credit;
mod decoder;
mod encoder;
mod intake;
mod playout;

use std::time::{Duration, Instant};

use streamfleet_audio::AudioError;

pub use decoder::BadPayload;
pub use intake::{BURST, Intake};
pub use playout::{LEAD, MAX_QUEUED, MESSAGE, Playout, PushError};

use crate::codec::WireCodec;

/// Length of a frame, in both directions.
pub const FRAME: Duration = Duration::from_millis(20);

/// The rates of a handler in Hz, both mono: 8 to 192 kHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AudioRates {
    /// What it hears.
    pub input: u32,
    /// What it says: the rate on the wire. PCM of any other rate is converted.
    pub output: u32,
}

/// The audio of one session. It outlives the socket: a client that attaches again finds what waits for it.
#[derive(Debug)]
pub struct SocketAudio {
    /// From the client.
    pub input: Intake,
    /// To the client.
    pub output: Playout,
}

impl SocketAudio {
    /// The audio of a session that has no socket yet.
    ///
    /// # Errors
    /// A rate outside of 8 to 192 kHz.
    pub fn new(rates: AudioRates) -> Result<Self, AudioError> {
        Ok(Self { input: Intake::new(rates.input)?, output: Playout::new(rates.output)? })
    }

    /// The handler's rates.
    #[must_use]
    pub fn rates(&self) -> AudioRates {
        AudioRates { input: self.input.rate(), output: self.output.handler_rate() }
    }

    /// A socket is there and speaks `codec`. What the handler said before waits for it; what was on its way to an
    /// earlier socket is gone.
    ///
    /// # Errors
    /// libopus is out of memory.
    pub fn attach(&mut self, now: Instant, codec: WireCodec) -> Result<(), AudioError> {
        self.input.attach(codec)?;
        self.output.attach(now, codec)
    }
}
