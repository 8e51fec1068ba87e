//! Where the Redis of a fleet is, as it is said on a command line.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};
use streamfleet_process::config::{Mistakes, Secret};
use streamfleet_session::ServiceName;
use streamfleet_store::config::{StoreConfig, address};
use streamfleet_store::{Backend, RedisStore};

/// A single Redis: `host:port`, or `redis[s]://[[user]:password@]host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedisAt {
    address: String,
    user: Option<String>,
    password: Option<Secret>,
    tls: Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    No,
    Yes,
}

/// A text that is no Redis's address; it may hold a password, and is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotRedis(&'static str);

impl fmt::Display for NotRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotRedis {}

impl FromStr for RedisAt {
    type Err = NotRedis;

    fn from_str(text: &str) -> Result<Self, NotRedis> {
        const DEFAULT_PORT: u16 = 6379;
        let (tls, rest) = match text.split_once("://") {
            None => (Tls::No, text),
            Some(("redis", rest)) => (Tls::No, rest),
            Some(("rediss", rest)) => (Tls::Yes, rest),
            Some(_) => return Err(NotRedis("the scheme must be redis or rediss")),
        };
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, rest),
        };
        let host = match host.split_once('/') {
            None | Some((_, "")) => host.trim_end_matches('/'),
            // A Cluster has no other, and keys have a prefix anyway.
            Some((host, "0")) => host,
            Some(_) => return Err(NotRedis("only database 0 is used")),
        };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let host = if has_port { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") };
        if address("", &host, &mut Mistakes::new()).is_none() {
            return Err(NotRedis("must be HOST:PORT or redis[s]://[USER:PASSWORD@]HOST:PORT"));
        }
        let (user, password) = match login {
            None => (None, None),
            Some(login) => {
                let (user, password) = login.split_once(':').ok_or(NotRedis("a user needs a password"))?;
                let plain =
                    |text| unescaped(text).ok_or(NotRedis("an escape (%40) of user or password cannot be read"));
                let user = Some(plain(user)?).filter(|user| !user.is_empty());
                (user, Some(Secret::new(plain(password)?)))
            }
        };
        Ok(Self { address: host, user, password, tls })
    }
}

impl RedisAt {
    /// The keys of a store's configuration.
    pub(super) fn store(&self) -> Value {
        let mut redis = json!({ "address": self.address });
        if let Some(user) = &self.user {
            redis["user"] = json!(user);
        }
        if let Some(password) = &self.password {
            redis["password"] = json!(password.reveal());
        }
        if self.tls == Tls::Yes {
            redis["tls"] = json!({});
        }
        json!({ "redis": redis })
    }
}

/// Any service: what is asked is whether somebody answers.
const PROBE: &str = "default/probe";

impl RedisAt {
    /// Whether it answers, in a form that this program reads.
    ///
    /// # Errors
    /// A line that says where it was asked for and what is wrong.
    pub(super) async fn answers(&self) -> Result<(), String> {
        let failed = |error: &dyn fmt::Display| format!("the Redis at {} cannot be used: {error}", self.address);
        let config: StoreConfig = serde_json::from_value(self.store()).map_err(|error| failed(&error))?;
        let mut mistakes = Mistakes::new();
        let backend = config.build("--redis", &mut mistakes);
        let Some(Backend::Redis(config)) = backend else {
            return Err(failed(&mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")));
        };
        let probe = PROBE.parse::<ServiceName>().map_err(|error| failed(&error))?;
        RedisStore::new(*config).ping(&probe).await.map_err(|error| failed(&error))
    }
}

/// Without escapes (RFC 3986, 2.1).
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            bytes.push(digit(digits[0])? << 4 | digit(digits[1])?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Value| {
            assert_eq!(text.parse::<RedisAt>().unwrap().store()["redis"], expected, "{text}");
        };
        check("127.0.0.1:6380", json!({ "address": "127.0.0.1:6380" }));
        check("redis.voice", json!({ "address": "redis.voice:6379" }));
        check("[::1]:7000", json!({ "address": "[::1]:7000" }));
        check("redis://[::1]", json!({ "address": "[::1]:6379" }));
        check("redis://h:1/", json!({ "address": "h:1" }));
        check("redis://h:1/0", json!({ "address": "h:1" }));
        check("redis://:s3cret@h", json!({ "address": "h:6379", "password": "s3cret" }));
        check(
            "rediss://fleet:a%40b:c@h:6390",
            json!({ "address": "h:6390", "user": "fleet", "password": "a@b:c", "tls": {} }),
        );
    }

    #[test]
    fn what_is_none_is_not_repeated() {
        for text in
            ["", "h:0", "h:port", "http://h:1", "redis://h:1/3", "redis://user@h:1", "redis://u:%4@h:1", "a b:1"]
        {
            let error = text.parse::<RedisAt>().unwrap_err().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        let shown = format!("{:?}", "redis://:s3cret@h".parse::<RedisAt>().unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_named() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = format!("redis://:s3cret@{closed}").parse::<RedisAt>().unwrap().answers().await.unwrap_err();
        assert!(error.starts_with(&format!("the Redis at {closed} cannot be used: ")), "{error}");
        assert!(error.contains("refused") && !error.contains("s3cret"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<RedisAt>();
        }
    }
}
