//! Who has a path that two services want, by the rule that routers go by as well.

use streamfleet_service::precedence;

use crate::names::Key;

pub use precedence::losers;

/// What a service wants.
pub type Wish = precedence::Wish<Key>;
/// A path that somebody else has.
pub type Conflict = precedence::Conflict<Key>;
