//! A specification without mistakes.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use streamfleet_process::config::Mistakes;
use streamfleet_session::metadata::MetadataLimits;
use streamfleet_session::{Limits, ServiceName, UserIdSource};

use crate::ice::{IceServer, IceUrl, check_servers, check_turn};
use crate::operation::{BASE, Operation};
use crate::pattern::PathPattern;
use crate::spec::{
    AffinitySpec, AffinityStrength, Exposure, HandlerSpec, IdentitySpec, JwtSpec, MAX_HOLD_SECONDS,
    MAX_RETENTION_SECONDS, MAX_SESSIONS_PER_WORKER, MAX_WEBHOOK_MS, MediaSpec, Modality, OnFailure, Packing, ResumeBy,
    RoutingSpec, SecretSource, StreamServiceSpec, TelephoneSpec, TurnSpec, VariantSpec, WebhookSpec,
};

/// The longest name of a variant: a worker's name has the service's in it, too, and is a DNS label.
const MAX_VARIANT: usize = 32;

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name, `NAMESPACE/NAME` or `NAME`.
    pub name: ServiceName,
    /// The name under which it is called, in lower case; `None` for any.
    pub host: Option<String>,
    /// Where its routes are; the first is its own, further ones are aliases.
    pub paths: Vec<PathPattern>,
    /// Which media it takes part in.
    pub modality: Modality,
    /// What answers.
    pub handler: HandlerSpec,
    /// Sessions that one worker takes.
    pub sessions_per_worker: NonZeroU32,
    /// What is allowed, over all workers.
    pub limits: Limits,
    /// Who is calling.
    pub identity: Identity,
    /// How long a context is kept after its session.
    pub retention: Duration,
    /// Who gets it back.
    pub resume_by: ResumeBy,
    /// Telephone calls.
    pub telephone: TelephoneSpec,
    /// Which addresses clients are told to send media to.
    pub exposure: Exposure,
    /// The STUN and TURN servers that its clients are told of; `None` where its workers know.
    pub ice: Option<Ice>,
    /// Which sessions belong together.
    pub affinity: Affinity,
    /// Whether sessions gather or scatter.
    pub packing: Packing,
    /// Other versions for some users; their weights are 100 together at most.
    pub variants: Vec<Variant>,
    /// How long a call is held while no worker has a place for it.
    pub offer_hold: Duration,
    /// Workers that are made at most as calls come; `None` where nobody makes any: in files, and where somebody else says how many.
    pub grows_to: Option<u32>,
    /// What runs it, and how many of those: for an operator.
    pub operation: Arc<Operation>,
}

/// The STUN and TURN servers of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Ice {
    /// As they stand.
    pub fixed: Vec<IceServer>,
    /// With credentials that are made for each client.
    pub turn: Option<SharedTurn>,
}

/// TURN servers, and where the secret is that they know.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedTurn {
    /// `turn:` or `turns:` URLs.
    pub urls: Vec<IceUrl>,
    /// Where the secret is.
    pub secret: SecretSource,
    /// How long credentials are good.
    pub ttl: Duration,
}

/// How a service learns who is calling.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Where a user id comes from: the first that names one.
    pub user_id_from: Vec<IdentitySource>,
    /// Whether a call without a verified user is taken.
    pub demand: IdentityDemand,
    /// What is kept of metadata.
    pub metadata: MetadataLimits,
    /// Tokens that prove a user.
    pub tokens: Option<Tokens>,
    /// Who is asked.
    pub webhook: Option<Webhook>,
}

/// Whether a caller has to be known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdentityDemand {
    /// Anybody may call; a token that is shown has to be a good one.
    #[default]
    Optional,
    /// Only verified users may.
    Verified,
}

/// Where a user id may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// A claim of a verified token (`jwt:sub`).
    Claim(String),
    /// What the client says (`metadata:KEY`, `header:NAME`).
    Said(UserIdSource),
}

impl FromStr for IdentitySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            // RFC 7519 leaves names open; collision-resistant ones are URLs.
            Some(("jwt", claim)) if (1..=128).contains(&claim.len()) && claim.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Self::Claim(claim.to_owned()))
            }
            Some(("jwt", _)) => Err("needs a claim's name after jwt:".to_owned()),
            Some(("metadata" | "header", _)) => text.parse().map(Self::Said).map_err(|error| error.to_string()),
            _ => Err("a user id source must be jwt:CLAIM, metadata:KEY or header:NAME".to_owned()),
        }
    }
}

impl fmt::Display for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(name) => write!(f, "jwt:{name}"),
            Self::Said(source) => source.fmt(f),
        }
    }
}

/// Tokens that prove a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// `iss` has to be this.
    pub issuer: Option<String>,
    /// `aud` has to be this, or to have it.
    pub audience: Option<String>,
    /// What verifies them.
    pub keys: KeySource,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A document of the issuer, at this URL.
    Jwks(String),
    /// A public key in PEM.
    Pem(String),
    /// A secret that is shared with the issuer.
    Secret(SecretSource),
}

/// Who is asked whether a call is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where.
    pub url: String,
    /// How long it may take.
    pub timeout: Duration,
    /// What happens when it says neither.
    pub on_failure: OnFailure,
}

/// Which sessions belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Affinity {
    /// None.
    #[default]
    Session,
    /// Those of a user.
    User(Strength),
    /// Those with the same value at a top-level key of their metadata.
    Metadata(String, Strength),
    /// Those with the same value of a parameter of their path.
    Path(String, Strength),
}

/// How much it matters that sessions meet.
pub type Strength = AffinityStrength;

/// Another version of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Percent of the users.
    pub weight: u8,
}

impl Service {
    /// Checks a specification.
    ///
    /// # Errors
    /// Every mistake, with the key below `spec`.
    pub fn new(name: ServiceName, spec: StreamServiceSpec) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let operation = Arc::new(Operation::new(&spec, &mut mistakes));
        let paths = paths(&name, &spec, &mut mistakes);
        let host = spec.host.as_deref().and_then(|host| mistakes.check("spec.host", checked_host(host)));
        if spec.handler.name.is_empty() {
            mistakes.push("spec.handler.name", "a service needs a handler");
        }
        let sessions = spec.workers.sessions_per_worker;
        at_most("spec.workers.sessionsPerWorker", sessions.get(), MAX_SESSIONS_PER_WORKER, &mut mistakes);
        let identity = identity(spec.identity, &mut mistakes);
        let retention = spec.context.retention_seconds;
        at_most("spec.context.retentionSeconds", retention, MAX_RETENTION_SECONDS, &mut mistakes);
        let exposure = spec.media.exposure;
        let ice = checked_ice(spec.media, &mut mistakes);
        let RoutingSpec { affinity, packing, variants, offer_hold_seconds } = spec.routing;
        let affinity = checked_affinity(&affinity, paths.first(), &mut mistakes);
        let variants = checked_variants(variants, &mut mistakes);
        at_most("spec.routing.offerHoldSeconds", offer_hold_seconds, MAX_HOLD_SECONDS, &mut mistakes);
        mistakes.or(Self {
            name,
            host,
            paths,
            modality: spec.modality,
            handler: spec.handler,
            sessions_per_worker: sessions,
            limits: Limits::from(&spec.limits),
            identity,
            retention: Duration::from_secs(retention.into()),
            resume_by: spec.context.resume_by,
            telephone: spec.telephone,
            exposure,
            ice,
            affinity,
            packing,
            variants,
            offer_hold: Duration::from_secs(offer_hold_seconds.into()),
            grows_to: None,
            operation,
        })
    }

    /// Whether calls are served alike: all is the same but what only an operator obeys. That more workers come, calls notice.
    #[must_use]
    pub fn serves_as(&self, other: &Self) -> bool {
        let operation = other.operation.clone();
        self.operation == operation && self == other
            || *self == Self { operation: self.operation.clone(), ..other.clone() }
    }

    /// What of it is obeyed where calls are taken: neither what its handler is told nor how it is run, which may be most of it.
    #[must_use]
    pub fn without_operation(mut self) -> Self {
        self.handler.config = serde_json::Value::Null;
        self.operation = Arc::default();
        self
    }

    /// Whether a worker that drains is empty in some known time: drains are bounded, or sessions are.
    #[must_use]
    pub fn has_bounded_drains(&self) -> bool {
        self.operation.autoscaling.max_drain.is_some() || self.limits.time_limit.is_some()
    }
}

pub(crate) fn at_most<N: PartialOrd + fmt::Display>(key: &str, value: N, most: N, mistakes: &mut Mistakes) {
    if value > most {
        mistakes.push(key, format!("{value} is more than {most}"));
    }
}

fn paths(name: &ServiceName, spec: &StreamServiceSpec, mistakes: &mut Mistakes) -> Vec<PathPattern> {
    // A name is lower-case letters, digits and hyphens: a path of one or two segments. It may still be that of a route.
    let own = spec.path.clone().or_else(|| mistakes.check("spec.path", format!("/{name}").parse()));
    let aliases = spec.aliases.iter().enumerate();
    let aliases =
        aliases.filter_map(|(n, alias)| mistakes.check(format!("spec.aliases[{n}]"), PathPattern::try_from(alias)));
    let aliases: Vec<_> = aliases.collect();
    own.into_iter().chain(aliases).collect()
}

/// A DNS name (RFC 1123) in lower case, as `Host` is compared.
fn checked_host(text: &str) -> Result<String, &'static str> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a host is a DNS name without a port")
    }
}

fn identity(spec: IdentitySpec, mistakes: &mut Mistakes) -> Identity {
    let IdentitySpec { user_id_from, required, metadata, jwt, webhook } = spec;
    let sources = user_id_from.iter().enumerate();
    let user_id_from: Vec<IdentitySource> = sources
        .filter_map(|(n, text)| mistakes.check(format!("spec.identity.userIdFrom[{n}]"), text.parse()))
        .collect();
    let proves = user_id_from.iter().any(|source| matches!(source, IdentitySource::Claim(_)));
    let demand = match (required, &jwt) {
        (false, _) => IdentityDemand::Optional,
        (true, Some(_)) if proves => IdentityDemand::Verified,
        (true, Some(_)) => {
            mistakes
                .push("spec.identity.userIdFrom", "identity is required, and no jwt:CLAIM is named to take it from");
            IdentityDemand::Verified
        }
        (true, None) => {
            mistakes.push("spec.identity.jwt", "identity is required, and nothing says how it is proved");
            IdentityDemand::Verified
        }
    };
    Identity {
        user_id_from,
        demand,
        metadata: metadata.limits("spec.identity.metadata", mistakes),
        tokens: jwt.and_then(|jwt| tokens(jwt, mistakes)),
        webhook: webhook.map(|webhook| checked_webhook(webhook, mistakes)),
    }
}

fn tokens(jwt: JwtSpec, mistakes: &mut Mistakes) -> Option<Tokens> {
    let JwtSpec { issuer, audience, jwks_url, public_key, secret } = jwt;
    let keys = match (jwks_url, public_key, secret) {
        (Some(url), None, None) => {
            mistakes.check("spec.identity.jwt.jwksUrl", checked_url(&url))?;
            KeySource::Jwks(url)
        }
        (None, Some(pem), None) => KeySource::Pem(pem),
        (None, None, Some(secret)) => KeySource::Secret(secret),
        (None, None, None) => {
            mistakes.push("spec.identity.jwt", "one of jwksUrl, publicKey and secret is needed");
            return None;
        }
        _ => {
            mistakes.push("spec.identity.jwt", "only one of jwksUrl, publicKey and secret may be given");
            return None;
        }
    };
    Some(Tokens { issuer, audience, keys })
}

fn checked_webhook(spec: WebhookSpec, mistakes: &mut Mistakes) -> Webhook {
    let WebhookSpec { url, timeout_ms, on_failure } = spec;
    mistakes.check("spec.identity.webhook.url", checked_url(&url));
    at_most("spec.identity.webhook.timeoutMs", timeout_ms.get(), MAX_WEBHOOK_MS, mistakes);
    Webhook { url, timeout: Duration::from_millis(timeout_ms.get().into()), on_failure }
}

/// The form is looked at here; whether anybody answers is found out when it is asked.
fn checked_url(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if authority.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be a URL that begins with https:// or http://");
    }
    if authority.contains('@') { Err("must not hold a user or a password") } else { Ok(()) }
}

fn checked_ice(spec: MediaSpec, mistakes: &mut Mistakes) -> Option<Ice> {
    let MediaSpec { exposure: _, ice_servers: fixed, turn } = spec;
    check_servers("spec.media.iceServers", &fixed, mistakes);
    let TurnSpec { urls, secret, ttl_seconds } = turn;
    let ttl = check_turn("spec.media.turn", &urls, secret.as_ref(), ttl_seconds, mistakes);
    let turn = ttl.zip(secret).map(|(ttl, secret)| SharedTurn { urls, secret, ttl });
    (!fixed.is_empty() || turn.is_some()).then_some(Ice { fixed, turn })
}

fn checked_affinity(spec: &AffinitySpec, path: Option<&PathPattern>, mistakes: &mut Mistakes) -> Affinity {
    const KEY: &str = "spec.routing.affinity.by";
    let AffinitySpec { by, strength } = spec;
    match by.split_once(':').unwrap_or((by, "")) {
        ("session", "") => Affinity::Session,
        ("user", "") => Affinity::User(*strength),
        ("metadata", key) if !key.is_empty() => {
            mistakes.check(KEY, format!("metadata:{key}").parse::<UserIdSource>());
            Affinity::Metadata(key.to_owned(), *strength)
        }
        ("path", name) if !name.is_empty() => {
            if path.is_some_and(|path| path.parameters().all(|known| known != name)) {
                mistakes.push(KEY, format!("the path has no parameter {{{name}}}"));
            }
            Affinity::Path(name.to_owned(), *strength)
        }
        _ => {
            mistakes.push(KEY, "must be session, user, metadata:KEY or path:PARAMETER");
            Affinity::Session
        }
    }
}

fn checked_variants(specs: Vec<VariantSpec>, mistakes: &mut Mistakes) -> Vec<Variant> {
    let mut variants: Vec<Variant> = Vec::new();
    for (n, VariantSpec { name, weight, workers: _ }) in specs.into_iter().enumerate() {
        let key = format!("spec.routing.variants[{n}].name");
        if name.contains('/') || name.parse::<ServiceName>().is_err() {
            mistakes.push(&*key, "a variant's name is a DNS label");
        } else if name.len() > MAX_VARIANT {
            mistakes.push(&*key, format!("a variant's name has at most {MAX_VARIANT} characters"));
        }
        if name == BASE {
            mistakes.push(&*key, format!("{BASE} is the service itself"));
        }
        if variants.iter().any(|variant| variant.name == name) {
            mistakes.push(&*key, format!("{name} is the name of another variant already"));
        }
        variants.push(Variant { name, weight });
    }
    let sum: u32 = variants.iter().map(|variant| u32::from(variant.weight)).sum();
    if sum > 100 {
        mistakes.push("spec.routing.variants", format!("the weights are {sum} % together"));
    }
    variants
}

#[cfg(test)]
pub(crate) mod tests;
