//! The demo page, served from the binary: no file is read, nothing is asked of another host.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};
use streamfleet_handler::{Handler, Media, Registered, Registry, Replies};

use super::Offered;

/// Only what the page itself is made of; no frame, no form, no other host.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! files {
    ($($path:literal $kind:ident $file:literal),+ $(,)?) => {
        [$(($path, $kind, include_str!(concat!("../../page/", $file)))),+]
    };
}

const FILES: [(&str, &str, &str); 23] = files! {
    "/" HTML "index.html",
    "/_demo/style.css" STYLE "style.css",
    "/_demo/app.js" SCRIPT "app.js",
    "/_demo/app/advice.js" SCRIPT "app/advice.js",
    "/_demo/app/call.js" SCRIPT "app/call.js",
    "/_demo/app/config.js" SCRIPT "app/config.js",
    "/_demo/app/conversation.js" SCRIPT "app/conversation.js",
    "/_demo/app/diagnostics.js" SCRIPT "app/diagnostics.js",
    "/_demo/app/latency.js" SCRIPT "app/latency.js",
    "/_demo/app/pcm.js" SCRIPT "app/pcm.js",
    "/_demo/app/peer.js" SCRIPT "app/peer.js",
    "/_demo/app/playout.js" SCRIPT "app/playout.js",
    "/_demo/app/problem.js" SCRIPT "app/problem.js",
    "/_demo/app/resampler.js" SCRIPT "app/resampler.js",
    "/_demo/app/signalling.js" SCRIPT "app/signalling.js",
    "/_demo/app/socket.js" SCRIPT "app/socket.js",
    "/_demo/app/sound.js" SCRIPT "app/sound.js",
    "/_demo/app/source.js" SCRIPT "app/source.js",
    "/_demo/app/stats.js" SCRIPT "app/stats.js",
    "/_demo/app/trace.js" SCRIPT "app/trace.js",
    "/_demo/app/turns.js" SCRIPT "app/turns.js",
    "/_demo/app/view.js" SCRIPT "app/view.js",
    "/_demo/app/worklets.js" SCRIPT "app/worklets.js",
};

/// What the page offers.
pub(crate) fn config(registry: &Registry, services: &[Offered]) -> Value {
    let handlers: Vec<Value> = services
        .iter()
        .filter_map(|service| {
            let (_, description) = registry.iter().find(|(name, _)| *name == service.handler)?;
            // What cannot be made is told as a mistake of the configuration, which knows its key.
            let prototype = registry.get(&service.handler, service.config.clone()).ok()?;
            Some(json!({
                "name": service.name,
                "title": if service.name == service.handler { &description.title } else { &service.name },
                "path": service.path,
                "modality": description.modality.as_str(),
                "description": description.summary,
                "replies": match replies(&prototype) {
                    Replies::Freely => "freely",
                    Replies::OnPause => "on-pause",
                },
                "rates": rates(&prototype),
            }))
        })
        .collect();
    let default = services.iter().find(|service| service.is_at_the_root()).or(services.first());
    json!({ "handlers": handlers, "default": default.map(|service| &service.name) })
}

fn replies(prototype: &Registered) -> Replies {
    match prototype {
        Registered::Handler(handler) => handler.replies(),
        Registered::Packets(_) => Replies::Freely,
    }
}

/// What a WebSocket carries, in Hz each way: a client cannot learn it from the protocol. `null` for a handler that only
/// WebRTC can reach.
fn rates(prototype: &Registered) -> Value {
    let spoken = |handler: &dyn Handler| match handler.media() {
        Media::Frames { input, output } if input.channels == 1 => Some((input.rate, output.rate)),
        Media::Frames { .. } | Media::Packets => None,
    };
    let rates = match prototype {
        Registered::Handler(handler) => spoken(handler.as_ref()),
        Registered::Packets(handler) => handler.frames().and_then(|frames| spoken(frames.as_ref())),
    };
    rates.map_or(Value::Null, |(input, output)| json!({ "input": input, "output": output }))
}

/// The page's routes.
pub(crate) fn routes(config: Value) -> Router {
    let mut router = Router::new();
    for (path, kind, text) in FILES {
        router = router.route(path, get(async move || file(kind, text)));
    }
    let config = config.to_string();
    router.route("/_demo/config.json", get(async move || file("application/json", config)))
}

fn file(kind: &'static str, text: impl IntoResponse) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        // The page belongs to the binary that serves it: another version must not use what this one left behind.
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text)
}
