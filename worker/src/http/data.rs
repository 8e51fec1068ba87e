//! `{p}/sessions/{id}/data`: what is remembered of a session, read and written by the application's backend.
//!
//! The document is the one that the handler sees, and stays readable while the session could be resumed. It has a version,
//! which is its entity tag: a backend that names the version it has read overwrites nobody's work.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, header};
use axum::response::Response;
use serde_json::{Map, Value};
use streamfleet_session::SessionId;
use streamfleet_session::wire::client::parse_patch;
use streamfleet_session::wire::{BodyError, Failure};
use streamfleet_store::{ContextId, Document, Expected, InvalidData, Version, WriteError, merge};

use super::access::{Authority, Holder, unavailable};
use super::body::{self, BodyFault};
use super::offer::FULL_RETRY;
use super::{Audit, Door, reply, source};

/// What a document may be patched with (RFC 7396, 4; RFC 5789, 3.1). Plain JSON means the same.
pub(super) const PATCHES: &str = "application/merge-patch+json, application/json";

/// Writers of one document are a handler and a backend: whoever loses this often is not racing, it is starved.
const ATTEMPTS: usize = 16;

/// Entity tags of a conditional request (RFC 9110, 13.1).
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    These(Vec<Version>),
}

/// How two entity tags compare (RFC 9110, 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

impl Tags {
    /// What the header says; `None` if it is not there. What is no tag of ours matches nothing.
    fn parse(headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Option<Self> {
        if !headers.contains_key(name) {
            return None;
        }
        let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let tags: Vec<&str> = texts.flat_map(|text| text.split(',')).map(str::trim).collect();
        if tags.contains(&"*") {
            return Some(Self::Any);
        }
        let strong = |tag: &&str| match comparison {
            Comparison::Strong => tag.parse().ok(),
            Comparison::Weak => tag.strip_prefix("W/").unwrap_or(tag).parse().ok(),
        };
        Some(Self::These(tags.iter().filter_map(strong).collect()))
    }

    fn matches(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.contains(&version),
        }
    }
}

/// Why there is no document to answer with.
enum Refused {
    Body(BodyFault),
    Shape(BodyError),
    Failed(Failure),
    MediaType,
    /// It has this version.
    Precondition(Version),
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
        Ok((_, context)) => door.document(context).await,
        Err(failure) => Err(failure),
    };
    match document {
        Ok(document) => {
            let seen = Tags::parse(&headers, &header::IF_NONE_MATCH, Comparison::Weak);
            if seen.is_some_and(|seen| seen.matches(document.version)) {
                door.api.record.control("data_unchanged");
                return reply::not_modified(document.version);
            }
            door.api.record.control("data_read");
            reply::document(&document)
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
    outcome.map_or_else(|refused| refused.response(), |document| reply::document(&document))
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
            Holder::Operator => {
                let found = self.api.host.contexts().find(&self.context_key(&id)).await;
                found.map_err(unavailable)?.ok_or(Failure::NotFound)?
            }
        };
        Ok((id, context))
    }

    async fn document(&self, context: ContextId) -> Result<Document, Failure> {
        self.api.host.contexts().read(context).await.map_err(unavailable)?.ok_or(Failure::NotFound)
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
            if expected.is_some_and(|expected| !expected.matches(version)) {
                return Err(Refused::Precondition(version));
            }
            merge(&mut data, patch.clone());
            match self.api.host.contexts().write(context, data.clone(), Expected::Version(version)).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_of_requests() {
        #[track_caller]
        fn check(values: &[&'static str], strong: &[u64], weak: &[u64]) {
            let headers: HeaderMap = values.iter().map(|value| (header::IF_MATCH, value.parse().unwrap())).fold(
                HeaderMap::new(),
                |mut all, (name, value)| {
                    all.append(name, value);
                    all
                },
            );
            let these = |versions: &[u64]| Some(Tags::These(versions.iter().copied().map(Version).collect()));
            assert_eq!(Tags::parse(&headers, &header::IF_MATCH, Comparison::Strong), these(strong), "{values:?}");
            assert_eq!(Tags::parse(&headers, &header::IF_MATCH, Comparison::Weak), these(weak), "{values:?}");
        }
        check(&["\"7\""], &[7], &[7]);
        check(&["W/\"7\""], &[], &[7]);
        check(&["\"1\" , \"2\"", "\"3\""], &[1, 2, 3], &[1, 2, 3]);
        check(&["7"], &[], &[]);
        check(&["\"a,b\", \"7\""], &[7], &[7]);
        check(&[""], &[], &[]);
        let headers = HeaderMap::new();
        assert_eq!(Tags::parse(&headers, &header::IF_MATCH, Comparison::Strong), None);
        let any = HeaderMap::from_iter([(header::IF_MATCH, "*".parse().unwrap())]);
        assert_eq!(Tags::parse(&any, &header::IF_MATCH, Comparison::Strong), Some(Tags::Any));
    }
}
