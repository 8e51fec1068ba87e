//! Sessions over WebRTC: from an offer to a session on a media loop.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use streamfleet_handler::{self as sdk, LinkConfig, Registered};
use streamfleet_service::spec::Modality;
use streamfleet_session::candidate::ParsedCandidate;
use streamfleet_session::wire::{Answer, Failure};
use streamfleet_session::{ServiceName, SessionId};

use super::begin::{Beginning, Begun};
use super::moving::{enter, is_sealed};
use super::via::Via;
use super::{Live, OVERLOADED, Sessions};
use crate::http::OpenRequest;
use crate::media::Stage;
use crate::media::answer::{AnswerRequest, IceCredentials, Wants, answer};
use crate::media::driver::Overloaded;
use crate::media::session::{Endpoint, NewSession};
use crate::media::shard::Command;

impl Sessions {
    /// Answers an offer and puts its session on a loop.
    pub(super) async fn begin_call(&self, request: OpenRequest) -> Result<Answer, Failure> {
        let inner = &self.inner;
        let prototype = inner.handlers.get(&request.service.name).ok_or(Failure::ServiceNotFound)?.copy();
        let modality = request.service.modality;
        let wants = Wants {
            audio: modality != Modality::Video,
            // Frames are audio: pictures travel on the encoded path only.
            video: modality != Modality::Audio && prototype.media() == sdk::Media::Packets,
        };
        let relayed = request.place.as_ref().and_then(|place| place.placed().media.clone());
        let (on, credentials, advertised) = match &relayed {
            Some(media) => {
                let on = inner.loops.iter().position(|media_loop| media_loop.port == media.port);
                // Its directory is of another life of this worker.
                let on = on.ok_or(Failure::NoCapacity { retry_after: OVERLOADED })?;
                let ufrag = media.ufrag.as_str().to_owned();
                (on, IceCredentials { ufrag, ..credentials() }, media.candidates.clone())
            }
            None => {
                let on = self.least_loaded();
                let port = inner.loops[on].port;
                (on, credentials(), inner.advertised.0.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
            }
        };
        let answer_request =
            AnswerRequest { offer: &request.sdp, credentials, advertised: &advertised, wants, early: &request.early };
        let answered = answer(&inner.factory, answer_request, Instant::now())
            .map_err(|error| Failure::InvalidOffer { detail: error.to_string() })?;
        let sdp = answered.sdp.clone();

        let token = inner.tokens.fetch_add(1, Relaxed);
        let (context, resumed) = self
            .context(&request.service.name, &request.slot, &request.identity, request.resume, request.place)
            .await?;
        let resume = context.token();
        let via = Via::Loop(inner.loops[on].clone());
        let limits = request.service.limits;
        let mut begun = self.begin(
            Beginning {
                token,
                transport: sdk::Transport::WebRtc,
                service: &request.service,
                id: request.id,
                identity: request.identity,
                slot: request.slot,
                context,
                resumed,
            },
            via,
        );
        let endpoint = match prototype {
            Registered::Packets(handler) => Endpoint::Packets(handler),
            Registered::Handler(handler) => {
                let media = handler.media();
                let link = self.start(&mut begun, handler, LinkConfig::default(), inner.loops[on].ready(token));
                Endpoint::Task { link, media }
            }
        };
        let settled = begun.settled();
        let Begun { live, guard, mover, .. } = begun;
        let shared = live.shared.clone();
        let new = Box::new(NewSession {
            answered,
            endpoint,
            limits: limits.life(),
            bounds: inner.bounds,
            shared: shared.clone(),
            provider: inner.factory.provider().clone(),
            relay: relayed.map(|media| media.key),
            guard: Box::new(guard),
        });
        // Under one lock: from the moment that others can find the id, the loop has the session before what they ask of it.
        let opened = {
            let mut table = inner.table.by_id.lock();
            if is_sealed(&table, shared.id()) {
                Err((Failure::ConnectionClosed, new))
            } else {
                // Before there is anything that could take it out again.
                inner.table.places.insert(settled.as_ref());
                let opened = inner.loops[on].open(new).map(|()| {
                    inner.table.over.lock().taken_up(&live.shared);
                    enter(&mut table, live)
                });
                opened.map_err(|refused| (Failure::NoCapacity { retry_after: OVERLOADED }, refused))
            }
        };
        match opened {
            Ok(superseded) => {
                self.settle(settled);
                self.follow(mover, superseded);
            }
            Err((failure, refused)) => {
                shared.refuse();
                drop(refused);
                return Err(failure);
            }
        }
        Ok(Answer { sdp, resume: Some(resume) })
    }

    pub(super) fn trickle(
        &self,
        service: &ServiceName,
        id: &SessionId,
        candidate: ParsedCandidate,
    ) -> Result<(), Failure> {
        let live = self.live(id).filter(|live| live.shared.service() == service);
        // Of a client on its way: what connects already has no use for a candidate.
        let live = live.map(|live| live.moving.clone().map_or(live, |moving| *moving));
        let Some(Live { shared, via: Via::Loop(media), .. }) = live else { return Err(Failure::UnknownConnection) };
        if matches!(shared.stage(), Stage::Ending(_) | Stage::Closed(_)) {
            return Err(Failure::ConnectionClosed);
        }
        if let ParsedCandidate::Candidate(candidate) = candidate {
            let command = Command::Candidate(shared.token(), Box::new(candidate));
            media.send(command).map_err(|Overloaded| Failure::NoCapacity { retry_after: OVERLOADED })?;
        }
        Ok(())
    }
}

fn credentials() -> IceCredentials {
    use rand::Rng;
    let mut rng = rand::rng();
    let mut text = |n: usize| (0..n).map(|_| char::from(rng.sample(rand::distr::Alphanumeric))).collect();
    // RFC 8445 5.3 asks for 24 and 128 bits; a character carries almost six.
    IceCredentials { ufrag: text(16), pwd: text(24) }
}
