//! The STUN and TURN servers that a service names, as its answer words them: `RTCConfiguration` of the W3C's.

use serde_json::Value;

use crate::options::IceServer;

/// Servers that are used; each costs packets on every local address, and time where it does not answer.
const MAX_SERVERS: usize = 16;
/// URLs of one server, likewise.
const MAX_URLS: usize = 8;

/// The servers in an answer that this client can use. What is not worded as it should be is left away: the call may well do without.
pub(crate) fn servers(answer: &[u8]) -> Vec<IceServer> {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let listed = answer.get("iceServers").and_then(Value::as_array).into_iter().flatten();
    listed.map(server).filter(|server| !server.urls.is_empty()).take(MAX_SERVERS).collect()
}

/// The servers of these that this client can use.
pub(crate) fn usable(servers: &[IceServer]) -> Vec<IceServer> {
    let with_usable = |server: &IceServer| {
        let urls = server.urls.iter().filter(|url| is_usable(url)).cloned().collect();
        IceServer { urls, ..server.clone() }
    };
    servers.iter().map(with_usable).filter(|server| !server.urls.is_empty()).collect()
}

fn server(value: &Value) -> IceServer {
    let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // One or several.
    let urls = match value.get("urls") {
        Some(Value::Array(urls)) => urls.iter().filter_map(Value::as_str).take(MAX_URLS).map(str::to_owned).collect(),
        Some(Value::String(url)) => vec![url.clone()],
        _ => Vec::new(),
    };
    IceServer { urls, username: text("username"), credential: text("credential") }
}

/// The WebRTC stack talks to STUN and TURN servers over UDP alone.
fn is_usable(url: &str) -> bool {
    let is_plain = url.starts_with("stun:") || url.starts_with("turn:");
    is_plain && url.split_once('?').is_none_or(|(_, query)| query == "transport=udp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_answer() {
        #[track_caller]
        fn check(answer: &str, expected: &[(&[&str], &str, &str)]) {
            let found = usable(&servers(answer.as_bytes()));
            let found: Vec<_> =
                found.iter().map(|s| (s.urls.clone(), s.username.as_str(), s.credential.as_str())).collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(urls, user, word)| (urls.iter().map(|u| (*u).to_owned()).collect(), *user, *word))
                .collect();
            assert_eq!(found, expected, "{answer}");
        }
        check(r#"{"iceServers":[]}"#, &[]);
        check(r#"{"iceServers":[{"urls":"stun:s"}],"more":1}"#, &[(&["stun:s"], "", "")]);
        check(
            r#"{"iceServers":[{"urls":["turns:t","turn:t?transport=tcp","turn:t?transport=udp","turn:t"],"username":"u","credential":"c"}]}"#,
            &[(&["turn:t?transport=udp", "turn:t"], "u", "c")],
        );
        check(r#"{"iceServers":[{"urls":["turns:t"]},{"urls":7},{},[],null]}"#, &[]);
        for nonsense in ["", "<html>", "[]", "null", r#"{"iceServers":{}}"#] {
            check(nonsense, &[]);
        }
        let many = format!(r#"{{"iceServers":[{}]}}"#, vec![r#"{"urls":"stun:s"}"#; 99].join(","));
        assert_eq!(servers(many.as_bytes()).len(), MAX_SERVERS);
    }
}
