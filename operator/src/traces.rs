//! What traces say of a look: a span of its own for each part that asks somebody else, and how it ended.

use std::future::Future;

use tracing::{Instrument as _, Span};

use crate::metrics::Outcome;

/// Does a part of a look in its span.
pub(crate) async fn part<T, E>(span: Span, part: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let done = part.instrument(span.clone()).await;
    ended(&span, done.as_ref().map_or(Outcome::Error, |_| Outcome::Ok));
    done
}

/// Says in a span how that which it is about has ended.
pub(crate) fn ended(span: &Span, outcome: Outcome) {
    span.record("outcome", outcome.label());
}
