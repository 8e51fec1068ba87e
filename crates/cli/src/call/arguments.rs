//! The command line of `streamfleet call`, and what it means.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use streamfleet_client::{
    ClientOptions, Gathering, HeaderMap, HeaderName, HeaderValue, IceServer, Reconnect, ServiceUrl, SessionId, Tls,
    UserId,
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
  64  the command line cannot be understood

Examples:
  streamfleet call http://127.0.0.1:8080/echo
  streamfleet call https://192.168.1.5:8443/echo --insecure --file question.wav --out reply.wav
  streamfleet call https://voice.example.com/agent --header 'Authorization: Bearer …' --json")]
pub(crate) struct Args {
    /// The service, such as http://127.0.0.1:8080/echo
    url: ServiceUrl,
    /// Speak this WAV file (any rate, any number of channels), then be silent
    #[arg(long, value_name = "WAV", conflicts_with = "tone")]
    pub(crate) file: Option<PathBuf>,
    /// Speak bursts of a tone of this frequency
    #[arg(long, value_name = "HZ", default_value = "440", value_parser = clap::value_parser!(u32).range(50..=7_000))]
    pub(crate) tone: u32,
    /// Write what is heard to this WAV file
    #[arg(long, value_name = "WAV")]
    pub(crate) out: Option<PathBuf>,
    /// Length of the call; 5, or as long as the file and two seconds more
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: Option<u64>,
    /// Post the offer at once and its candidates as they are found
    #[arg(long)]
    trickle: bool,
    /// A STUN or TURN server: stun:HOST:PORT or turn:HOST:PORT,USER,PASSWORD
    #[arg(long = "ice-server", value_name = "URL", value_parser = ice_server)]
    ice_servers: Vec<IceServer>,
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
    /// How long to call: as asked, else by what is spoken.
    pub(crate) fn length(&self, spoken: Option<Duration>) -> Duration {
        let most = Duration::from_secs(MAX_SECONDS);
        match (self.seconds, spoken) {
            (Some(seconds), _) => Duration::from_secs(seconds),
            (None, Some(spoken)) => (spoken + Duration::from_secs(2)).min(most),
            (None, None) => Duration::from_secs(5),
        }
    }

    /// The client's options.
    ///
    /// # Errors
    /// The first argument that does not parse, by its name.
    pub(crate) fn options(&self) -> anyhow::Result<ClientOptions> {
        let mut options = ClientOptions::new(self.url.clone());
        if let Some(id) = &self.id {
            options.webrtc_id = id.clone();
        }
        options.user_id = self.user_id.clone();
        options.metadata = metadata(&self.metadata)?;
        options.headers = headers(&self.headers)?;
        options.ice_servers = self.ice_servers.clone();
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
        assert_eq!(options.ice_servers[0], IceServer::stun("stun:s:3478"));
        assert_eq!(
            (options.ice_servers[1].username.as_str(), options.ice_servers[1].credential.as_str()),
            ("u", "p,w")
        );
    }

    #[test]
    fn mistakes_are_named() {
        fn check(words: &[&str], part: &str) {
            let found = parse(words).and_then(|args| args.options().map_err(|error| format!("{error:#}")));
            let error = found.expect_err("it is a mistake");
            assert!(error.contains(part), "{words:?}: {error}");
        }
        check(&[], "<URL>");
        check(&["127.0.0.1:8080"], "write it like http://");
        check(&["http://h", "--seconds", "0"], "1..=600");
        check(&["http://h", "--tone", "20"], "50..=7000");
        check(&["http://h", "--file", "a.wav", "--tone", "440"], "cannot be used with");
        check(&["http://h", "--metadata", "plan"], "--metadata plan: write KEY=VALUE");
        check(&["http://h", "--metadata", "{1}"], "--metadata {1}: not a JSON object");
        check(&["http://h", "--header", "nonsense"], "write 'Name: value'");
        check(&["http://h", "--header", "a b: c"], "not a header's name");
        check(&["http://h", "--ice-server", "turn:t:3478"], "needs credentials");
        check(&["http://h", "--ice-server", "example.com"], "write stun:");
        check(&["http://h", "--id", "a b"], "--id");
    }
}
