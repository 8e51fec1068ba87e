//! The control routes of a service, from outside.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;
use streamfleet_client::{ServiceUrl, SessionId};

use super::session::Session;

/// A request is answered within 5 s, also one that waits for a session's end.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer: a page of a router's list has 200 sessions, and a worker shows all of its own at once.
const MAX_ANSWER: usize = 64 << 20;
/// Pages of a list: beyond this something else answers than a router.
const MAX_PAGES: usize = 10_000;

/// How rustls begins what it says of a server's certificate that does not hold.
const BAD_CERTIFICATE: &str = "invalid peer certificate: ";

/// Where whoever has none finds one.
const WHERE_TOKENS_ARE: &str = "a server prints one at its start; in a cluster it is admin-token in the Secret that \
     fleet.existingSecret names, or in NAME-fleet of a release called NAME";

/// What went wrong, in words for whoever has typed the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("cannot start: {0}")]
    Local(String),
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error(
        "{url} shows a certificate that is not trusted here ({reason}): --insecure takes any, such as the self-signed one of \
         `streamfleet fleet --tls`; for any other trust its authority on this machine"
    )]
    Untrusted { url: String, reason: String },
    #[error("the router cannot reach its store: {}", .0.without_store())]
    NoStore(Asked),
    #[error("a token is needed: --token or STREAMFLEET_ADMIN_TOKEN ({WHERE_TOKENS_ARE})")]
    NoToken,
    #[error("the server does not take this token: --token or STREAMFLEET_ADMIN_TOKEN ({WHERE_TOKENS_ARE})")]
    Unauthorized,
    #[error(
        "the server does not answer control requests by this name: ask at an address or at localhost, or add it to http.hosts"
    )]
    Forbidden,
    #[error("there is no such session")]
    NoSession,
    #[error("there is no service at {0}")]
    NoService(String),
    #[error("the server refused: {error} ({status})")]
    Refused { status: StatusCode, error: String },
    #[error("{url} is not a Streamfleet server: {reason}")]
    NotAnAnswer { url: String, reason: String },
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    All,
    One,
}

impl Asked {
    /// What follows for whoever asked it of a router without its store. Workers know single sessions.
    const fn without_store(self) -> &'static str {
        match self {
            Self::All => "sessions go on, and can be listed when it is back",
            Self::One => "and no worker that answers says that it has the session",
        }
    }
}

impl Problem {
    /// Whether another try may do better.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoStore(_) => true,
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            // A proxy's own page, while it has nobody behind it.
            Self::NotAnAnswer { .. } => true,
            Self::Local(_)
            | Self::NoToken
            | Self::Untrusted { .. }
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NoSession
            | Self::NoService(_) => false,
        }
    }
}

/// Which sessions are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) user: Option<String>,
    pub(crate) state: Option<&'static str>,
}

impl Filter {
    fn takes(&self, session: &Session) -> bool {
        self.user.as_ref().is_none_or(|user| session.user.as_ref() == Some(user))
            && self.state.is_none_or(|state| session.state == state)
    }
}

/// What has become of a session that was told to end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    /// It is over.
    Over { reason: String, raw: Value },
    /// It will be.
    OnItsWay { raw: Value },
}

/// The control routes of one service.
#[derive(Debug)]
pub(crate) struct Control {
    http: Client,
    sessions: Url,
    service: String,
    token: String,
}

struct Answer {
    status: StatusCode,
    body: Value,
}

impl Control {
    pub(crate) fn new(service: &ServiceUrl, token: &str, insecure: bool) -> Result<Self, Problem> {
        let local = |error: &dyn std::error::Error| Problem::Local(error.to_string());
        let http = Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(insecure)
            .user_agent(concat!("streamfleet-sessions/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| local(&error))?;
        let sessions = Url::parse(&format!("{service}/sessions")).map_err(|error| local(&error))?;
        Ok(Self { http, sessions, service: service.to_string(), token: token.to_owned() })
    }

    /// All sessions, page by page. A worker that stands alone lists all that it has, whatever is asked for.
    pub(crate) async fn list(&self, filter: &Filter) -> Result<Vec<Session>, Problem> {
        let mut found = Vec::new();
        let mut asked = HashSet::new();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut url = self.sessions.clone();
            {
                let mut query = url.query_pairs_mut();
                let user = filter.user.as_deref().map(|user| ("user", user));
                let state = filter.state.map(|state| ("state", state));
                let after = after.as_deref().map(|after| ("after", after));
                query.extend_pairs([user, state, after].into_iter().flatten());
            }
            let answer = self.ask(Method::GET, url).await?;
            let Value::Array(sessions) = answer.body["sessions"].clone() else {
                return Err(self.not_an_answer("it shows no list of sessions"));
            };
            found.extend(sessions.into_iter().filter_map(Session::read).filter(|session| filter.takes(session)));
            match answer.body["next"].as_str() {
                None => return Ok(found),
                // A list that begins again has no end.
                Some(next) if !asked.insert(next.to_owned()) => break,
                Some(next) => after = Some(next.to_owned()),
            }
        }
        Err(self.not_an_answer("its list of sessions has no end"))
    }

    pub(crate) async fn show(&self, id: &SessionId) -> Result<Value, Problem> {
        Ok(self.ask(Method::GET, self.one(id)).await?.body)
    }

    pub(crate) async fn end(&self, id: &SessionId) -> Result<Ended, Problem> {
        let Answer { status, body } = self.ask(Method::DELETE, self.one(id)).await?;
        if status == StatusCode::ACCEPTED {
            return Ok(Ended::OnItsWay { raw: body });
        }
        match body["reason"].as_str() {
            Some(reason) => Ok(Ended::Over { reason: reason.to_owned(), raw: body }),
            None => Err(self.not_an_answer("it does not say what has become of the session")),
        }
    }

    fn one(&self, id: &SessionId) -> Url {
        let mut url = self.sessions.clone();
        // An id's characters need no escape in a path (RFC 3986, 3.3).
        url.set_path(&format!("{}/{id}", self.sessions.path()));
        url
    }

    fn not_an_answer(&self, reason: &str) -> Problem {
        Problem::NotAnAnswer { url: self.service.clone(), reason: reason.to_owned() }
    }

    async fn ask(&self, method: Method, url: Url) -> Result<Answer, Problem> {
        let asked = if url.path() == self.sessions.path() { Asked::All } else { Asked::One };
        let unreachable = |error: reqwest::Error| {
            let (url, reason) = (self.service.clone(), cause(&error.without_url()));
            match reason.strip_prefix(BAD_CERTIFICATE) {
                Some(why) => Problem::Untrusted { url, reason: why.to_owned() },
                None => Problem::Unreachable { url, reason },
            }
        };
        let request = self.http.request(method, url).bearer_auth(&self.token);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(self.not_an_answer("its answer has no end"));
            }
            body.extend_from_slice(&chunk);
        }
        let Ok(body) = serde_json::from_slice::<Value>(&body) else {
            return Err(self.not_an_answer(&format!("it answered {status}, and no JSON")));
        };
        if status.is_success() {
            return Ok(Answer { status, body });
        }
        let error = body["meta"]["error"].as_str().unwrap_or_default();
        Err(match (status, error) {
            (StatusCode::UNAUTHORIZED, _) => Problem::Unauthorized,
            (StatusCode::FORBIDDEN, _) => Problem::Forbidden,
            (StatusCode::NOT_FOUND, "not_found") if asked == Asked::One => Problem::NoSession,
            (StatusCode::NOT_FOUND, _) => Problem::NoService(self.service.clone()),
            (StatusCode::BAD_GATEWAY, "upstream_unavailable") => Problem::NoStore(asked),
            (status, "") => self.not_an_answer(&format!("it answered {status}")),
            (status, error) => Problem::Refused { status, error: error.to_owned() },
        })
    }
}

/// The innermost cause: "Connection refused" rather than "error sending request".
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::future::IntoFuture as _;

    use axum::extract::RawQuery;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;
    use streamfleet_process::serve::{Listener, ServeLimits};
    use streamfleet_process::tls::{Certificate, server_config};
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A router's side: two pages, one session to end.
    async fn served(routes: Router) -> (Control, JoinSet<std::io::Result<()>>) {
        streamfleet_process::crypto::install();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/echo", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(axum::serve(listener, Router::new().nest("/echo", routes)).into_future());
        (Control::new(&url.parse().unwrap(), "secret", false).unwrap(), tasks)
    }

    fn failed(status: u16, error: &str) -> impl IntoResponse {
        let status = StatusCode::from_u16(status).unwrap();
        (status, Json(json!({ "status": "failed", "meta": { "error": error } })))
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end() {
        let pages = get(async |RawQuery(query): RawQuery, headers: HeaderMap| {
            assert_eq!(headers["authorization"], "Bearer secret");
            let session = |id: &str, user: &str| json!({ "id": id, "state": "active", "user_id": user });
            Json(match query.as_deref() {
                Some("user=m+a&state=active") => {
                    json!({ "sessions": [session("a", "m a"), session("b", "other")], "next": "b" })
                }
                Some("user=m+a&state=active&after=b") => json!({ "sessions": [session("c", "m a"), 7] }),
                other => panic!("{other:?}"),
            })
        });
        let (control, _tasks) = served(Router::new().route("/sessions", pages)).await;
        let filter = Filter { user: Some("m a".to_owned()), state: Some("active") };
        let found: Vec<String> = control.list(&filter).await.unwrap().into_iter().map(|session| session.id).collect();
        assert_eq!(found, ["a", "c"], "what a worker does not filter is filtered here");
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_none() {
        let again = get(async || Json(json!({ "sessions": [], "next": "a" })));
        let (control, _tasks) = served(Router::new().route("/sessions", again)).await;
        let problem = control.list(&Filter::default()).await.unwrap_err();
        assert!(problem.to_string().contains("has no end"), "{problem}");
    }

    #[tokio::test]
    async fn what_becomes_of_a_session_is_told() {
        let routes = Router::new()
            .route(
                "/sessions/over",
                axum::routing::delete(async || Json(json!({ "status": "success", "reason": "ended_by_control" }))),
            )
            .route(
                "/sessions/slow",
                axum::routing::delete(async || (StatusCode::ACCEPTED, Json(json!({ "status": "ending" })))),
            )
            .route("/sessions/gone", axum::routing::delete(async || failed(404, "not_found")))
            .route("/sessions/away", axum::routing::delete(async || failed(502, "upstream_unavailable")))
            .route("/sessions/mine", axum::routing::delete(async || failed(401, "unauthorized")))
            .route("/sessions/page", axum::routing::delete(async || "<html>"));
        let (control, _tasks) = served(routes).await;
        let end = async |id: &str| control.end(&id.parse().unwrap()).await;
        assert!(matches!(end("over").await, Ok(Ended::Over { reason, .. }) if reason == "ended_by_control"));
        assert!(matches!(end("slow").await, Ok(Ended::OnItsWay { .. })));
        assert!(matches!(end("gone").await, Err(Problem::NoSession)));
        assert!(matches!(end("mine").await, Err(Problem::Unauthorized)));
        let away = end("away").await.unwrap_err();
        assert!(away.may_pass() && away.to_string().starts_with("the router cannot reach its store: and no"), "{away}");
        assert!(matches!(end("page").await, Err(Problem::NotAnAnswer { .. })));
    }

    #[tokio::test]
    async fn a_router_without_its_store_says_so() {
        let away = get(async || failed(502, "upstream_unavailable"));
        let (control, _tasks) = served(Router::new().route("/sessions", away)).await;
        let problem = control.list(&Filter::default()).await.unwrap_err();
        assert!(problem.may_pass());
        assert_eq!(
            problem.to_string(),
            "the router cannot reach its store: sessions go on, and can be listed when it is back"
        );
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_trusted_is_told_with_what_takes_it() {
        streamfleet_process::crypto::install();
        let made = Certificate::SelfSigned { names: vec!["127.0.0.1".to_owned()] };
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.with_tls(server_config(&made).unwrap());
        let url: ServiceUrl = format!("https://{}/echo", listener.address()).parse().unwrap();
        let routes = Router::new().route("/echo/sessions", get(async || Json(json!({ "sessions": [] }))));
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.serve(routes, ServeLimits::default(), CancellationToken::new(), Duration::ZERO));
        let list = async |insecure| Control::new(&url, "secret", insecure).unwrap().list(&Filter::default()).await;
        let problem = list(false).await.unwrap_err();
        assert!(matches!(problem, Problem::Untrusted { .. }) && !problem.may_pass(), "{problem}");
        assert!(problem.to_string().contains("--insecure"), "{problem}");
        assert_eq!(list(true).await.unwrap(), []);
    }

    #[tokio::test]
    async fn whoever_is_not_there_is_named() {
        let (control, mut tasks) = served(Router::new()).await;
        tasks.shutdown().await;
        let problem = control.list(&Filter::default()).await.unwrap_err();
        assert!(problem.may_pass() && problem.to_string().contains("onnection refused"), "{problem}");
    }
}
