//! Who is calling: from a token, from what the client says, or both, in the order that the service gives.
//!
//! What is absent: fetching keys ([`crate::keyring`] does), and what follows from it ([`crate::place`], the claim).

use std::time::SystemTime;

use axum::http::HeaderMap;
use serde_json::{Map, Value};
use streamfleet_edge::headers::{bearer, cookie, utf8};
use streamfleet_identity::{Keys, TokenError, TokenPolicy, key_id, verify};
use streamfleet_service::IdentitySource;
use streamfleet_service::service::{Identity as Rules, IdentityDemand};
use streamfleet_session::wire::Failure;
use streamfleet_session::{Claims, IdentityPolicy, Metadata, UserId, UserIdSource, Verification, identify};

/// The cookie and the query parameter with a token, for what can set no header: browsers' WebSockets and event streams.
pub const ACCESS_TOKEN: &str = "access_token";

/// Who is calling.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Caller {
    /// The user, if anything names one.
    pub user: Option<UserId>,
    /// Whether a token does.
    pub verified: Verification,
    /// What the client says of itself.
    pub metadata: Metadata,
    /// What a token that holds says.
    pub claims: Map<String, Value>,
}

impl Caller {
    /// The user, if it is proved that this is who calls.
    #[must_use]
    pub fn proved(&self) -> Option<&UserId> {
        self.user.as_ref().filter(|_| self.verified.is_verified())
    }
}

/// Why somebody is not let in. None of these repeats anything of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The token proves nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token holds, and the user that it names cannot be one.
    #[error("the token names no user that could be one")]
    Claim,
    /// The service takes proven users only.
    #[error("nothing proves who is calling")]
    Nobody,
    /// The keys that would verify the token cannot be had.
    #[error("no key can be had to verify the token with")]
    NoKeys,
    /// What the client says of itself breaks a rule.
    #[error("{0}")]
    Said(String),
}

impl Unknown {
    /// A stable label for metrics and audit.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Token(error) => error.as_str(),
            Self::Claim => "claim",
            Self::Nobody => "nobody",
            Self::NoKeys => "no_keys",
            Self::Said(_) => "metadata",
        }
    }
}

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Token(_) | Unknown::Claim | Unknown::Nobody => Self::Unauthorized,
            Unknown::NoKeys => Self::UpstreamUnavailable,
            Unknown::Said(detail) => Self::InvalidMetadata { detail },
        }
    }
}

/// What a request shows.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// `access_token` of its query.
    pub query_token: Option<&'a str>,
    /// What its body says about its sender.
    pub claims: Claims<'a>,
}

impl<'a> Shown<'a> {
    /// The token: that of the header, else that of the query, else that of the cookie. A cookie comes last because the
    /// browser sends it whether its page means to or not.
    #[must_use]
    pub fn token(&self) -> Option<&'a str> {
        bearer(self.headers).or(self.query_token).or_else(|| cookie(self.headers, ACCESS_TOKEN))
    }
}

/// A service's rules, made ready for many calls.
#[derive(Debug, Clone)]
pub struct Identifier {
    /// Where user ids come from, in order.
    steps: Vec<Step>,
    demand: IdentityDemand,
    /// Reads metadata and looks for no user.
    plain: IdentityPolicy,
    /// What tokens are held against; `None` where the service takes none.
    tokens: Option<TokenPolicy>,
}

#[derive(Debug, Clone)]
enum Step {
    Claim(String),
    Said(IdentityPolicy),
}

impl Identifier {
    /// The rules of a service.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        let plain = IdentityPolicy { user_id_from: Vec::new(), metadata: rules.metadata.clone() };
        let mut steps: Vec<Step> = Vec::new();
        for source in &rules.user_id_from {
            match (source, steps.last_mut()) {
                (IdentitySource::Claim(name), _) => steps.push(Step::Claim(name.clone())),
                // Neighbours are looked up in one go: each look reads all of the metadata.
                (IdentitySource::Said(source), Some(Step::Said(policy))) => policy.user_id_from.push(source.clone()),
                (IdentitySource::Said(source), _) => {
                    steps.push(Step::Said(IdentityPolicy { user_id_from: vec![source.clone()], ..plain.clone() }));
                }
            }
        }
        let tokens = rules.tokens.as_ref().map(|tokens| TokenPolicy {
            issuer: tokens.issuer.clone(),
            audience: tokens.audience.clone(),
            ..TokenPolicy::default()
        });
        Self { steps, demand: rules.demand, plain, tokens }
    }

    /// Whether a request's token is to be looked at: only then keys are needed.
    #[must_use]
    pub fn takes_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Who calls. A token that is shown has to hold, also where none is needed: its sender believes that it counts.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn identify(&self, shown: Shown<'_>, keys: Option<&Keys>, now: SystemTime) -> Result<Caller, Unknown> {
        let claims = match (&self.tokens, shown.token()) {
            (Some(policy), Some(token)) => {
                // What is no token at all is refused with any key, and with none.
                key_id(token)?;
                Some(verify(token, keys.ok_or(Unknown::NoKeys)?, policy, now)?.claims)
            }
            _ => None,
        };
        let mut caller = self.user(shown, claims.as_ref())?;
        caller.claims = claims.unwrap_or_default();
        if self.demand == IdentityDemand::Verified && caller.proved().is_none() {
            return Err(Unknown::Nobody);
        }
        Ok(caller)
    }

    fn user(&self, shown: Shown<'_>, claims: Option<&Map<String, Value>>) -> Result<Caller, Unknown> {
        let said = |policy: &IdentityPolicy| said(shown, policy);
        for step in &self.steps {
            match step {
                Step::Claim(name) => {
                    if let Some(user) = claims.and_then(|claims| claims.get(name)).map_or(Ok(None), claimed)? {
                        let metadata = said(&self.plain)?.metadata;
                        let verified = Verification::Verified;
                        return Ok(Caller { user: Some(user), verified, metadata, claims: Map::new() });
                    }
                }
                // Where only proof counts, what a client says must not stand before it.
                Step::Said(_) if self.demand == IdentityDemand::Verified => {}
                Step::Said(policy) => {
                    let caller = said(policy)?;
                    if caller.user.is_some() {
                        return Ok(caller);
                    }
                }
            }
        }
        said(&self.plain)
    }
}

fn said(shown: Shown<'_>, policy: &IdentityPolicy) -> Result<Caller, Unknown> {
    // A header that is there and cannot be read must not be passed over: the next source would name another user.
    for source in &policy.user_id_from {
        if let UserIdSource::Header(name) = source
            && shown.headers.contains_key(name)
            && utf8(shown.headers, name).is_none()
        {
            return Err(Unknown::Said(format!("the header {name} must be UTF-8")));
        }
    }
    let identity = identify(shown.claims, |name| utf8(shown.headers, name), policy);
    let identity = identity.map_err(|error| Unknown::Said(error.to_string()))?;
    Ok(Caller { user: identity.user_id, verified: identity.verified, metadata: identity.metadata, claims: Map::new() })
}

/// The user of a claim; none if it is null or empty, as an absent one. A number is its digits, as in metadata.
fn claimed(value: &Value) -> Result<Option<UserId>, Unknown> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Number(number) if !number.is_f64() => number.to_string(),
        _ => return Err(Unknown::Claim),
    };
    text.parse().map(Some).map_err(|_| Unknown::Claim)
}

#[cfg(test)]
#[path = "identify_tests.rs"]
mod tests;
