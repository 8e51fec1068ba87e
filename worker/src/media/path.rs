//! Which address a connected session's media goes to (RFC 8445 7.3.1.4, RFC 7675).
//!
//! The ICE agent selects a pair once and keeps to it. A client behind a NAT may come back from another address; the
//! agent is then left in the belief that nothing happened: to it, the current path always has the address that it
//! selected. What decides is this state machine:
//!
//! - A binding request with valid integrity from an unknown address, or authenticated media from one, makes the address
//!   a *candidate path* and has a check sent to it. MESSAGE-INTEGRITY does not cover the source address, so a replayed
//!   or mis-aimed packet can do no more than that: one check, no larger than what came.
//! - Only the success response to *that* check, from *that* address, validates the path.
//! - Media moves to a validated path when the client nominates it (USE-CANDIDATE), when newer authenticated media
//!   arrives over it, or when the current path has been silent while the client checks this one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use streamfleet_net::stun::TransactionId;

/// Candidate paths at one time. A client has a handful of addresses; more are an attack and the oldest makes room.
const MAX_PATHS: usize = 4;
/// A check to the same address is not repeated sooner: bounds what a flood of replayed requests has us send.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Octets of a check. Where so much may not be sent, no check is asked for: it would not count as an attempt.
const CHECK_COST: usize = 100;
/// Checks without an answer before a candidate path is forgotten.
const MAX_CHECKS: u8 = 5;
/// A validated path stays so for this long without traffic (RFC 7675 consent).
const VALID_FOR: Duration = Duration::from_secs(30);
/// Silence on the current path after which a check alone moves the session (clients that send no media).
const SILENT_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Path {
    remote: SocketAddr,
    checks: u8,
    checked_at: Instant,
    /// Of all of them: the answer to the first comes after the second has left where a round trip takes longer than
    /// [`CHECK_INTERVAL`].
    transactions: [Option<TransactionId>; MAX_CHECKS as usize],
    validated_at: Option<Instant>,
    /// The client wants this one.
    nominated: bool,
    /// Authenticated media came over it since it was validated, or made it known.
    media: bool,
}

/// What to do after an input.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum PathAction {
    /// Nothing.
    Keep,
    /// Send a binding request to this address, whose transaction id is to be given to [`Paths::checked`].
    Check(SocketAddr),
    /// Media goes to this address from now on.
    Moved(SocketAddr),
}

/// The paths of one session.
#[derive(Debug)]
pub(crate) struct Paths {
    current: SocketAddr,
    heard_at: Instant,
    /// When an answer to a check of ours last came, over whichever path.
    proved_at: Instant,
    others: Vec<Path>,
}

impl Paths {
    /// `current` is what ICE selected and DTLS came from.
    pub(crate) fn new(current: SocketAddr, now: Instant) -> Self {
        Paths { current, heard_at: now, proved_at: now, others: Vec::new() }
    }

    /// Where media goes.
    pub(crate) fn current(&self) -> SocketAddr {
        self.current
    }

    /// When the client last consented to be sent to (RFC 7675) by answering one of this machine's checks. The agent has checks
    /// of its own, but those of a client that keeps moving are lost while it moves.
    pub(crate) fn proved_at(&self) -> Instant {
        self.proved_at
    }

    /// Whether the session still has a use for this address.
    pub(crate) fn knows(&self, remote: SocketAddr) -> bool {
        remote == self.current || self.others.iter().any(|p| p.remote == remote)
    }

    /// Whether any packet may be answered there: the current path, or one that was validated.
    pub(crate) fn is_validated(&self, remote: SocketAddr) -> bool {
        remote == self.current || self.others.iter().any(|p| p.remote == remote && p.validated_at.is_some())
    }

    /// A binding request with valid integrity, from where `allowance` octets may be sent back.
    pub(crate) fn request(
        &mut self,
        from: SocketAddr,
        nominates: Nominates,
        allowance: usize,
        now: Instant,
    ) -> PathAction {
        if from == self.current {
            self.heard_at = now;
            return PathAction::Keep;
        }
        let silent = now.saturating_duration_since(self.heard_at) >= SILENT_AFTER;
        let path = self.path(from, now);
        path.nominated |= nominates == Nominates::Yes;
        if !path.is_valid(now) {
            return self.check(from, allowance, now);
        }
        if path.nominated || silent { self.move_to(from, now) } else { PathAction::Keep }
    }

    /// An authenticated RTP packet, from where `allowance` octets may be sent back.
    pub(crate) fn media(&mut self, from: SocketAddr, newest: Newest, allowance: usize, now: Instant) -> PathAction {
        if from == self.current {
            self.heard_at = now;
            return PathAction::Keep;
        }
        // Late packets over the path that was left are no sign that the client went back.
        if newest == Newest::No {
            return PathAction::Keep;
        }
        let path = self.path(from, now);
        path.media = true;
        if path.is_valid(now) { self.move_to(from, now) } else { self.check(from, allowance, now) }
    }

    /// The check asked for by [`PathAction::Check`] left with this id.
    pub(crate) fn checked(&mut self, remote: SocketAddr, transaction: TransactionId, now: Instant) {
        if let Some(p) = self.others.iter_mut().find(|p| p.remote == remote) {
            p.transactions[usize::from(p.checks % MAX_CHECKS)] = Some(transaction);
            p.checks += 1;
            p.checked_at = now;
        }
    }

    /// A success response with valid integrity. `Some` if it answers a check of ours.
    pub(crate) fn response(&mut self, from: SocketAddr, id: &TransactionId, now: Instant) -> Option<PathAction> {
        let path = self.others.iter_mut().find(|p| p.transactions.contains(&Some(*id)))?;
        if path.remote != from {
            // The answer took another way than the question: a symmetric NAT or a reflection; validates neither.
            return Some(PathAction::Keep);
        }
        self.proved_at = now;
        path.transactions = [None; MAX_CHECKS as usize];
        path.validated_at = Some(now);
        path.checks = 0;
        let wanted = path.nominated || path.media;
        let silent = now.saturating_duration_since(self.heard_at) >= SILENT_AFTER;
        Some(if wanted || silent { self.move_to(from, now) } else { PathAction::Keep })
    }

    fn path(&mut self, remote: SocketAddr, now: Instant) -> &mut Path {
        let i = match self.others.iter().position(|p| p.remote == remote) {
            Some(i) => i,
            None => {
                if self.others.len() == MAX_PATHS {
                    // A path that proved itself is worth more than one that did not.
                    let oldest = (0..self.others.len())
                        .min_by_key(|i| (self.others[*i].validated_at.is_some(), self.others[*i].checked_at))
                        .unwrap_or(0);
                    self.others.swap_remove(oldest);
                }
                self.others.push(Path {
                    remote,
                    checks: 0,
                    checked_at: now,
                    transactions: [None; MAX_CHECKS as usize],
                    validated_at: None,
                    nominated: false,
                    media: false,
                });
                self.others.len() - 1
            }
        };
        &mut self.others[i]
    }

    fn check(&mut self, remote: SocketAddr, allowance: usize, now: Instant) -> PathAction {
        let Some(i) = self.others.iter().position(|p| p.remote == remote) else { return PathAction::Keep };
        let p = &mut self.others[i];
        // A client's check pays for it, or two packets of speech.
        if allowance < CHECK_COST {
            return PathAction::Keep;
        }
        if p.checks > 0 && now.saturating_duration_since(p.checked_at) < CHECK_INTERVAL {
            return PathAction::Keep;
        }
        if p.checks == MAX_CHECKS {
            self.others.swap_remove(i);
            return PathAction::Keep;
        }
        PathAction::Check(remote)
    }

    fn move_to(&mut self, remote: SocketAddr, now: Instant) -> PathAction {
        let left = std::mem::replace(&mut self.current, remote);
        self.heard_at = now;
        self.others.retain(|p| p.remote != remote && p.is_valid(now));
        // The path that was left was validated by use; should the client go back, one packet is enough.
        if self.others.len() == MAX_PATHS {
            self.others.swap_remove(0);
        }
        self.others.push(Path {
            remote: left,
            checks: 0,
            checked_at: now,
            transactions: [None; MAX_CHECKS as usize],
            validated_at: Some(now),
            nominated: false,
            media: false,
        });
        PathAction::Moved(remote)
    }
}

impl Path {
    fn is_valid(&self, now: Instant) -> bool {
        self.validated_at.is_some_and(|at| now.saturating_duration_since(at) < VALID_FOR)
    }
}

/// Whether a check has USE-CANDIDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nominates {
    Yes,
    No,
}

/// Whether a media packet's index is above all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newest {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }
    const ID: TransactionId = TransactionId([7; 12]);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_rebound_client_is_followed_after_one_round_trip() {
        let t = Instant::now();
        let mut p = Paths::new(addr(1), t);
        assert_eq!(p.media(addr(2), Newest::Yes, 150, t), PathAction::Check(addr(2)));
        p.checked(addr(2), ID, t);
        assert_eq!(p.current(), addr(1));
        assert_eq!(p.response(addr(2), &ID, t + 30 * MS), Some(PathAction::Moved(addr(2))));
        assert_eq!(p.current(), addr(2));
        // And back again at once: the old path was validated by use.
        assert_eq!(p.media(addr(1), Newest::Yes, 100, t + 60 * MS), PathAction::Moved(addr(1)));
    }

    /// Media comes all the time; a round trip takes longer than it is from one check to the next.
    #[test]
    fn a_client_far_away_is_followed_after_one_round_trip_too() {
        for trip in [150, 200, 250, 500, 900] {
            let t = Instant::now();
            let mut p = Paths::new(addr(1), t);
            let mut answers = Vec::new();
            let moved = (0..200u32).map(|n| n * 20).find(|at| {
                let now = t + *at * MS;
                if p.media(addr(2), Newest::Yes, 150, now) == PathAction::Check(addr(2)) {
                    let id = TransactionId([answers.len() as u8; 12]);
                    p.checked(addr(2), id, now);
                    answers.push((at + trip, id));
                }
                let due = answers.iter().filter(|(due, _)| due.abs_diff(*at) < 20 && due <= at);
                due.map(|(_, id)| *id).collect::<Vec<_>>().iter().any(|id| p.response(addr(2), id, now).is_some())
            });
            assert!(moved.is_some_and(|at| at < trip + 20) && p.current() == addr(2), "{trip}: {moved:?}");
        }
    }

    #[test]
    fn a_replayed_check_diverts_nothing() {
        let t = Instant::now();
        let mut p = Paths::new(addr(1), t);
        // The attacker replays the client's nominating check from its own address; it cannot answer ours.
        assert_eq!(p.request(addr(66), Nominates::Yes, 150, t), PathAction::Check(addr(66)));
        p.checked(addr(66), ID, t);
        for i in 1..100u32 {
            let action = p.request(addr(66), Nominates::Yes, 150, t + i * MS);
            assert_eq!(action, PathAction::Keep, "one check in {CHECK_INTERVAL:?}");
        }
        assert_eq!(p.response(addr(66), &TransactionId([8; 12]), t), None);
        // A response that the victim's own address sends does not validate the attacker's.
        assert_eq!(p.response(addr(1), &ID, t), Some(PathAction::Keep));
        assert_eq!(p.current(), addr(1));
        assert!(!p.is_validated(addr(66)));
    }

    #[test]
    fn a_check_waits_until_it_is_paid_for() {
        let t = Instant::now();
        let mut p = Paths::new(addr(1), t);
        assert_eq!(p.request(addr(9), Nominates::Yes, CHECK_COST - 1, t), PathAction::Keep);
        assert_eq!(p.media(addr(9), Newest::Yes, CHECK_COST - 1, t), PathAction::Keep);
        assert_eq!(p.media(addr(9), Newest::Yes, CHECK_COST, t), PathAction::Check(addr(9)));
    }

    #[test]
    fn late_packets_do_not_move_media_back() {
        let t = Instant::now();
        let mut p = Paths::new(addr(1), t);
        p.media(addr(2), Newest::Yes, 150, t);
        p.checked(addr(2), ID, t);
        p.response(addr(2), &ID, t);
        assert_eq!(p.media(addr(1), Newest::No, 100, t + MS), PathAction::Keep);
        assert_eq!(p.current(), addr(2));
    }

    #[test]
    fn checks_on_a_second_interface_do_not_move_media_while_the_first_is_alive() {
        let t = Instant::now();
        let mut p = Paths::new(addr(1), t);
        assert_eq!(p.request(addr(2), Nominates::No, 150, t), PathAction::Check(addr(2)));
        p.checked(addr(2), ID, t);
        assert_eq!(p.response(addr(2), &ID, t + MS), Some(PathAction::Keep));
        p.media(addr(1), Newest::Yes, 150, t + 1900 * MS);
        assert_eq!(p.request(addr(2), Nominates::No, 150, t + 2000 * MS), PathAction::Keep);
        // Nominated, it moves.
        assert_eq!(p.request(addr(2), Nominates::Yes, 150, t + 2100 * MS), PathAction::Moved(addr(2)));
    }

    #[test]
    fn a_listener_is_followed_when_its_old_path_is_silent() {
        let t = Instant::now();
        let mut p = Paths::new(addr(1), t);
        assert_eq!(p.request(addr(2), Nominates::No, 150, t + 3000 * MS), PathAction::Check(addr(2)));
        p.checked(addr(2), ID, t);
        assert_eq!(p.response(addr(2), &ID, t + 3010 * MS), Some(PathAction::Moved(addr(2))));
    }

    #[test]
    fn paths_are_bounded_and_checks_end() {
        let t = Instant::now();
        let mut p = Paths::new(addr(1), t);
        for port in 2..2_000 {
            p.request(addr(port), Nominates::Yes, 150, t);
        }
        assert!(p.others.len() <= MAX_PATHS);
        let mut p = Paths::new(addr(1), t);
        let checks = (0..100u32).filter(|i| {
            let now = t + *i * CHECK_INTERVAL;
            let asked = p.request(addr(2), Nominates::Yes, 150, now) != PathAction::Keep;
            if asked {
                p.checked(addr(2), ID, now);
            }
            asked
        });
        // After five unanswered checks the path is forgotten, and begins anew with the next request.
        assert!(checks.count() <= 90);
        assert_eq!(p.current(), addr(1));
    }
}
