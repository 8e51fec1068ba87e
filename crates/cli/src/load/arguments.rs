//! The command line of `streamfleet load`, and what it means.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use streamfleet_client::{HeaderMap, HeaderName, HeaderValue, SampleRate, ServiceUrl};
use streamfleet_rtp::Profile;

use super::signal::{Service, Trust};

/// Most sessions of one process: each has a socket, and a machine has 28 000 ports for them by default.
const MAX_SESSIONS: u64 = 20_000;

/// Make many calls to a service at once, and measure how it bears them
///
/// Every session is a real one: a WebRTC connection that speaks Opus, or a WebSocket that speaks mu-law, encoded once for
/// all, in packets of 20 ms. Latency is
/// measured on each packet where a service sends packets back as they came (`echo`), and by tone bursts of some sessions
/// where it decodes them and encodes again (`echo-frames`). One thread carries the media: with a second core for the
/// server, the report's `client` part shows whether the limit found is the server's or this program's.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Exit status:
  0   all sessions are well
  1   none is
  2   some are not
  64  the command line cannot be understood

Examples:
  streamfleet load http://127.0.0.1:8080/echo -n 300
  streamfleet load http://127.0.0.1:8080/echo-frames -n 100 --seconds 30 --json report.json
  streamfleet load http://127.0.0.1:8080/echo --transport websocket -n 100
  taskset -c 1 streamfleet load http://127.0.0.1:8080/echo -n 1000 --json -")]
pub(crate) struct Args {
    /// The service, such as http://127.0.0.1:8080/echo
    url: ServiceUrl,
    /// What carries the sessions
    #[arg(long, value_name = "NAME", default_value = "webrtc")]
    transport: TransportName,
    /// The handler's input rate (websocket): 8000 to 192000, a multiple of 50
    #[arg(long, value_name = "HZ", default_value = "48000", value_parser = rate)]
    input_rate: SampleRate,
    /// The handler's output rate (websocket), likewise
    #[arg(long, value_name = "HZ", default_value = "24000", value_parser = rate)]
    output_rate: SampleRate,
    /// Milliseconds in a message (websocket)
    #[arg(long, value_name = "MS", default_value = "20")]
    frame_ms: FrameLength,
    /// How many sessions
    #[arg(short = 'n', long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=MAX_SESSIONS))]
    sessions: u64,
    /// New sessions per second
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    ramp: u32,
    /// How long to measure, once all sessions are there
    #[arg(long, value_name = "S", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Sessions that speak tone bursts instead of speech, and decode what comes back
    #[arg(long, value_name = "N", default_value = "16")]
    probes: u64,
    /// The SRTP profile to offer
    #[arg(long, value_name = "PROFILE", default_value = "any")]
    srtp: Srtp,
    /// Who calls: each session gets this with its number appended
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
    /// A header of every request: 'Name: value'
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Accept any certificate, such as the self-signed one of `streamfleet dev --tls`
    #[arg(long)]
    insecure: bool,
    /// Write the report as JSON to this file, or to standard output if it is -
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Tell of every session in that report
    #[arg(long, requires = "json")]
    each: bool,
}

/// What carries sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TransportName {
    /// Opus by RTP
    Webrtc,
    /// Mu-law frames at {url}/websocket/offer
    Websocket,
}

/// How much audio a message on a WebSocket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FrameLength {
    /// What a telephone sends
    #[value(name = "20")]
    Ms20,
    /// Half as many messages
    #[value(name = "40")]
    Ms40,
}

impl FrameLength {
    /// In pieces of 20 ms, in which everything is counted.
    pub(super) fn pieces(self) -> u32 {
        match self {
            Self::Ms20 => 1,
            Self::Ms40 => 2,
        }
    }
}

/// SRTP profiles to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Srtp {
    /// AES-GCM before AES-CM
    Any,
    /// AEAD_AES_128_GCM only
    Gcm,
    /// AES128_CM_HMAC_SHA1_80 only, which is what browsers choose
    Cm,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) service: Service,
    pub(super) carrier: Carrier,
    pub(super) sessions: usize,
    /// From one session's beginning to the next one's.
    pub(super) spacing: Duration,
    pub(super) measure: Duration,
    pub(super) probes: usize,
    pub(super) profiles: Vec<Profile>,
    pub(super) output: Output,
    /// Every session is told of.
    pub(super) each: bool,
}

/// What carries the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    WebRtc,
    Socket(Rates),
}

/// The handler's rates, which nothing in the protocol tells, and how the audio is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) input: SampleRate,
    pub(super) output: SampleRate,
    pub(super) frame: FrameLength,
}

impl Plan {
    /// Whether session `id` is a probe; they are spread over the ramp.
    pub(super) fn is_probe(&self, id: usize) -> bool {
        id * self.probes / self.sessions != (id + 1) * self.probes / self.sessions
    }
}

/// Where the report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// To a file for programs, and for people.
    Both(PathBuf),
}

impl Args {
    /// # Errors
    /// The first argument that does not parse, by its name.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        Ok(Plan {
            service: Service {
                url: self.url.clone(),
                headers: headers(&self.headers)?,
                user_id: self.user_id.clone(),
                trust: if self.insecure { Trust::Any } else { Trust::System },
            },
            carrier: match self.transport {
                TransportName::Webrtc => Carrier::WebRtc,
                TransportName::Websocket => {
                    Carrier::Socket(Rates { input: self.input_rate, output: self.output_rate, frame: self.frame_ms })
                }
            },
            sessions: self.sessions as usize,
            spacing: Duration::from_secs(1) / self.ramp,
            measure: Duration::from_secs(self.seconds),
            probes: self.probes.min(self.sessions) as usize,
            profiles: match self.srtp {
                Srtp::Any => vec![Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80],
                Srtp::Gcm => vec![Profile::AeadAes128Gcm],
                Srtp::Cm => vec![Profile::Aes128CmSha1_80],
            },
            each: self.each,
            output: match &self.json {
                None => Output::Text,
                Some(path) if path.as_os_str() == "-" => Output::Json,
                Some(path) => Output::Both(path.clone()),
            },
        })
    }
}

/// Frames of 20 ms are of one size only at such rates.
fn rate(text: &str) -> Result<SampleRate, String> {
    let hz: u32 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if !hz.is_multiple_of(50) {
        return Err(format!("{hz} Hz is no multiple of 50"));
    }
    SampleRate::new(hz).map_err(|error| error.to_string())
}

fn headers(lines: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').with_context(|| format!("--header {line}: write 'Name: value'"))?;
        let name: HeaderName = name.trim().parse().with_context(|| format!("--header {line}: not a header's name"))?;
        let value =
            HeaderValue::from_str(value.trim()).with_context(|| format!("--header {line}: not a header's value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn plan(words: &str) -> anyhow::Result<Plan> {
        let words = std::iter::once("load").chain(words.split(' '));
        Command::try_parse_from(words)?.args.plan()
    }

    #[test]
    fn plans() {
        let plain = plan("http://h/echo").unwrap();
        assert_eq!((plain.sessions, plain.probes, plain.spacing), (10, 10, Duration::from_millis(20)));
        assert_eq!((plain.measure, &plain.output), (Duration::from_secs(10), &Output::Text));
        assert_eq!((plain.profiles.len(), plain.service.trust), (2, Trust::System));
        let full =
            plan("http://h/echo -n 300 --ramp 10 --seconds 5 --srtp cm --insecure --json - --header a:b").unwrap();
        assert_eq!((full.sessions, full.probes, full.spacing), (300, 16, Duration::from_millis(100)));
        assert_eq!((full.profiles, full.output), (vec![Profile::Aes128CmSha1_80], Output::Json));
        assert_eq!(full.service.headers.get("a").unwrap(), "b");
        let socket = plan("http://h/echo --transport websocket --input-rate 16000").unwrap();
        let Carrier::Socket(rates) = socket.carrier else { panic!("{socket:?}") };
        assert_eq!((rates.input.hz(), rates.output.hz(), rates.frame), (16_000, 24_000, FrameLength::Ms20));
        let socket = plan("http://h/echo --transport websocket --frame-ms 40").unwrap();
        let Carrier::Socket(rates) = socket.carrier else { panic!("{socket:?}") };
        assert_eq!(rates.frame.pieces(), 2);
        assert_eq!((plain.carrier, (0..10).filter(|id| plain.is_probe(*id)).count()), (Carrier::WebRtc, 10));
        assert_eq!(plan("http://h/echo --json x.json").unwrap().output, Output::Both("x.json".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for (words, part) in [
            ("ftp://h/echo", "http://"),
            ("http://h/echo -n 0", "--sessions"),
            ("http://h/echo -n 20001", "--sessions"),
            ("http://h/echo --ramp 0", "--ramp"),
            ("http://h/echo --srtp null", "--srtp"),
            ("http://h/echo --transport pigeon", "--transport"),
            ("http://h/echo --frame-ms 30", "--frame-ms"),
            ("http://h/echo --input-rate 8001", "no multiple of 50"),
            ("http://h/echo --output-rate 7000", "7000 Hz is not a sample rate"),
            ("http://h/echo --header nocolon", "--header"),
        ] {
            let error = format!("{:#}", plan(words).unwrap_err());
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
