//! How often an address, and a user who is known, may ask for something.

use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;
use streamfleet_edge::rate::{
    CANDIDATES_PER_OFFER, CONFIGURATIONS_PER_OFFER, REQUESTS_PER_OFFER, Rate, SourceRate, TooMany,
};
use streamfleet_session::wire::Failure;
use streamfleet_session::{Limits, UserId};

/// What may be asked of a service. Each router counts for itself; offers are counted once more with the claim, for the whole
/// fleet. What is refused here costs the store nothing, and while it is away this is all that counts.
#[derive(Debug)]
pub struct Rates {
    offers: Mutex<SourceRate>,
    /// By proven user: what somebody says of himself must not use up another's.
    users: Mutex<Rate<UserId>>,
    /// Apart from the offers: a client with many candidates must not use up what it may offer.
    candidates: Mutex<SourceRate>,
    /// Outputs, inputs and triggers: ids can be guessed.
    sessions: Mutex<SourceRate>,
    /// Answers with credentials for TURN servers.
    configurations: Mutex<SourceRate>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A session.
    Offer,
    /// That a candidate is taken.
    Candidate,
    /// Something of a session.
    Session,
    /// Which ICE servers there are.
    Configuration,
}

impl Rates {
    /// What these limits allow; `None` if they allow anything.
    #[must_use]
    pub fn new(limits: &Limits) -> Option<Self> {
        let offers = limits.offers_per_minute?;
        let of = |per_minute| Mutex::new(SourceRate::new(per_minute));
        Some(Self {
            offers: of(offers),
            users: Mutex::new(Rate::new(offers)),
            candidates: of(offers.saturating_mul(CANDIDATES_PER_OFFER)),
            sessions: of(offers.saturating_mul(REQUESTS_PER_OFFER)),
            configurations: of(offers.saturating_mul(CONFIGURATIONS_PER_OFFER)),
        })
    }

    /// Counts a request from an address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take(&self, kind: Kind, source: IpAddr, now: Instant) -> Result<(), Failure> {
        let rate = match kind {
            Kind::Offer => &self.offers,
            Kind::Candidate => &self.candidates,
            Kind::Session => &self.sessions,
            Kind::Configuration => &self.configurations,
        };
        rate.lock().take(source, now).map_err(limited)
    }

    /// Counts an offer of a user who is proved to make it, wherever it comes from.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_user(&self, user: &UserId, now: Instant) -> Result<(), Failure> {
        self.users.lock().take_for(user, now).map_err(limited)
    }
}

fn limited(TooMany(wait): TooMany) -> Failure {
    Failure::RateLimited { retry_after: wait }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_user_is_limited_wherever_he_is() {
        let limits = Limits { offers_per_minute: NonZeroU32::new(1), ..Limits::default() };
        let (rates, now) = (Rates::new(&limits).unwrap(), Instant::now());
        let (mia, tess): (UserId, UserId) = ("mia".parse().unwrap(), "tess".parse().unwrap());
        assert!(rates.take_user(&mia, now).is_ok());
        assert!(matches!(rates.take_user(&mia, now), Err(Failure::RateLimited { .. })));
        assert!(rates.take_user(&tess, now).is_ok());
        let ip = IpAddr::from([192, 0, 2, 1]);
        assert!(rates.take(Kind::Offer, ip, now).is_ok() && rates.take(Kind::Candidate, ip, now).is_ok());
        assert!(rates.take(Kind::Offer, ip, now).is_err() && rates.take(Kind::Candidate, ip, now).is_ok());
        assert!(Rates::new(&Limits::default()).is_none());
    }
}
