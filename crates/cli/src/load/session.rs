//! One session, from offer to goodbye. No socket and no clock.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;
use streamfleet_net::Outbox;
use streamfleet_net::demux::{Kind, classify};
use streamfleet_rtp::rtcp::WallClock;
use streamfleet_rtp::{Keys, Rx, Tx};
use streamfleet_session::wire::ServerMessage;

use super::media::{Media, Share, Tally, Voice};
use super::peer::{Factory, Peer, PeerEvent};

/// From answer to connection. FastRTC's own servers take a third of a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a session is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    /// No HTTP response.
    Unreachable(String),
    /// The server refused the offer, and why.
    Refused(String),
    /// The answer cannot be used, or the core failed.
    Broken(String),
    /// An answer, but no connection.
    NotConnected,
    /// Connected, but no packet came.
    Silent,
    /// The connection broke.
    Lost,
    /// The server ended it.
    Ended(String),
}

impl Failure {
    /// What sessions that failed alike are counted under.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Unreachable(why) => format!("unreachable: {why}"),
            Self::Refused(why) => format!("refused: {why}"),
            Self::Broken(why) => format!("broken: {why}"),
            Self::NotConnected => "not connected".to_owned(),
            Self::Silent => "connected, but nothing came".to_owned(),
            Self::Lost => "connection lost".to_owned(),
            Self::Ended(why) => format!("ended by the server: {why}"),
        }
    }
}

/// Where a session is in its life.
#[derive(Debug)]
enum Stage {
    /// The offer is on its way.
    Offered,
    /// The answer came; it has until then to connect.
    Answered { deadline: Instant },
    /// Media flows.
    Active { media: Box<Media>, remote: SocketAddr },
    /// It is over.
    Failed(Failure),
}

/// What the outside has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It connected to this address.
    Connected(SocketAddr),
    /// It failed.
    Failed,
}

/// Times of a session's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) offered: Option<Instant>,
    pub(super) answered: Option<Instant>,
    pub(super) first_media: Option<Instant>,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    peer: Peer,
    stage: Stage,
    voice: Option<Voice>,
    seed: u32,
    setup: Setup,
    clock: WallClock,
    change: Option<Change>,
}

/// What sessions share while something happens to one.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) factory: &'a Factory,
    pub(super) tally: &'a mut Tally,
    pub(super) out: &'a mut Outbox,
}

impl Session {
    /// A session and the offer to post. The offer counts as posted at `now`.
    pub(super) fn new(
        factory: &Factory,
        local: SocketAddr,
        voice: Voice,
        seed: u32,
        clock: WallClock,
        now: Instant,
    ) -> anyhow::Result<(Self, String)> {
        let (peer, offer) = factory.offer(local, voice.ssrc, now)?;
        let setup = Setup { offered: Some(now), ..Setup::default() };
        Ok((Self { peer, stage: Stage::Offered, voice: Some(voice), seed, setup, clock, change: None }, offer))
    }

    /// The server's answer, which came at `at`, or why there is none.
    pub(super) fn answer(&mut self, answer: Result<String, Failure>, at: Instant, turn: &mut Turn<'_>) {
        if !matches!(self.stage, Stage::Offered) {
            return;
        }
        let accepted = answer.and_then(|sdp| {
            self.setup.answered = Some(at);
            self.peer.accept(sdp, turn.now).map_err(|error| Failure::Broken(format!("{error:#}")))
        });
        match accepted {
            Ok(()) => self.stage = Stage::Answered { deadline: turn.now + CONNECT_TIMEOUT },
            Err(failure) => self.fail(failure),
        }
        self.settle(turn);
    }

    /// A datagram came; it is worked on in place.
    pub(super) fn handle_datagram(&mut self, from: SocketAddr, datagram: &mut [u8], turn: &mut Turn<'_>) {
        if classify(datagram) == Kind::Rtp {
            if let Stage::Active { media, .. } = &mut self.stage {
                media.receive(datagram, turn.now, turn.tally);
            }
            return;
        }
        self.peer.read(from, datagram, turn.now);
        self.settle(turn);
    }

    /// The time is [`poll_timeout`](Self::poll_timeout)'s, or later.
    pub(super) fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        match &mut self.stage {
            Stage::Answered { deadline } if *deadline <= turn.now => self.fail(Failure::NotConnected),
            Stage::Active { media, remote } => {
                media.send(*remote, turn.now, turn.out, turn.tally);
                if let Some(report) = media.report(turn.now, &self.clock) {
                    self.peer.send_rtcp(report, turn.now);
                }
            }
            _ => {}
        }
        if let Some(event) = self.peer.handle_timeout(turn.now) {
            self.event(event, turn);
        }
        self.settle(turn);
    }

    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let of_stage = match &self.stage {
            Stage::Failed(_) => return None,
            Stage::Offered => None,
            Stage::Answered { deadline } => Some(*deadline),
            Stage::Active { media, .. } => Some(media.poll_timeout()),
        };
        [of_stage, self.peer.poll_timeout(now)].into_iter().flatten().min()
    }

    /// What has changed since the last call.
    pub(super) fn poll_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// The outside cannot go on with it.
    pub(super) fn abort(&mut self, failure: Failure) {
        self.fail(failure);
    }

    /// Says goodbye.
    pub(super) fn close(&mut self, now: Instant, out: &mut Outbox) {
        self.peer.close();
        self.flush(now, out);
    }

    pub(super) fn setup(&self) -> Setup {
        let first_media = match &self.stage {
            Stage::Active { media, .. } => media.first(),
            _ => None,
        };
        Setup { first_media: first_media.or(self.setup.first_media), ..self.setup }
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Active { .. })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Failed(_))
    }

    /// What became of it: its share of the figures, of which nothing counts after `end`, or why it failed.
    pub(super) fn outcome(&self, end: Instant) -> Result<Share, Failure> {
        match &self.stage {
            Stage::Active { media, .. } if media.first().is_some() => Ok(media.share(end)),
            Stage::Active { .. } => Err(Failure::Silent),
            Stage::Offered => Err(Failure::Unreachable("no answer in time".to_owned())),
            Stage::Answered { .. } => Err(Failure::NotConnected),
            Stage::Failed(failure) => Err(failure.clone()),
        }
    }

    fn fail(&mut self, failure: Failure) {
        if !self.is_over() {
            self.setup = self.setup();
            self.stage = Stage::Failed(failure);
            self.change = Some(Change::Failed);
        }
    }

    /// Takes in what the core has to say, and passes on what it wants sent.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        while let Some(event) = self.peer.poll_event(turn.now) {
            self.event(event, turn);
        }
        if let Stage::Active { media, .. } = &mut self.stage {
            media.hear(self.peer.rtcp(), &self.clock);
        }
        self.flush(turn.now, turn.out);
    }

    fn flush(&mut self, now: Instant, out: &mut Outbox) {
        while let Some((to, datagram)) = self.peer.poll_write(now) {
            out.push_slice(to, &datagram);
        }
    }

    fn event(&mut self, event: PeerEvent, turn: &mut Turn<'_>) {
        match event {
            PeerEvent::Connected { keys, remote } => self.connected(&keys, remote, turn),
            PeerEvent::Message(text) => match ServerMessage::parse(&text) {
                Ok(ServerMessage::EndStream(why)) => self.fail(Failure::Ended(format!("end_stream: {}", plain(&why)))),
                Ok(ServerMessage::Error(why)) => self.fail(Failure::Ended(format!("error: {}", plain(&why)))),
                Ok(ServerMessage::Reconnect { reason, .. }) => {
                    self.fail(Failure::Ended(format!("reconnect: {}", plain(&reason))));
                }
                Ok(ServerMessage::UpdateConnection) => self.fail(Failure::Ended("closed".to_owned())),
                _ => {}
            },
            PeerEvent::Lost => self.fail(Failure::Lost),
            PeerEvent::Broken(why) => self.fail(Failure::Broken(why.to_owned())),
        }
    }

    fn connected(&mut self, keys: &Keys, remote: SocketAddr, turn: &mut Turn<'_>) {
        let Some(voice) = self.voice.take().filter(|_| !self.is_over()) else { return };
        let crypto = turn.factory.provider().crypto();
        let media = Rx::new(crypto, keys).and_then(|rx| Ok((rx, Tx::new(crypto, keys)?)));
        match media {
            Ok((rx, tx)) => {
                let media = Box::new(Media::new(rx, tx, voice, self.seed, turn.now));
                self.stage = Stage::Active { media, remote };
                self.change = Some(Change::Connected(remote));
            }
            Err(error) => self.fail(Failure::Broken(error.to_string())),
        }
    }
}

/// A server's words in a report: nothing that a terminal obeys, and not many, because they are what failures are counted under.
pub(super) fn plain(text: &str) -> String {
    crate::plain::plain(text).chars().take(80).collect()
}
