//! The names of keys and channels. All of a service have its name as their hash tag, and so are on one node of a cluster.

use streamfleet_session::ServiceName;

use crate::wake::{Channel, Topic};

/// The key that every script is given; it derives the others.
pub(super) fn schema(service: &ServiceName) -> String {
    format!("sf:{{{service}}}:schema")
}

/// Likewise, of what is known of all services at once: its hash tag is no service's name, which has small letters.
pub(super) fn everybody() -> String {
    "sf:{HELD}:schema".to_owned()
}

/// Every key and channel of a service, as a pattern. No name of a service has a character that means something in one.
pub(super) fn all(service: &ServiceName) -> String {
    format!("sf:{{{service}}}:*")
}

pub(super) fn channel((service, topic): &Channel) -> String {
    match topic {
        Topic::Worker(worker) => format!("sf:{{{service}}}:wake:worker:{worker}"),
        Topic::Directory => format!("sf:{{{service}}}:wake:directory"),
        Topic::Session(session) => format!("sf:{{{service}}}:wake:session:{session}"),
    }
}

/// Reads what [`channel`] writes.
pub(super) fn parse_channel(name: &[u8]) -> Option<Channel> {
    let (service, topic) = std::str::from_utf8(name).ok()?.strip_prefix("sf:{")?.split_once("}:wake:")?;
    let topic = match topic.split_once(':') {
        None if topic == "directory" => Topic::Directory,
        Some(("worker", worker)) => Topic::Worker(worker.parse().ok()?),
        Some(("session", session)) => Topic::Session(session.parse().ok()?),
        _ => return None,
    };
    Some((service.parse().ok()?, topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_go_there_and_back() {
        let topics = [
            Topic::Directory,
            Topic::Worker("assistant-7f.c_1".parse().unwrap()),
            // Ids may have colons.
            Topic::Session("session:a@b:1".parse().unwrap()),
        ];
        for topic in topics {
            let channel_of = ("voice/assistant".parse().unwrap(), topic);
            assert_eq!(parse_channel(channel(&channel_of).as_bytes()), Some(channel_of));
        }
        for wrong in ["", "sf:{a}:wake:", "sf:{a}:wake:worker:", "sf:{A}:wake:directory", "sf:a:wake:directory"] {
            assert_eq!(parse_channel(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
