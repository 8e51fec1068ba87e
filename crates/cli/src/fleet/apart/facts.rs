//! What a part says of itself on its standard output once it serves: one fact a line. Pure.

use std::net::SocketAddr;

use super::Place;

/// What is known of a process.
#[derive(Debug)]
pub(super) struct Facts {
    place: Place,
    listening: Option<String>,
    admin: Option<String>,
    media: Option<String>,
}

impl Facts {
    pub(super) fn of(place: Place) -> Self {
        Self { place, listening: None, admin: None, media: None }
    }

    /// Takes a line. When it was the last that was missing: what is known, in one line.
    pub(super) fn hear(&mut self, line: &str) -> Option<String> {
        let kinds = [("listening", &mut self.listening), ("admin", &mut self.admin), ("media", &mut self.media)];
        let (said, fact) = kinds
            .into_iter()
            .find_map(|(kind, fact)| Some((line.strip_prefix(kind)?.strip_prefix(" on ")?.to_owned(), fact)))?;
        if fact.replace(said).is_some() {
            return None;
        }
        let listening = self.listening.as_ref()?;
        let admin = self.admin.as_ref()?;
        let media = self.media.as_ref()?;
        Some(match self.place {
            Place::Router(_) => format!("listening on {listening}, media on {media}, admin on {admin}"),
            Place::Worker(_) => format!("media on {media}, admin on {admin}"),
        })
    }

    /// Where clients reach it, if it is a router.
    pub(super) fn public(&self) -> Option<(&str, SocketAddr)> {
        let (scheme, address) = self.listening.as_deref()?.split_once("://")?;
        matches!(self.place, Place::Router(_)).then_some(())?;
        Some((scheme, address.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(place: Place, lines: &[&str], expected: &[Option<&str>]) {
        let mut facts = Facts::of(place);
        let found: Vec<_> = lines.iter().map(|line| facts.hear(line)).collect();
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_part_is_known_when_it_has_said_all() {
        let (listening, admin) = ("listening on https://[::1]:8080", "admin on http://127.0.0.1:9090");
        let media = "media on 127.0.0.1:5000 127.0.0.1:5001";
        let router =
            "listening on https://[::1]:8080, media on 127.0.0.1:5000 127.0.0.1:5001, admin on http://127.0.0.1:9090";
        check(Place::Router(0), &[listening, "more", admin, admin, media], &[None, None, None, None, Some(router)]);
        let worker = "media on 127.0.0.1:5000 127.0.0.1:5001, admin on http://127.0.0.1:9090";
        check(Place::Worker(0), &[listening, admin, media], &[None, None, Some(worker)]);
        check(Place::Worker(0), &["", "media", "media of on x"], &[None, None, None]);
    }

    #[test]
    fn only_a_router_is_public() {
        for (place, expected) in
            [(Place::Router(0), Some(("https", "[::1]:8080".parse().unwrap()))), (Place::Worker(0), None)]
        {
            let mut facts = Facts::of(place);
            facts.hear("listening on https://[::1]:8080");
            assert_eq!(facts.public(), expected);
        }
    }
}
