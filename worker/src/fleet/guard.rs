//! That a request comes from a router: everybody else is told nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, OriginalUri, Request, State};
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use streamfleet_session::fleet::{
    CLIENT_HEADER, HERE_HEADER, PATH_HEADER, REFUSED_HEADER, Refused, SECRET_HEADER, USER_HEADER, VOUCHED,
    VOUCHED_HEADER, decode_user,
};
use streamfleet_session::wire::Failure;
use streamfleet_session::{AdminToken, FleetKey, ServiceKey, ServiceName, UserId};

use crate::http;

/// What the door goes by.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    /// What is shown by who asks for each service, by the path of its routes.
    keys: Arc<[(String, ServiceKey)]>,
    /// What a request shows, from here on, that a router vouches for.
    operator: HeaderValue,
}

impl Keeper {
    /// With what this worker was given, for the services that it has, and what its control routes demand.
    pub(crate) fn new<'a>(
        given: &FleetKey,
        services: impl IntoIterator<Item = &'a ServiceName>,
        token: &AdminToken,
    ) -> Self {
        let text = format!("Bearer {}", token.reveal());
        let mut operator = HeaderValue::try_from(text).expect("invariant: a token is visible ASCII characters");
        operator.set_sensitive(true);
        let keys = services.into_iter().map(|service| (format!("/{service}"), given.of_service(service))).collect();
        Self { keys, operator }
    }

    /// Whether this is shown by a router that may ask for this path: with the key of the service whose route it is, or, where it is
    /// nobody's route, of any. All keys are compared, each in the same time wherever it differs.
    fn lets_in(&self, path: &str, shown: &[u8]) -> bool {
        let is_below =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // Of `a` and `a/b` the longer one, as routes are found.
        let asked =
            self.keys.iter().map(|(prefix, _)| prefix).filter(|prefix| is_below(prefix)).max_by_key(|p| p.len());
        self.keys.iter().fold(false, |found, (prefix, key)| {
            let is_its = asked.is_none_or(|asked| asked == prefix);
            found | (key.matches(shown) & is_its)
        })
    }
}

/// Of a request that asks for what this worker has itself, and nobody else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnlyHere;

/// The user who asks, as a router has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proven(pub(crate) UserId);

/// Lets a request through that shows the key of its service, once and whole.
pub(crate) async fn guard(State(keeper): State<Keeper>, mut request: Request, next: Next) -> Response {
    let shown = {
        let mut values = request.headers().get_all(SECRET_HEADER).iter();
        let path = request.uri().path();
        matches!((values.next(), values.next()), (Some(value), None) if keeper.lets_in(path, value.as_bytes()))
    };
    if !shown {
        let mut response = http::refusal(&Failure::Forbidden);
        let stranger = HeaderValue::from_static(Refused::Stranger.as_str());
        response.headers_mut().insert(HeaderName::from_static(REFUSED_HEADER), stranger);
        return response;
    }
    // Nothing behind this door needs it, and nothing can log it then.
    request.headers_mut().remove(SECRET_HEADER);
    // What a worker says of its own address has to be true outside.
    if let Some(public) = request.headers_mut().remove(PATH_HEADER)
        && let Ok(public) = Uri::try_from(public.as_bytes())
    {
        request.extensions_mut().insert(OriginalUri(public));
    }
    // Its client is whom bounds and audit go by; the router would be one client of them all. Routers write the header anew.
    let client = request.headers().get(CLIENT_HEADER).and_then(|value| value.to_str().ok());
    if let Some(client) = client.and_then(|client| client.parse::<IpAddr>().ok()) {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(client, 0)));
    }
    if request.headers_mut().remove(HERE_HEADER).is_some() {
        request.extensions_mut().insert(OnlyHere);
    }
    if let Some(user) = request.headers_mut().remove(USER_HEADER).and_then(|value| decode_user(value.as_bytes())) {
        request.extensions_mut().insert(Proven(user));
    }
    if request.headers_mut().remove(VOUCHED_HEADER).is_some_and(|value| value == VOUCHED) {
        request.headers_mut().insert(header::AUTHORIZATION, keeper.operator.clone());
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use streamfleet_session::FleetSecret;
    use tower::ServiceExt as _;

    use super::*;

    fn keeper() -> Keeper {
        with("correct-horse-battery")
    }

    /// Of a worker that has three services, two of which are named alike.
    fn with(given: &str) -> Keeper {
        let services = ["a", "a/b", "tone"].map(|name| name.parse().unwrap());
        Keeper::new(&given.parse().unwrap(), &services, &"a-token-of-the-operator".parse().unwrap())
    }

    fn key(service: &str) -> String {
        let secret: FleetSecret = "correct-horse-battery".parse().unwrap();
        secret.of_service(&service.parse().unwrap()).reveal().to_owned()
    }

    /// Each service's routes open to who shows its key, and to nobody who shows another's.
    #[test]
    fn a_service_s_key_opens_its_routes() {
        let check = |given: &str, path: &str, shown: &str, expected: bool| {
            assert_eq!(with(given).lets_in(path, shown.as_bytes()), expected, "{given} {path} {shown}");
        };
        let secret = "correct-horse-battery";
        for (path, of) in [
            ("/a", "a"),
            ("/a/webrtc/offer", "a"),
            ("/a/c", "a"),
            ("/a/b", "a/b"),
            ("/a/b/webrtc/offer", "a/b"),
            ("/a/bc", "a"),
            ("/tone/sessions/x", "tone"),
        ] {
            for shown in ["a", "a/b", "tone", "other"] {
                check(secret, path, &key(shown), shown == of);
                // A worker that has been given one key opens to nothing else, whatever its routes are.
                check(&key("tone"), path, &key(shown), shown == "tone");
            }
            // The secret itself is shown by nobody.
            check(secret, path, secret, false);
            check(&key("tone"), path, secret, false);
            check(secret, path, "", false);
        }
        for nowhere in ["/", "/ab", "/tones/x", "/healthz", ""] {
            check(secret, nowhere, &key("a"), true);
            check(secret, nowhere, &key("other"), false);
        }
    }

    #[tokio::test]
    async fn a_router_vouches_for_whoever_asks() {
        let inner = get(async |request: Request| {
            assert!(!request.headers().contains_key(VOUCHED_HEADER));
            let shown = request.headers().get(header::AUTHORIZATION);
            shown.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        });
        let app = Router::new().route("/", inner).layer(from_fn_with_state(keeper(), guard));
        let ask = async |secret: &str, vouched: Option<&str>| {
            let request =
                Request::get("/").header(SECRET_HEADER, key(secret)).header(header::AUTHORIZATION, "Bearer own");
            let request = vouched.into_iter().fold(request, |request, value| request.header(VOUCHED_HEADER, value));
            let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), 99).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        assert_eq!(ask("tone", None).await, "Bearer own");
        assert_eq!(ask("tone", Some("operator")).await, "Bearer a-token-of-the-operator");
        assert_eq!(ask("tone", Some("client")).await, "Bearer own");
        assert!(ask("somebody", Some("operator")).await.contains("forbidden"));
    }

    #[tokio::test]
    async fn a_request_is_its_clients() {
        let inner = get(async |ConnectInfo(client): ConnectInfo<SocketAddr>| client.to_string());
        let router: SocketAddr = "10.0.0.1:4711".parse().unwrap();
        let app = Router::new().route("/", inner).layer(from_fn_with_state(keeper(), guard));
        for (said, expected) in
            [("192.0.2.7", "192.0.2.7:0"), ("2001:db8::1", "[2001:db8::1]:0"), ("nobody", "10.0.0.1:4711")]
        {
            let request = Request::get("/").header(SECRET_HEADER, key("tone")).header(CLIENT_HEADER, said);
            let request = request.extension(ConnectInfo(router)).body(Body::empty()).unwrap();
            let body = axum::body::to_bytes(app.clone().oneshot(request).await.unwrap().into_body(), 99).await.unwrap();
            assert_eq!(body, expected, "{said}");
        }
    }

    #[tokio::test]
    async fn a_router_says_who_has_proved_to_ask() {
        let inner = get(async |request: Request| {
            assert!(!request.headers().contains_key(USER_HEADER));
            format!("{:?}", request.extensions().get::<Proven>().map(|Proven(user)| user.as_str()))
        });
        let app = Router::new().route("/", inner).layer(from_fn_with_state(keeper(), guard));
        for (said, expected) in [("YW5u", "Some(\"ann\")"), ("ann!", "None")] {
            let request = Request::get("/").header(SECRET_HEADER, key("tone")).header(USER_HEADER, said);
            let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(axum::body::to_bytes(response.into_body(), 99).await.unwrap(), expected, "{said}");
        }
    }

    #[tokio::test]
    async fn only_who_shows_the_key_once_is_answered() {
        let inner = get(async |request: Request| request.headers().contains_key(SECRET_HEADER).to_string());
        let app = Router::new().route("/tone/x", inner).layer(from_fn_with_state(keeper(), guard));
        let (tone, other) = (key("tone"), key("a"));
        let longer = format!("{tone}0");
        let shown: [(&[&str], u16); 7] = [
            (&[], 403),
            (&["correct-horse-batterx"], 403),
            (&[&other], 403),
            (&[&longer], 403),
            (&[&tone, &tone], 403),
            (&[&tone], 200),
            (&["correct-horse-battery"], 403),
        ];
        for (values, expected) in shown {
            for path in ["/tone/x", "/tone/nowhere"] {
                let request =
                    values.iter().fold(Request::get(path), |request, value| request.header(SECRET_HEADER, *value));
                let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                let expected = if path == "/tone/nowhere" && expected == 200 { 404 } else { expected };
                assert_eq!(response.status().as_u16(), expected, "{values:?} {path}");
                if expected == 200 {
                    let body = axum::body::to_bytes(response.into_body(), 9).await.unwrap();
                    assert_eq!(&body[..], b"false", "nothing behind the door sees it");
                }
            }
        }
    }
}
