//! What is served where nobody says what: every built-in handler, each at its name, and the page that shows them.

mod melody;
pub(crate) mod page;
mod scratch;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use streamfleet_handler::Registry;
use streamfleet_service::Service;

pub(crate) use self::scratch::Scratch;

const MELODY: &str = "melody.wav";

#[derive(clap::Args, Debug, Default)]
pub(crate) struct Choices {
    /// The handler that is also at /; default: echo
    #[arg(long, value_name = "NAME")]
    default: Option<String>,
    /// What `playback` plays (WAV or Ogg Opus); default: a melody
    #[arg(long, value_name = "FILE")]
    play: Option<PathBuf>,
    /// Where `recorder` records; default: a folder that goes with the process
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
}

/// A service that the page offers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offered {
    pub(crate) name: String,
    pub(crate) path: String,
    /// Further paths; the root is that of the default one.
    pub(crate) aliases: Vec<String>,
    pub(crate) handler: String,
    pub(crate) config: Value,
}

impl Choices {
    /// Whether nothing is said.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { default, play, record } = self;
        default.is_none() && play.is_none() && record.is_none()
    }

    /// Every handler at its name; the default one at the root as well.
    ///
    /// # Errors
    /// There is no such default.
    pub(crate) fn services(&self, registry: &Registry, folder: &Path) -> Result<Vec<Offered>, String> {
        let default = self.default.as_deref().unwrap_or("echo");
        if registry.iter().all(|(name, _)| name != default) {
            let names: Vec<&str> = registry.iter().map(|(name, _)| name).collect();
            return Err(format!("--default: there is no handler {default:?}; there are {}", names.join(", ")));
        }
        let play = self.play.clone().unwrap_or_else(|| folder.join(MELODY));
        let record = self.record.clone().unwrap_or_else(|| folder.to_owned());
        let offered = registry.iter().map(|(name, _)| Offered {
            name: name.to_owned(),
            path: format!("/{name}"),
            aliases: if name == default { vec!["/".to_owned()] } else { Vec::new() },
            handler: name.to_owned(),
            config: match name {
                "playback" => json!({ "path": play, "loop": true }),
                "recorder" => json!({ "folder": record, "folder_mib": 256 }),
                _ => Value::Null,
            },
        });
        Ok(offered.collect())
    }

    /// The folder of this process, with what is played in it.
    pub(crate) fn folder(&self) -> anyhow::Result<Scratch> {
        let parent = std::env::temp_dir();
        let folder = Scratch::new(&parent).with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        if self.play.is_none() {
            let file = folder.path().join(MELODY);
            melody::write(&file).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(folder)
    }
}

impl Offered {
    /// A service that the page can call: one with a host or with parameters in its path it cannot.
    pub(crate) fn of(service: &Service) -> Option<Self> {
        let mut paths = service.paths.iter().filter(|path| path.parameters().next().is_none()).map(ToString::to_string);
        if service.host.is_some() {
            return None;
        }
        Some(Self {
            name: service.name.to_string(),
            path: paths.next()?,
            aliases: paths.collect(),
            handler: service.handler.name.clone(),
            config: service.handler.config.clone(),
        })
    }

    pub(crate) fn is_at_the_root(&self) -> bool {
        std::iter::once(&self.path).chain(&self.aliases).any(|path| path.trim_matches('/').is_empty())
    }
}

/// Names for a certificate: what a browser on this machine or on its network will type.
pub(crate) fn names(advertised: &[IpAddr]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    let addresses =
        if advertised.is_empty() { streamfleet_net::interfaces().unwrap_or_default() } else { advertised.to_vec() };
    names.extend(addresses.iter().map(ToString::to_string));
    names
}

/// Where to open the page of a server that listens at `http`.
pub(crate) fn page_url(scheme: &str, http: std::net::SocketAddr) -> String {
    let host = match http.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("{scheme}://{host}:{}/", http.port())
}
