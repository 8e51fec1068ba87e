//! What a call over a WebSocket is made with.

use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Map, Value};
use streamfleet_audio::PcmFormat;
use streamfleet_session::{SessionId, UserId};
use thiserror::Error;

use crate::error::ClientError;
use crate::options::{Reconnect, Resume, ServiceUrl, Timeouts, Tls, offer_metadata, random_id};

/// FastRTC's default input rate of a handler.
const INPUT_RATE: u32 = 48_000;
/// FastRTC's default output rate of a handler.
const OUTPUT_RATE: u32 = 24_000;
/// What received audio waits when nothing is being played: two frames, because servers pace by timers of their own.
const DELAY: Duration = Duration::from_millis(40);

/// Samples per second that audio on a socket can have: 8 000 to 192 000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRate(u32);

/// A rate outside of what is handled.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0} Hz is not a sample rate; give 8000 to 192000")]
pub struct InvalidRate(u32);

impl SampleRate {
    /// Telephone speech.
    pub const TELEPHONE: Self = Self(8_000);

    /// A rate in Hz.
    ///
    /// # Errors
    /// [`InvalidRate`] below 8 000 and above 192 000.
    pub fn new(hz: u32) -> Result<Self, InvalidRate> {
        let known = (PcmFormat::MIN_RATE..=PcmFormat::MAX_RATE).contains(&hz);
        known.then_some(Self(hz)).ok_or(InvalidRate(hz))
    }

    /// The rate in Hz.
    #[must_use]
    pub const fn hz(self) -> u32 {
        self.0
    }
}

/// What a server has said of its handler's rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) input: Option<SampleRate>,
    pub(crate) output: Option<SampleRate>,
}

/// The rates of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) input: SampleRate,
    pub(crate) output: SampleRate,
}

/// Which way audio goes, as its handler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the handler.
    Input,
    /// From it.
    Output,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// What media frames hold, in both directions. Mono.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketCodec {
    /// G.711 mu-law, one byte a sample, at the handler's own rates: the only one that FastRTC knows.
    #[default]
    MuLaw,
    /// Signed 16-bit samples, little-endian, at the handler's own rates.
    Pcm16,
    /// One Opus packet of 20 ms a frame.
    Opus,
}

impl SocketCodec {
    /// Its name in `start`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MuLaw => "mulaw",
            Self::Pcm16 => "pcm16",
            Self::Opus => "opus",
        }
    }
}

/// How media frames travel, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Base64 in JSON text, as FastRTC has it.
    #[default]
    Json,
    /// Binary messages that are nothing but the payload.
    Binary,
}

/// Whether the server is asked for a token with which a broken socket can be replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reattach {
    /// Ask: the session outlives its socket for half a minute. FastRTC does not know the word and ignores it.
    #[default]
    Ask,
    /// Send exactly what FastRTC's clients send.
    Plain,
}

/// Everything that a WebSocket call is made with. [`SocketOptions::new`] fills in what most calls want.
#[derive(Clone)]
pub struct SocketOptions {
    /// The service; the socket is opened at `{url}/websocket/offer`.
    pub url: ServiceUrl,
    /// The session's id: random unless an earlier session is resumed.
    pub websocket_id: SessionId,
    /// Who calls: sent as `user_id` in the metadata.
    pub user_id: Option<UserId>,
    /// More metadata for the handler's context.
    pub metadata: Map<String, Value>,
    /// Headers of the upgrade, such as `authorization`.
    pub headers: HeaderMap,
    /// What media frames hold.
    pub codec: SocketCodec,
    /// How they travel.
    pub framing: Framing,
    /// The handler's input rate; `None` for what the server says, or FastRTC's 48 kHz where it says nothing. A server that
    /// is asked for a token says it; what is wrong at another is heard at the wrong pitch.
    pub input_rate: Option<SampleRate>,
    /// The handler's output rate, likewise; FastRTC's is 24 kHz.
    pub output_rate: Option<SampleRate>,
    /// How long received audio waits before it is played when nothing is being played.
    pub delay: Duration,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Whether to ask for a token.
    pub reattach: Reattach,
    /// The token of the session which this call continues.
    pub resume: Option<Resume>,
    /// What to do when the server asks for a new socket, or vanishes.
    pub reconnect: Reconnect,
    /// Whom to trust over `https`.
    pub tls: Tls,
}

impl SocketOptions {
    /// A mu-law call with a random id at FastRTC's default rates.
    #[must_use]
    pub fn new(url: ServiceUrl) -> Self {
        Self {
            url,
            websocket_id: random_id(),
            user_id: None,
            metadata: Map::new(),
            headers: HeaderMap::new(),
            codec: SocketCodec::default(),
            framing: Framing::default(),
            input_rate: None,
            output_rate: None,
            delay: DELAY,
            timeouts: Timeouts::default(),
            reattach: Reattach::default(),
            resume: None,
            reconnect: Reconnect::default(),
            tls: Tls::default(),
        }
    }

    /// The rates of a session of which the server has `said` this much. Where audio has rates of its own, they must be the
    /// server's.
    ///
    /// # Errors
    /// [`ClientError::Rate`] with the first that is not.
    pub(crate) fn rates(&self, said: Said) -> Result<Rates, ClientError> {
        let rate = |direction, ours: Option<SampleRate>, server: Option<SampleRate>, usual| match (ours, server) {
            (Some(ours), Some(server)) if ours != server && self.codec != SocketCodec::Opus => {
                Err(ClientError::Rate { direction, ours: ours.hz(), server: server.hz() })
            }
            _ => Ok(ours.or(server).unwrap_or(SampleRate(usual))),
        };
        Ok(Rates {
            input: rate(Direction::Input, self.input_rate, said.input, INPUT_RATE)?,
            output: rate(Direction::Output, self.output_rate, said.output, OUTPUT_RATE)?,
        })
    }

    /// The `metadata` object of `start`, absent when there is nothing to say.
    pub(crate) fn start_metadata(&self) -> Option<Map<String, Value>> {
        offer_metadata(&self.metadata, self.user_id.as_ref())
    }
}

impl fmt::Debug for SocketOptions {
    /// Without headers, metadata and tokens: these may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketOptions")
            .field("url", &self.url)
            .field("websocket_id", &self.websocket_id)
            .field("codec", &self.codec)
            .field("framing", &self.framing)
            .field("input_rate", &self.input_rate)
            .field("output_rate", &self.output_rate)
            .field("timeouts", &self.timeouts)
            .field("reconnect", &self.reconnect)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (hz, ok) in [(7_999, false), (8_000, true), (44_100, true), (192_000, true), (192_001, false), (0, false)] {
            assert_eq!(SampleRate::new(hz).is_ok(), ok, "{hz}");
        }
    }

    #[test]
    fn the_rates_are_the_servers_unless_the_user_has_said_others() {
        let hz = |hz: u32| (hz > 0).then_some(SampleRate(hz));
        let check = |codec, ours: (u32, u32), said: (u32, u32), expected: Result<(u32, u32), &str>| {
            let (input_rate, output_rate) = (hz(ours.0), hz(ours.1));
            let options =
                SocketOptions { codec, input_rate, output_rate, ..SocketOptions::new("http://h".parse().unwrap()) };
            let rates = options.rates(Said { input: hz(said.0), output: hz(said.1) });
            let found = rates.map(|rates| (rates.input.hz(), rates.output.hz())).map_err(|error| error.to_string());
            assert_eq!(found.as_ref().map(|rates| *rates).map_err(String::as_str), expected, "{ours:?} {said:?}");
        };
        let linear = SocketCodec::MuLaw;
        check(linear, (0, 0), (0, 0), Ok((48_000, 24_000)));
        check(linear, (0, 0), (16_000, 8_000), Ok((16_000, 8_000)));
        check(linear, (16_000, 8_000), (0, 0), Ok((16_000, 8_000)));
        check(linear, (16_000, 8_000), (16_000, 8_000), Ok((16_000, 8_000)));
        let input = "the service's input rate is 24000 Hz, and this call was made for 48000 Hz: it would be heard at the \
                     wrong pitch; set the input rate to 24000, or leave it out";
        check(linear, (48_000, 0), (24_000, 24_000), Err(input));
        check(SocketCodec::Pcm16, (48_000, 48_000), (24_000, 24_000), Err(input));
        let output = "the service's output rate is 24000 Hz, and this call was made for 16000 Hz: it would be heard at the \
                      wrong pitch; set the output rate to 24000, or leave it out";
        check(linear, (24_000, 16_000), (24_000, 24_000), Err(output));
        // Opus is decoded to any rate.
        check(SocketCodec::Opus, (48_000, 16_000), (24_000, 24_000), Ok((48_000, 16_000)));
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let mut options = SocketOptions::new("http://h".parse().unwrap());
        options.resume = Resume::new("hush");
        options.headers.insert("authorization", "Bearer hush".parse().unwrap());
        options.metadata.insert("token".into(), "hush".into());
        assert!(!format!("{options:?}").contains("hush"));
    }
}
