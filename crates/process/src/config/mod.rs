//! Configuration in layers: flags over environment over a YAML file over defaults.
//!
//! A program describes its configuration as one serde type with a `Default`; the defaults are the schema: their keys
//! are the keys of the file, of `--set key=value`, and of the environment. `STREAMFLEET_MEDIA_UDP` is `media.udp`, and
//! `STREAMFLEET_DRAIN_MAX_WAIT` is `drain.maxWait`. Lists are given in one variable, separated by commas, or as JSON.
//!
//! Mistakes are collected, not returned one by one: a value that does not fit is noted with its key and its origin,
//! replaced by its default, and the search goes on. For this to see every leaf, the type should use
//! `#[serde(default, deny_unknown_fields)]` throughout, plain structs instead of `Option<Struct>`, and neither
//! `flatten` nor untagged or internally tagged enums, which hide the path of a fault from serde. A section that means
//! something by not being there is an `Option<Struct>` all the same: its keys do not show in the defaults, and
//! [`Layers::section`] says what they are.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use streamfleet_process::config::Layers;
//!
//! #[derive(Default, Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Media { udp: u16 }
//!
//! #[derive(Default, Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config { media: Media }
//!
//! let vars = [("STREAMFLEET_MEDIA_UDP".to_owned(), "5000".to_owned())];
//! let loaded = Layers::new("STREAMFLEET").environment(vars).load::<Config>();
//! assert!(loaded.mistakes.is_empty());
//! assert_eq!(loaded.config.media.udp, 5000);
//!
//! let wrong = Layers::new("STREAMFLEET").yaml("fleet.yaml", "media: { udp: 70000, tcp: 1 }").load::<Config>();
//! assert_eq!(wrong.mistakes.iter().count(), 2);
//! ```

pub mod duration;
mod mistake;
mod secret;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::mistake::{Mistake, Mistakes};
pub use self::secret::Secret;
use self::tree::{Node, Removed, Step};

/// A configuration file is written by hand; one that is larger is another file by mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Nobody corrects more than this at once, and a hostile file must not keep us searching.
const MAX_MISTAKES: usize = 100;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The program's own default.
    Default,
    /// A file, by its path.
    File(Arc<str>),
    /// An environment variable, by its name.
    Variable(Arc<str>),
    /// A command-line flag, as the user types it.
    Flag(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "in {path}"),
            Origin::Variable(name) => write!(f, "from {name}"),
            Origin::Flag(flag) => write!(f, "from {flag}"),
        }
    }
}

/// What [`Layers::load`] found.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The merged configuration; what was wrong stands at its default, so that further checks can go on.
    pub config: T,
    /// Everything that did not fit. A process must not start unless this is empty.
    pub mistakes: Mistakes,
    /// Variables with our prefix that name no key, sorted. Worth a log line and no more: Kubernetes puts variables
    /// named after every Service into every pod, so `STREAMFLEET_ROUTER_PORT` may be none of the operator's doing.
    pub unknown_variables: Vec<String>,
}

impl<T> Loaded<T> {
    /// What `build` makes of the configuration, or all mistakes together: those of the layers and those that `build`
    /// finds. What it says of a value that stands at its default because the real one did not fit is left out: the
    /// operator has not written that.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn build<P>(self, build: impl FnOnce(T) -> Result<P, Mistakes>) -> Result<P, Mistakes> {
        let mut mistakes = self.mistakes;
        match build(self.config) {
            Ok(plan) => mistakes.or(plan),
            Err(found) => {
                mistakes.extend_unrelated(found);
                Err(mistakes)
            }
        }
    }
}

/// The layers of one program's configuration, given in any order; their precedence is fixed.
#[derive(Debug, Default)]
pub struct Layers {
    prefix: String,
    file: Option<(Arc<str>, Result<String, String>)>,
    variables: BTreeMap<String, String>,
    aliases: Vec<(String, String)>,
    flags: Vec<(Arc<str>, String, Text)>,
    secrets: BTreeSet<String>,
    /// Sections that are not there unless somebody says something of them, with their own defaults.
    sections: Vec<(String, Node)>,
}

#[derive(Debug)]
enum Text {
    One(String),
    Many(Vec<String>),
}

impl Layers {
    /// `prefix` is that of the environment variables, without the underscore: `STREAMFLEET`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// Reads the YAML file at `path`. A file that cannot be read is a mistake like any other, reported by `load`.
    #[must_use]
    pub fn file(mut self, path: &Path) -> Self {
        self.file = Some((path.display().to_string().into(), read_bounded(path)));
        self
    }

    /// Takes YAML that the caller has read; `name` is for the messages.
    #[must_use]
    pub fn yaml(mut self, name: &str, text: impl Into<String>) -> Self {
        self.file = Some((name.into(), Ok(text.into())));
        self
    }

    /// Takes the environment, usually [`std::env::vars_os`] filtered to Unicode. Empty variables count as unset.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables.extend(variables.into_iter().filter(|(_, value)| !value.is_empty()));
        self
    }

    /// Lets a variable of any name stand for a key, below the key's own variable: `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn alias(mut self, variable: impl Into<String>, key: impl Into<String>) -> Self {
        self.aliases.push((variable.into(), key.into()));
        self
    }

    /// Takes a flag's value, if it was given. `flag` is what the user typed, for the messages: `--listen`.
    #[must_use]
    pub fn flag(mut self, flag: &str, key: impl Into<String>, value: Option<impl Into<String>>) -> Self {
        if let Some(value) = value {
            self.flags.push((flag.into(), key.into(), Text::One(value.into())));
        }
        self
    }

    /// Takes the values of a flag that may be repeated; none means that it was not given.
    #[must_use]
    pub fn flags(mut self, flag: &str, key: impl Into<String>, values: impl IntoIterator<Item = String>) -> Self {
        let values: Vec<String> = values.into_iter().collect();
        if !values.is_empty() {
            self.flags.push((flag.into(), key.into(), Text::Many(values)));
        }
        self
    }

    /// Keeps the value of `key` out of messages; `list[].key` means every element of a list.
    #[must_use]
    pub fn secret(mut self, key: impl Into<String>) -> Self {
        self.secrets.insert(key.into());
        self
    }

    /// Lets the environment say something of a section that the defaults do not have: `key` is an `Option<S>`. It is there when any
    /// of its keys is set, by whatever layer; a variable that is empty sets nothing. An outer section comes before one inside of it.
    #[must_use]
    pub fn section<S: Default + Serialize>(mut self, key: impl Into<String>) -> Self {
        self.sections.push((key.into(), defaults::<S>()));
        self
    }

    /// Every environment variable that a `T` can be set by, with its key; for documentation, and to test that no two keys
    /// share a variable.
    pub fn variables<T: Default + Serialize>(&self) -> Vec<(String, String)> {
        self.keys(&defaults::<T>()).into_iter().map(|key| (variable(&self.prefix, &key), key)).collect()
    }

    /// What can be set: each leaf of the defaults, a section that is not there as a whole, and each leaf of it.
    fn keys(&self, defaults: &Node) -> BTreeSet<String> {
        let whole = self.sections.iter().map(|(key, _)| key.clone());
        defaults.leaves().into_iter().chain(self.schema(defaults).leaves()).chain(whole).collect()
    }

    /// The defaults with all sections.
    fn schema(&self, defaults: &Node) -> Node {
        let mut schema = defaults.clone();
        for (key, section) in &self.sections {
            schema.set(key, section.clone());
        }
        schema
    }

    /// Merges the layers and reads them as a `T`, going on past every mistake.
    ///
    /// # Panics
    /// If `T::default()` does not survive serialisation: that is a fault of the program, and any test of it shows it.
    pub fn load<T: Default + Serialize + DeserializeOwned>(self) -> Loaded<T> {
        let defaults = defaults::<T>();
        let mut mistakes = Mistakes::new();
        let mut merged = defaults.clone();
        if let Some((name, text)) = &self.file {
            match read_yaml(name, text) {
                Ok(Some(node)) => merged.overlay(node),
                Ok(None) => {}
                Err(mistake) => mistakes.add(mistake),
            }
        }
        let unknown_variables = self.overlay_variables::<T>(&defaults, &mut merged);
        for (flag, key, text) in &self.flags {
            let value = match text {
                Text::One(text) => fit::<T>(&defaults, &self.schema(&defaults), key, text),
                Text::Many(values) => values.iter().cloned().map(Value::String).collect(),
            };
            merged.set(key, Node::new(value, &Origin::Flag(flag.clone())));
        }
        let config = read::<T>(merged, &defaults, &self.secrets, &mut mistakes);
        Loaded { config, mistakes, unknown_variables }
    }

    fn overlay_variables<T: DeserializeOwned>(&self, defaults: &Node, merged: &mut Node) -> Vec<String> {
        let schema = self.schema(defaults);
        let keys = self.keys(defaults).into_iter();
        let own: BTreeMap<String, String> = keys.map(|key| (variable(&self.prefix, &key), key)).collect();
        let aliases = self.aliases.iter().map(|(variable, key)| (variable, key));
        for (name, key) in aliases.clone().chain(own.iter()) {
            if let Some(text) = self.variables.get(name) {
                let value = fit::<T>(defaults, &schema, key, text);
                merged.set(key, Node::new(value, &Origin::Variable(name.as_str().into())));
            }
        }
        let prefix = format!("{}_", self.prefix);
        self.variables
            .keys()
            .filter(|name| name.starts_with(&prefix) && !own.contains_key(*name))
            .filter(|name| aliases.clone().all(|(alias, _)| alias != *name))
            .cloned()
            .collect()
    }
}

fn defaults<T: Default + Serialize>() -> Node {
    let value = serde_json::to_value(T::default()).expect("invariant: a configuration's defaults can be serialised");
    Node::new(value, &Origin::Default)
}

/// `drain.maxWait` → `STREAMFLEET_DRAIN_MAX_WAIT`.
fn variable(prefix: &str, key: &str) -> String {
    let mut name = format!("{prefix}_");
    for c in key.chars() {
        match c {
            '.' | '-' => name.push('_'),
            c => {
                if c.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(c.to_ascii_uppercase());
            }
        }
    }
    name
}

fn read_bounded(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES { Err(format!("is larger than {MAX_FILE_BYTES} bytes")) } else { Ok(text) }
}

// serde-saphyr, of the successors of the retired serde_yaml, because it is maintained, has no unsafe code and bounds
// what hostile input can make it do; serde_norway and serde_yaml_ng still stand on the C libyaml, translated.
fn read_yaml(name: &Arc<str>, text: &Result<String, String>) -> Result<Option<Node>, Mistake> {
    let origin = Origin::File(name.clone());
    let wrong = |message: String| Mistake { key: String::new(), origin: Some(origin.clone()), message };
    let text = text.as_ref().map_err(|error| wrong(format!("cannot read the file: {error}")))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let value: Value = serde_saphyr::from_str(text).map_err(|error| {
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        wrong(format!("not valid YAML: {first}"))
    })?;
    match value {
        Value::Null => Ok(None),
        Value::Object(_) => Ok(Some(Node::new(value, &origin))),
        _ => Err(wrong("the file must hold a mapping of keys to values".to_owned())),
    }
}

/// The value that a text from a flag or a variable stands for. A text has no type, so the readings are tried on the
/// configuration itself; if none fits, the one that makes the clearest message is kept.
fn fit<T: DeserializeOwned>(defaults: &Node, schema: &Node, key: &str, text: &str) -> Value {
    let plain = Value::String(text.to_owned());
    let json = serde_json::from_str::<Value>(text).ok();
    let list: Value = text.split(',').map(|item| Value::String(item.trim().to_owned())).collect();
    let fits = |value: &Value| {
        let mut tree = defaults.clone();
        tree.set(key, Node::new(value.clone(), &Origin::Default));
        T::deserialize(tree.to_value()).is_ok()
    };
    let readings = [Some(&plain), json.as_ref(), Some(&list)];
    if let Some(value) = readings.into_iter().flatten().find(|value| fits(value)) {
        return value.clone();
    }
    let path: Vec<Step> = key.split('.').map(|key| Step::Key(key.to_owned())).collect();
    match (json, schema.is_list(&path)) {
        (Some(json), _) => json,
        (None, true) => list,
        (None, false) => plain,
    }
}

/// Reads the tree as a `T`. What does not fit is noted and taken out (its default takes its place), until all fits.
fn read<T: Default + DeserializeOwned>(
    mut tree: Node,
    defaults: &Node,
    secrets: &BTreeSet<String>,
    mistakes: &mut Mistakes,
) -> T {
    for _ in 0..MAX_MISTAKES {
        let error = match serde_path_to_error::deserialize(tree.to_value()) {
            Ok(config) => return config,
            Err(error) => error,
        };
        let path = steps(error.path());
        let key = tree.key(&path);
        let message = match secrets.contains(&without_positions(&key)) {
            true => "the value does not fit (it is withheld here)".to_owned(),
            false => error.into_inner().to_string(),
        };
        let origin = tree.origin_at(&path).clone();
        mistakes.add(Mistake { key, origin: (origin != Origin::Default).then_some(origin), message });
        if tree.remove(&path) == Removed::Nothing {
            break;
        }
        let below = std::mem::replace(&mut tree, defaults.clone());
        tree.overlay(below);
    }
    T::default()
}

/// `services[3].token` → `services[].token`.
fn without_positions(key: &str) -> String {
    let mut parts = key.split('[');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push('[');
        plain.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    plain
}

fn steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    use serde_path_to_error::Segment;
    let mut steps = Vec::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => steps.push(Step::Index(*index)),
            Segment::Map { key } => steps.push(Step::Key(key.clone())),
            Segment::Enum { variant } => steps.push(Step::Key(variant.clone())),
            Segment::Unknown => break,
        }
    }
    steps
}

#[cfg(test)]
mod tests;
