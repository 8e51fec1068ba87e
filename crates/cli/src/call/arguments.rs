//! The command line of `streamfleet call`, and what it means.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use serde_json::{Map, Value};
use streamfleet_client::{
    AuthToken, Call, Client, ClientError, ClientOptions, Framing, Gathering, HeaderMap, HeaderName, HeaderValue,
    IceServer, IceServers, Incoming, PhoneOptions, Reconnect, SampleRate, ServiceUrl, SessionId, SocketCodec,
    SocketOptions, Timeouts, Tls, UserId, Ways,
};

/// Longest call: both directions are kept in memory for the report, 6 MB a minute each.
const MAX_SECONDS: u64 = 600;

/// Call a service, speak to it, and report what came back
///
/// Sends a WAV file or tone bursts in real time, as a microphone would, plays what comes back through a jitter buffer,
/// and measures levels, loss, jitter, and the latency from mouth to ear (the sent and the received audio's envelopes
/// are correlated, so it is measurable only with handlers that send back what they hear).
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Exit status:
  0   audible audio came back
  1   no connection: the server was not reached, refused the call, or ICE failed
  2   connected, but nothing audible came back
  3   the connection was lost during the call
  4   a turn of the script did not come about
  64  the command line cannot be understood

Examples:
  streamfleet call http://127.0.0.1:8080/echo
  streamfleet call https://192.168.1.5:8443/echo --insecure --file question.wav --out reply.wav
  streamfleet call https://voice.example.com/agent --header 'Authorization: Bearer …' --json
  streamfleet call https://voice.example.com/agent --wait 60    # the first worker may have to start
  streamfleet call http://127.0.0.1:8080/echo-frames --transport websocket --input-rate 24000
  streamfleet call http://127.0.0.1:8080/agent --transport twilio --script talk.yaml

A script is a list of turns, for example:
  - play: question.wav
  - wait_for_reply: {within_ms: 3000}
  - interrupt: {after_ms: 500, play: {tone: 440, ms: 600}}
  - wait_for_end: {quiet_ms: 700}
  - silence: 1000
  - say: hello
  - digits: '1#'
  - expect: {event: pause_detected}")]
pub(crate) struct Args {
    /// The service, such as http://127.0.0.1:8080/echo
    url: ServiceUrl,
    /// What carries the call
    #[arg(long, value_name = "NAME", default_value = "webrtc")]
    transport: TransportName,
    /// Speak this WAV file (any rate, any number of channels), then be silent
    #[arg(long, value_name = "WAV", conflicts_with = "tone")]
    pub(crate) file: Option<PathBuf>,
    /// Speak bursts of a tone of this frequency
    #[arg(long, value_name = "HZ", default_value = "440", value_parser = clap::value_parser!(u32).range(50..=7_000))]
    pub(crate) tone: u32,
    /// Follow this script: a YAML or JSON list of turns
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tone", "file", "seconds"])]
    pub(crate) script: Option<PathBuf>,
    /// Write what is heard to this WAV file
    #[arg(long, value_name = "WAV")]
    pub(crate) out: Option<PathBuf>,
    /// Length of the call; 5, or as long as the file and two seconds more
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: Option<u64>,
    /// Try for this long, in seconds, while the service is not there yet, has no room or is not reached
    #[arg(long, value_name = "S", default_value = "0", value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS))]
    wait: u64,
    /// Post the offer at once and its candidates as they are found
    #[arg(long)]
    trickle: bool,
    /// A STUN or TURN server instead of those that the service names: stun:HOST:PORT or turn:HOST:PORT,USER,PASSWORD
    #[arg(long = "ice-server", value_name = "URL", value_parser = ice_server)]
    ice_servers: Vec<IceServer>,
    /// Send media through a TURN server only
    #[arg(long)]
    relay: bool,
    /// What media frames hold (websocket)
    #[arg(long, value_name = "NAME", default_value = "mulaw")]
    codec: CodecName,
    /// Send media as binary messages (websocket)
    #[arg(long)]
    binary: bool,
    /// The handler's input rate; default: what the server says, or 48000 if it does not (websocket)
    #[arg(long, value_name = "HZ", value_parser = rate)]
    input_rate: Option<SampleRate>,
    /// The handler's output rate; default: what the server says, or 24000 if it does not (websocket)
    #[arg(long, value_name = "HZ", value_parser = rate)]
    output_rate: Option<SampleRate>,
    /// Open the media stream at once, without asking telephone/incoming first (twilio)
    #[arg(long)]
    no_webhook: bool,
    /// Sign requests with this token (twilio)
    #[arg(long, value_name = "TOKEN", env = "STREAMFLEET_TWILIO_AUTH_TOKEN", hide_env_values = true)]
    auth_token: Option<String>,
    /// Who calls
    #[arg(long, value_name = "ID")]
    user_id: Option<UserId>,
    /// Metadata of the session: KEY=VALUE or a JSON object
    #[arg(long, value_name = "KEY=VALUE|JSON")]
    metadata: Vec<String>,
    /// The session's id instead of a random one
    #[arg(long, value_name = "ID")]
    id: Option<SessionId>,
    /// A header of every request: 'Name: value'
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Accept any certificate, such as the self-signed one of `streamfleet dev --tls`
    #[arg(long)]
    insecure: bool,
    /// Do not follow the server when it asks for a new offer or vanishes
    #[arg(long)]
    no_reconnect: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// The longest call.
    pub(crate) const MOST: Duration = Duration::from_secs(MAX_SECONDS);

    /// How long to call: as asked, else by what is spoken.
    pub(crate) fn length(&self, spoken: Option<Duration>) -> Duration {
        match (self.seconds, spoken) {
            (Some(seconds), _) => Duration::from_secs(seconds),
            (None, Some(spoken)) => (spoken + Duration::from_secs(2)).min(Self::MOST),
            (None, None) => Duration::from_secs(5),
        }
    }

    /// How long the service may take to take the call; none where one attempt has to do.
    pub(crate) fn patience(&self) -> Option<Duration> {
        (self.wait > 0).then(|| Duration::from_secs(self.wait))
    }

    /// Whom to call, and how.
    ///
    /// # Errors
    /// The first argument that does not parse or does not belong to the transport, by its name.
    pub(crate) fn dial(&self) -> anyhow::Result<Dial> {
        let given = |name: &str, given: bool, transport: TransportName| {
            ensure!(!given || self.transport == transport, "{name}: only with --transport {}", transport.word());
            Ok(())
        };
        given("--trickle", self.trickle, TransportName::Webrtc)?;
        given("--ice-server", !self.ice_servers.is_empty(), TransportName::Webrtc)?;
        given("--relay", self.relay, TransportName::Webrtc)?;
        given("--codec", self.codec != CodecName::Mulaw, TransportName::Websocket)?;
        given("--binary", self.binary, TransportName::Websocket)?;
        given("--no-webhook", self.no_webhook, TransportName::Twilio)?;
        Ok(match self.transport {
            TransportName::Webrtc => Dial::WebRtc(Box::new(self.options()?)),
            TransportName::Websocket => Dial::WebSocket(Box::new(self.socket_options()?)),
            TransportName::Twilio => Dial::Phone(Box::new(self.phone_options()?)),
        })
    }

    /// An offer that a server holds while a worker starts is not given up before its time. A telephone waits for no answer.
    fn wait_for(&self, timeouts: &mut Timeouts) {
        if let Some(patience) = self.patience() {
            timeouts.answer = timeouts.answer.max(patience);
        }
    }

    fn socket_options(&self) -> anyhow::Result<SocketOptions> {
        let mut options = SocketOptions::new(self.url.clone());
        if let Some(id) = &self.id {
            options.websocket_id = id.clone();
        }
        options.user_id = self.user_id.clone();
        options.metadata = metadata(&self.metadata)?;
        options.headers = headers(&self.headers)?;
        self.wait_for(&mut options.timeouts);
        options.codec = match self.codec {
            CodecName::Mulaw => SocketCodec::MuLaw,
            CodecName::Pcm16 => SocketCodec::Pcm16,
            CodecName::Opus => SocketCodec::Opus,
        };
        if self.binary {
            options.framing = Framing::Binary;
        }
        (options.input_rate, options.output_rate) = (self.input_rate, self.output_rate);
        if self.insecure {
            options.tls = Tls::AcceptAny;
        }
        if self.no_reconnect {
            options.reconnect = Reconnect::Never;
        }
        Ok(options)
    }

    fn phone_options(&self) -> anyhow::Result<PhoneOptions> {
        let mut options = PhoneOptions::new(self.url.clone());
        if let Some(id) = &self.id {
            options.stream_sid = id.clone();
        }
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        options.parameters = metadata(&self.metadata)?.into_iter().map(|(key, value)| (key, text(value))).collect();
        if let Some(user) = &self.user_id {
            options.from = user.to_string();
        }
        options.headers = headers(&self.headers)?;
        options.auth_token = self.auth_token.clone().and_then(AuthToken::new);
        if self.no_webhook {
            options.incoming = Incoming::Skip;
        }
        if self.insecure {
            options.tls = Tls::AcceptAny;
        }
        Ok(options)
    }

    fn options(&self) -> anyhow::Result<ClientOptions> {
        let mut options = ClientOptions::new(self.url.clone());
        if let Some(id) = &self.id {
            options.webrtc_id = id.clone();
        }
        options.user_id = self.user_id.clone();
        options.metadata = metadata(&self.metadata)?;
        options.headers = headers(&self.headers)?;
        self.wait_for(&mut options.timeouts);
        options.ice_servers = match self.ice_servers.as_slice() {
            [] => IceServers::Told,
            given => IceServers::Given(given.to_vec()),
        };
        if self.relay {
            options.ways = Ways::Relayed;
        }
        if self.trickle {
            options.gathering = Gathering::Trickle;
        }
        if self.insecure {
            options.tls = Tls::AcceptAny;
        }
        if self.no_reconnect {
            options.reconnect = Reconnect::Never;
        }
        Ok(options)
    }
}

/// What carries a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TransportName {
    /// ICE, DTLS, SRTP and a data channel, as browsers
    Webrtc,
    /// JSON or binary frames at {url}/websocket/offer
    Websocket,
    /// A telephone company's media stream, as Twilio's
    Twilio,
}

impl TransportName {
    fn word(self) -> &'static str {
        match self {
            Self::Webrtc => "webrtc",
            Self::Websocket => "websocket",
            Self::Twilio => "twilio",
        }
    }
}

/// What media frames on a WebSocket hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CodecName {
    /// G.711 mu-law at the handler's rates, FastRTC's only one
    Mulaw,
    /// Signed 16-bit samples at the handler's rates
    Pcm16,
    /// Opus packets of 20 ms
    Opus,
}

/// Whom to call, and how.
#[derive(Debug)]
pub(crate) enum Dial {
    WebRtc(Box<ClientOptions>),
    WebSocket(Box<SocketOptions>),
    Phone(Box<PhoneOptions>),
}

impl Dial {
    pub(crate) fn url(&self) -> &ServiceUrl {
        match self {
            Self::WebRtc(options) => &options.url,
            Self::WebSocket(options) => &options.url,
            Self::Phone(options) => &options.url,
        }
    }

    /// # Errors
    /// The call cannot be made; see the client's own.
    pub(crate) async fn connect(self) -> Result<Call, ClientError> {
        match self {
            Self::WebRtc(options) => Client::connect(*options).await,
            Self::WebSocket(options) => Client::connect_socket(*options).await,
            Self::Phone(options) => Client::connect_phone(*options).await,
        }
    }
}

fn rate(text: &str) -> Result<SampleRate, String> {
    let hz = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    SampleRate::new(hz).map_err(|error| error.to_string())
}

fn ice_server(text: &str) -> Result<IceServer, String> {
    let mut parts = text.splitn(3, ',');
    let (url, username, credential) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match (url.split(':').next(), username, credential) {
        (Some("stun"), None, None) => Ok(IceServer::stun(url)),
        (Some("turn"), Some(username), Some(credential)) => Ok(IceServer {
            urls: vec![url.to_owned()],
            username: username.to_owned(),
            credential: credential.to_owned(),
        }),
        (Some("turn"), ..) => Err("a TURN server needs credentials: turn:HOST:PORT,USER,PASSWORD".to_owned()),
        _ => Err("write stun:HOST:PORT or turn:HOST:PORT,USER,PASSWORD".to_owned()),
    }
}

/// Later words win over earlier ones.
fn metadata(words: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut merged = Map::new();
    for word in words {
        if word.trim_start().starts_with('{') {
            let object: Map<String, Value> =
                serde_json::from_str(word).with_context(|| format!("--metadata {word}: not a JSON object"))?;
            merged.extend(object);
        } else if let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.is_empty()) {
            merged.insert(key.to_owned(), Value::from(value));
        } else {
            bail!("--metadata {word}: write KEY=VALUE or a JSON object");
        }
    }
    Ok(merged)
}

fn headers(lines: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        // The value may be a secret and is not repeated.
        let (name, value) = line.split_once(':').context("--header: write 'Name: value'")?;
        let name: HeaderName = name.trim().parse().with_context(|| format!("--header {name}: not a header's name"))?;
        let mut value: HeaderValue =
            value.trim().parse().with_context(|| format!("--header {name}: the value has forbidden characters"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, String> {
        let words = ["call"].iter().chain(words);
        Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn lengths() {
        fn check(words: &[&str], spoken: Option<u64>, expected: u64) {
            let mut line = vec!["http://h/echo"];
            line.extend(words);
            let found = parse(&line).unwrap().length(spoken.map(Duration::from_secs));
            assert_eq!(found, Duration::from_secs(expected));
        }
        check(&[], None, 5);
        check(&[], Some(7), 9);
        check(&[], Some(10_000), 600);
        check(&["--seconds", "3"], Some(7), 3);
    }

    #[test]
    fn waiting_is_asked_for() {
        fn check(words: &[&str], patience: Option<u64>, expected: u64) {
            let args = parse(&[&["http://h/echo"], words].concat()).unwrap();
            assert_eq!(args.patience(), patience.map(Duration::from_secs), "{words:?}");
            let answer = args.options().unwrap().timeouts.answer;
            let by_socket = args.socket_options().unwrap().timeouts.answer;
            assert_eq!([answer, by_socket], [Duration::from_secs(expected); 2], "{words:?}");
        }
        check(&[], None, 75);
        check(&["--wait", "0"], None, 75);
        check(&["--wait", "60"], Some(60), 75);
        check(&["--wait", "120"], Some(120), 120);
    }

    #[test]
    fn options_are_what_the_words_say() {
        let args = parse(&[
            "https://h/echo",
            "--trickle",
            "--insecure",
            "--no-reconnect",
            "--id",
            "abc",
            "--user-id",
            "ada",
            "--metadata",
            "plan=gold=1",
            "--metadata",
            r#"{"n": 1}"#,
            "--header",
            "Authorization: Bearer x:y",
            "--ice-server",
            "stun:s:3478",
            "--ice-server",
            "turn:t:3478,u,p,w",
        ]);
        let options = args.unwrap().options().unwrap();
        assert_eq!(options.webrtc_id.as_str(), "abc");
        assert_eq!(options.gathering, Gathering::Trickle);
        assert_eq!((options.tls, options.reconnect), (Tls::AcceptAny, Reconnect::Never));
        assert_eq!(Value::Object(options.metadata), serde_json::json!({"plan": "gold=1", "n": 1}));
        assert_eq!(options.headers["authorization"], "Bearer x:y");
        let IceServers::Given(servers) = options.ice_servers else { panic!("{:?}", options.ice_servers) };
        assert_eq!(servers[0], IceServer::stun("stun:s:3478"));
        assert_eq!((servers[1].username.as_str(), servers[1].credential.as_str()), ("u", "p,w"));
        assert_eq!(options.ways, Ways::Any);
        let options = parse(&["http://h", "--relay"]).unwrap().options().unwrap();
        assert_eq!((options.ice_servers, options.ways), (IceServers::Told, Ways::Relayed));
    }

    #[test]
    fn other_transports() {
        let line = "https://h/echo --transport websocket --id abc --codec opus --binary --input-rate 24000 \
                    --output-rate 16000 --user-id ada --no-reconnect";
        let Dial::WebSocket(options) = parse(&line.split_whitespace().collect::<Vec<_>>()).unwrap().dial().unwrap()
        else {
            panic!("a WebSocket")
        };
        assert_eq!(options.websocket_id.as_str(), "abc");
        assert_eq!((options.codec, options.framing), (SocketCodec::Opus, Framing::Binary));
        assert_eq!(
            (options.input_rate, options.output_rate),
            (SampleRate::new(24_000).ok(), SampleRate::new(16_000).ok())
        );
        assert_eq!(options.user_id.as_ref().map(UserId::as_str), Some("ada"));
        assert_eq!(options.reconnect, Reconnect::Never);
        let line = "http://h --transport twilio --no-webhook --metadata n=1 --auth-token t --user-id +15550100";
        let Dial::Phone(options) = parse(&line.split_whitespace().collect::<Vec<_>>()).unwrap().dial().unwrap() else {
            panic!("a telephone")
        };
        assert_eq!((options.incoming, options.parameters["n"].as_str()), (Incoming::Skip, "1"));
        assert_eq!((options.from.as_str(), options.auth_token), ("+15550100", AuthToken::new("t")));
    }

    #[test]
    fn mistakes_are_named() {
        fn check(words: &[&str], part: &str) {
            let found = parse(words).and_then(|args| args.dial().map_err(|error| format!("{error:#}")));
            let error = found.expect_err("it is a mistake");
            assert!(error.contains(part), "{words:?}: {error}");
        }
        check(&[], "<URL>");
        check(&["127.0.0.1:8080"], "write it like http://");
        check(&["http://h", "--seconds", "0"], "1..=600");
        check(&["http://h", "--wait", "601"], "0..=600");
        check(&["http://h", "--tone", "20"], "50..=7000");
        check(&["http://h", "--file", "a.wav", "--tone", "440"], "cannot be used with");
        check(&["http://h", "--metadata", "plan"], "--metadata plan: write KEY=VALUE");
        check(&["http://h", "--metadata", "{1}"], "--metadata {1}: not a JSON object");
        check(&["http://h", "--header", "nonsense"], "write 'Name: value'");
        check(&["http://h", "--header", "a b: c"], "not a header's name");
        check(&["http://h", "--ice-server", "turn:t:3478"], "needs credentials");
        check(&["http://h", "--ice-server", "example.com"], "write stun:");
        check(&["http://h", "--id", "a b"], "--id");
        check(&["http://h", "--transport", "pigeon"], "--transport");
        check(&["http://h", "--transport", "twilio", "--relay"], "--relay: only with --transport webrtc");
        check(&["http://h", "--codec", "opus"], "--codec: only with --transport websocket");
        check(&["http://h", "--transport", "twilio", "--trickle"], "--trickle: only with --transport webrtc");
        check(&["http://h", "--transport", "websocket", "--no-webhook"], "--no-webhook: only with --transport twilio");
        check(&["http://h", "--input-rate", "7000"], "7000 Hz is not a sample rate");
        check(&["http://h", "--script", "a.yaml", "--seconds", "3"], "cannot be used with");
    }
}
