//! `{p}/telephone/incoming` and `{p}/telephone/handler`: calls that a telephone company (Twilio) puts through.
//!
//! The company asks what to do with a call and is answered with TwiML: say something, connect the call to a media stream
//! at the second route, say something. The TwiML has an `action`: when the stream is over the company asks again, and a
//! call whose session lives, because only its socket broke, is put through to it once more.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{OriginalUri, Request, State};
use axum::http::{Extensions, HeaderMap, Uri, Version};
use axum::response::Response;
use parking_lot::Mutex;
use streamfleet_session::ServiceKey;
use streamfleet_session::wire::Failure;
use streamfleet_socket::hello::Proof;
use streamfleet_socket::protocol::{
    CallResume, CallSid, CallStart, PARAMETER_RESUME, PARAMETER_SESSION, PARAMETER_TOKEN,
};
use streamfleet_socket::telephone::{
    CallLeg, CallNonce, CallTokenKey, Forwarded, InvalidCallToken, MAX_PARAMETER, PublicOrigin, RETURN, RedeemedTokens,
    Scheme, TwilioToken, Twiml, Visit, form_parameters, hang_up, returning,
};

use super::body::{self, BodyFault};
use super::offer::utf8;
use super::origin::{Strange, requested_host};
use super::socket::{self, Dialect};
use super::{Door, reply};

/// The last part of this route, and that of the media stream's.
const INCOMING: &str = "incoming";
const HANDLER: &str = "handler";
/// The header with Twilio's signature.
const SIGNATURE: &str = "x-twilio-signature";
/// What the company says about a call that becomes its session's metadata.
const ABOUT: [&str; 3] = ["From", "To", "CallSid"];

/// How a service takes telephone calls.
#[derive(Debug, Clone)]
pub struct Telephone {
    /// Said before the call is put through; nothing if empty.
    pub before: String,
    /// Said when the conversation is over; nothing if empty.
    pub after: String,
    /// Whom calls are taken from.
    pub callers: Callers,
    /// Whether a proxy in front says how the world reaches us.
    pub proxy: Proxy,
}

impl Default for Telephone {
    /// FastRTC's words, no signatures, no proxy.
    fn default() -> Self {
        Self {
            before: "Connecting to the AI assistant.".to_owned(),
            after: "The call has been disconnected.".to_owned(),
            callers: Callers::Anybody,
            proxy: Proxy::None,
        }
    }
}

/// Whom calls are taken from.
#[derive(Clone)]
pub enum Callers {
    /// Whoever knows the routes.
    Anybody,
    /// The telephone company that has this auth token, and calls that it puts through.
    Signed(Arc<str>),
}

/// The token does not show.
impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anybody => "Anybody",
            Self::Signed(_) => "Signed(…)",
        })
    }
}

/// Whether `X-Forwarded-Proto`, `-Host` and `-Port` are believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Proxy {
    /// No: anybody could write them.
    #[default]
    None,
    /// Yes: a proxy writes them, whatever its client says.
    Trusted,
}

/// What a service remembers of its calls besides their sessions.
pub(super) struct Switchboard {
    /// The company's signature; `None` if nobody needs one.
    signature: Option<TwilioToken>,
    pub(super) key: CallTokenKey,
    redeemed: Mutex<RedeemedTokens>,
}

impl Switchboard {
    /// Processes that have the same auth token take each other's calls. Without one the key is this process's own, of
    /// these `random` bytes.
    pub(super) fn new(service: &str, callers: &Callers, random: [u8; 32]) -> Self {
        let secret = match callers {
            Callers::Anybody => random.iter().map(|byte| format!("{byte:02x}")).collect(),
            Callers::Signed(token) => token.to_string(),
        };
        // A call that was let in to one service is no call of another.
        Self::with_key(callers, CallTokenKey::new(&format!("{service}\n{secret}")))
    }

    /// Of a fleet: every worker takes the calls that any other one has put through.
    pub(super) fn of_fleet(callers: &Callers, key: &ServiceKey) -> Self {
        Self::with_key(callers, CallTokenKey::of_service(key))
    }

    fn with_key(callers: &Callers, key: CallTokenKey) -> Self {
        let signature = match callers {
            Callers::Anybody => None,
            Callers::Signed(token) => Some(TwilioToken::new(token)),
        };
        Self { signature, key, redeemed: Mutex::default() }
    }

    /// Whose call it is, of which a media stream says that it is part, if `rate` lets its source in.
    ///
    /// All streams come from the company's few addresses. One that a signed request has led here is no attempt of anybody's
    /// and is not counted; where nobody signs, everybody is, and before a token is used up.
    pub(super) fn admit(
        &self,
        start: &CallStart,
        rate: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Proof, Failure> {
        if self.signature.is_none() {
            rate()?;
            return Ok(self.redeem(start).unwrap_or(Proof::None));
        }
        self.redeem(start).or_else(|error| {
            tracing::debug!(%error, "a media stream was refused");
            rate()?;
            Err(Failure::Forbidden)
        })
    }

    fn redeem(&self, start: &CallStart) -> Result<Proof, InvalidCallToken> {
        let (Some(sid), Some(token)) = (&start.call_sid, &start.token) else { return Err(InvalidCallToken::Invalid) };
        let (nonce, visit) = self.redeemed.lock().redeem(&self.key, sid.as_str(), token, unix_time())?;
        Ok(Proof::Ours(CallLeg { sid: sid.clone(), nonce }, visit))
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

pub(super) async fn handler(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    extensions: Extensions,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    socket::accept(door, headers, &extensions, upgrade, Dialect::Telephone)
}

/// Why a telephone company gets no TwiML.
#[derive(Debug)]
enum Refused {
    Body(BodyFault),
    /// Nobody can say under which name the world reaches us.
    Host,
    Failure(Failure),
}

impl Refused {
    fn label(&self) -> &'static str {
        match self {
            Self::Body(fault) => fault.as_str(),
            Self::Host => "invalid_host",
            Self::Failure(failure) => failure.as_str(),
        }
    }

    fn response(&self) -> Response {
        match self {
            Self::Body(fault) => reply::body_fault(*fault),
            Self::Host => reply::invalid_host(),
            Self::Failure(failure) => reply::failure(failure),
        }
    }
}

pub(super) async fn incoming(
    State(door): State<Arc<Door>>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let answer = match body::read(body).await {
        Ok(body) => door.incoming(&uri, parts.version, &parts.headers, &form_parameters(&body)),
        Err(fault) => Err(Refused::Body(fault)),
    };
    door.api.record.incoming_call(answer.as_ref().map_or_else(Refused::label, |answer| answer.label));
    answer.map_or_else(|refused| refused.response(), |answer| reply::twiml(answer.xml))
}

/// What TwiML says of a call that it connects.
struct Through<'a> {
    /// As what it comes back; a request that names no call does not.
    leg: Option<&'a CallLeg>,
    /// What its stream shows.
    token: Option<String>,
    /// The session that it has already.
    session: Option<&'a CallResume>,
}

/// TwiML, and what it does.
struct Answer {
    label: &'static str,
    xml: String,
}

impl Door {
    fn incoming(
        &self,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
        form: &[(String, String)],
    ) -> Result<Answer, Refused> {
        let host = requested_host(version, headers, uri).map_err(|strange| match strange {
            Strange::Malformed | Strange::Host | Strange::Origin => Refused::Host,
        })?;
        // Routers say how the world reaches the fleet: what they pass on they have judged.
        let proxy = if self.member.is_some() { Proxy::Trusted } else { self.service.telephone.proxy };
        let told = match proxy {
            Proxy::None => Forwarded { host: Some(host.as_str()), ..Forwarded::default() },
            Proxy::Trusted => Forwarded {
                proto: forwarded(headers, "x-forwarded-proto")?,
                forwarded_host: forwarded(headers, "x-forwarded-host")?,
                port: forwarded(headers, "x-forwarded-port")?,
                host: Some(host.as_str()),
            },
        };
        self.check_signature(told, uri, headers, form)?;
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let call = field("CallSid").and_then(CallSid::parse);
        let Some(shown) = uri.query().and_then(returning) else { return self.put_through(told, uri, form, call) };
        let leg = call.and_then(|sid| {
            let nonce = self.switchboard.key.verify_return(sid.as_str(), shown)?;
            Some(CallLeg { sid, nonce })
        });
        self.come_back(told, uri, form, leg.ok_or(Refused::Failure(Failure::Forbidden))?)
    }

    /// Whether the request is the company's. Where nobody says how it was made, it may have been with TLS or without: the
    /// signature fits one of the two, and nobody else can have made either.
    fn check_signature(
        &self,
        told: Forwarded<'_>,
        uri: &Uri,
        headers: &HeaderMap,
        form: &[(String, String)],
    ) -> Result<(), Refused> {
        let Some(key) = &self.switchboard.signature else { return Ok(()) };
        let signature = utf8(headers, SIGNATURE).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        for scheme in [Scheme::Https, Scheme::Http] {
            let origin = PublicOrigin::parse(told, scheme).map_err(|_| Refused::Host)?;
            if key.verify(&origin.url(path), form, signature).is_ok() {
                return Ok(());
            }
        }
        Err(Refused::Failure(Failure::Forbidden))
    }

    /// A new call.
    fn put_through(
        &self,
        told: Forwarded<'_>,
        uri: &Uri,
        form: &[(String, String)],
        call: Option<CallSid>,
    ) -> Result<Answer, Refused> {
        // The company has another number to ask for a call that nobody takes.
        if self.admission.is_draining() {
            return Err(Refused::Failure(Failure::Draining));
        }
        let leg = call.map(|sid| CallLeg { sid, nonce: CallNonce::from_random(rand::random()) });
        let token =
            leg.as_ref().map(|leg| self.switchboard.key.issue(leg.sid.as_str(), leg.nonce, Visit::First, unix_time()));
        let through = Through { leg: leg.as_ref(), token, session: None };
        let xml = self.connect(&self.service.telephone.before, told, uri, form, through)?;
        Ok(Answer { label: "connected", xml })
    }

    /// A call whose stream is over: its conversation goes on if it is not.
    fn come_back(
        &self,
        told: Forwarded<'_>,
        uri: &Uri,
        form: &[(String, String)],
        leg: CallLeg,
    ) -> Result<Answer, Refused> {
        match self.api.host.call(&self.service.name, &leg) {
            Some(session) => {
                // The token is another one, because the first is used up; the call stays the one that it was.
                let nonce = CallNonce::from_random(rand::random());
                let token = Some(self.switchboard.key.issue(leg.sid.as_str(), nonce, Visit::Return, unix_time()));
                let through = Through { leg: Some(&leg), token, session: Some(&session) };
                let xml = self.connect("", told, uri, form, through)?;
                Ok(Answer { label: "connected_again", xml })
            }
            None => Ok(Answer { label: "hung_up", xml: hang_up(&self.service.telephone.after) }),
        }
    }

    fn connect(
        &self,
        before: &str,
        told: Forwarded<'_>,
        uri: &Uri,
        form: &[(String, String)],
        through: Through<'_>,
    ) -> Result<String, Refused> {
        let Through { leg, token, session } = through;
        let origin = PublicOrigin::parse(told, Scheme::Https).map_err(|_| Refused::Host)?;
        let folder = uri.path().strip_suffix(INCOMING).unwrap_or_default();
        let stream_url = origin.stream_url(&format!("{folder}{HANDLER}"));
        let resume = session.map(|session| session.token.reveal());
        let mut parameters: Vec<(&str, &str)> = ABOUT
            .into_iter()
            .filter_map(|name| form.iter().find(|(key, _)| key == name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, value)| name.len() + value.chars().count() <= MAX_PARAMETER)
            .collect();
        parameters.extend(token.as_deref().map(|token| (PARAMETER_TOKEN, token)));
        if let (Some(session), Some(token)) = (session, &resume) {
            parameters.extend([(PARAMETER_SESSION, session.session.as_str()), (PARAMETER_RESUME, token.as_str())]);
        }
        // Relative to this route, by whichever name the company knows it.
        let key = &self.switchboard.key;
        let action = leg.map(|leg| format!("{INCOMING}?{RETURN}={}", key.sign_return(leg.sid.as_str(), leg.nonce)));
        let after = &self.service.telephone.after;
        let twiml =
            Twiml { before, stream_url: &stream_url, parameters: &parameters, action: action.as_deref(), after };
        // What is too long has been left out.
        twiml.to_xml().map_err(|error| {
            tracing::error!(%error, "no TwiML");
            Refused::Failure(Failure::Internal)
        })
    }
}

/// A header that a proxy writes; one that is no text names nothing.
fn forwarded<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refused> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => value.to_str().map(Some).map_err(|_| Refused::Host),
    }
}
