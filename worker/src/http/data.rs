//! `{p}/sessions/{id}/data`: what is remembered of a session, read and written by the application's backend.
//!
//! The document is the one that the handler sees, and stays readable while the session could be resumed. It has a version,
//! which its entity tag names: a backend that shows the tag it has read overwrites nobody's work.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Extensions, HeaderMap, header};
use axum::response::Response;
use serde_json::{Map, Value};
use streamfleet_session::SessionId;
use streamfleet_session::wire::client::parse_patch;
use streamfleet_session::wire::{BodyError, Failure};
use streamfleet_store::{ContextId, Document, Expected, InvalidData, WriteError, merge};

use super::access::{Authority, Holder, unavailable};
use super::body::{self, BodyFault};
use super::etag::{Comparison, Tag, Tags};
use super::offer::FULL_RETRY;
use super::{Audit, Door, reply, source};

/// What a document may be patched with (RFC 7396, 4; RFC 5789, 3.1). Plain JSON means the same.
pub(super) const PATCHES: &str = "application/merge-patch+json, application/json";

/// Writers of one document are a handler and a backend: whoever loses this often is not racing, it is starved.
const ATTEMPTS: usize = 16;

/// Why there is no document to answer with.
enum Refused {
    Body(BodyFault),
    Shape(BodyError),
    Failed(Failure),
    MediaType,
    /// It has this version.
    Precondition(Tag),
}

impl Refused {
    fn label(&self) -> &'static str {
        match self {
            Self::Body(fault) => fault.as_str(),
            Self::Shape(_) => "invalid_body",
            Self::Failed(failure) => failure.as_str(),
            Self::MediaType => "unsupported_media_type",
            Self::Precondition(_) => "precondition_failed",
        }
    }

    fn response(&self) -> Response {
        match self {
            Self::Body(fault) => reply::body_fault(*fault),
            Self::Shape(error) => reply::shape(error),
            Self::Failed(failure) => reply::failure(failure),
            Self::MediaType => reply::unsupported_media_type(PATCHES),
            Self::Precondition(current) => reply::precondition_failed(*current),
        }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub(super) async fn read(
    State(door): State<Arc<Door>>,
    Extension(authority): Extension<Authority>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response {
    let source = source(&extensions);
    let document = match door.data_of(authority, id, source).await {
        Ok((_, context)) => door.document(context).await.map(|document| (context, document)),
        Err(failure) => Err(failure),
    };
    match document {
        Ok((context, document)) => {
            let seen = Tags::parse(&headers, &header::IF_NONE_MATCH, Comparison::Weak);
            let tag = Tag::new(context, document.version);
            if seen.is_some_and(|seen| seen.matches(tag)) {
                door.api.record.control("data_unchanged");
                return reply::not_modified(tag);
            }
            door.api.record.control("data_read");
            reply::document(&document, tag)
        }
        Err(failure) => {
            door.api.record.control(failure.as_str());
            reply::failure(&failure)
        }
    }
}

pub(super) async fn patch(
    State(door): State<Arc<Door>>,
    Extension(authority): Extension<Authority>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let source = source(request.extensions());
    let (id, context) = match door.data_of(authority, id, source).await {
        Ok(found) => found,
        Err(failure) => {
            door.api.record.control(failure.as_str());
            return reply::failure(&failure);
        }
    };
    let outcome = door.patch(context, request).await;
    let label = outcome.as_ref().map_or_else(Refused::label, |_| "data_written");
    door.api.record.control(label);
    Audit { service: &door.service.name, session: &id, user: None }.controlled(source, label);
    outcome.map_or_else(
        |refused| refused.response(),
        |document| reply::document(&document, Tag::new(context, document.version)),
    )
}

impl Door {
    /// Whose data it is: the session's that shows its token, else that of the session that lives under the id, or last did.
    async fn data_of(
        &self,
        authority: Authority,
        id: Result<Path<String>, PathRejection>,
        source: SocketAddr,
    ) -> Result<(SessionId, ContextId), Failure> {
        let id: SessionId = id.ok().and_then(|id| id.0.parse().ok()).ok_or(Failure::NotFound)?;
        let holder = self.holder(authority, &id).await;
        let context = match holder.inspect_err(|failure| self.denied(&id, source, failure))? {
            Holder::Client(context) => context,
            // Where the session itself is, nobody else need be asked: its store may be away.
            Holder::Operator if let Some(live) = self.session(&id) => live.context,
            Holder::Operator => {
                let found = self.api.host.contexts(&self.service.name).find(&self.context_key(&id)).await;
                found.map_err(unavailable)?.ok_or(Failure::NotFound)?
            }
        };
        Ok((id, context))
    }

    async fn document(&self, context: ContextId) -> Result<Document, Failure> {
        self.api.host.contexts(&self.service.name).read(context).await.map_err(unavailable)?.ok_or(Failure::NotFound)
    }

    async fn patch(&self, context: ContextId, request: Request) -> Result<Document, Refused> {
        let expected = Tags::parse(request.headers(), &header::IF_MATCH, Comparison::Strong);
        if !is_patch(request.headers()) {
            return Err(Refused::MediaType);
        }
        let body: Bytes = body::read(request.into_body()).await.map_err(Refused::Body)?;
        let patch = parse_patch(&body).map_err(Refused::Shape)?;
        self.write(context, &patch, expected.as_ref()).await
    }

    /// Patches the version that is expected or, where none is, whichever is there when its turn comes.
    async fn write(
        &self,
        context: ContextId,
        patch: &Map<String, Value>,
        expected: Option<&Tags>,
    ) -> Result<Document, Refused> {
        for _ in 0..ATTEMPTS {
            let Document { mut data, version } = self.document(context).await?;
            let tag = Tag::new(context, version);
            if expected.is_some_and(|expected| !expected.matches(tag)) {
                return Err(Refused::Precondition(tag));
            }
            merge(&mut data, patch.clone());
            match self
                .api
                .host
                .contexts(&self.service.name)
                .write(context, data.clone(), Expected::Version(version))
                .await
            {
                Ok(version) => return Ok(Document { data, version }),
                Err(WriteError::Conflict { .. }) => {}
                Err(WriteError::Invalid(InvalidData::TooLarge)) => return Err(Failure::PayloadTooLarge.into()),
                Err(WriteError::Invalid(rule @ InvalidData::TooDeep)) => {
                    return Err(Refused::Shape(BodyError::refused(&rule)));
                }
                Err(WriteError::Gone) => return Err(Failure::NotFound.into()),
                Err(WriteError::Store(error)) => return Err(unavailable(error).into()),
            }
        }
        Err(Failure::NoCapacity { retry_after: FULL_RETRY }.into())
    }
}

fn is_patch(headers: &HeaderMap) -> bool {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = named.and_then(|text| text.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| PATCHES.split(", ").any(|known| known.eq_ignore_ascii_case(essence)))
}
