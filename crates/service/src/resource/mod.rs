//! The resource as the API server has it: `StreamService` of `streamfleet.dev/v1alpha1`.
//!
//! | module | noun |
//! |---|---|
//! | [`object`](self) | one StreamService, as it is watched and written |
//! | [`bounded`](self), [`meta`](self) | what of it anybody may have written as deep and as large as he likes |
//! | [`status`](self) | what an operator says of it |
//! | [`definition`](definition()) | the CustomResourceDefinition: the schema of [`spec`](crate::spec), and the rules |
//! | [`rules`](self) | what the API server refuses beyond types and bounds, in CEL |
//! | [`schema`](self) | a JSON Schema made structural, as Kubernetes demands |
//! | [`yaml`](self), [`reference`](reference()) | files that are made of the definition |

mod bounded;
mod definition;
mod meta;
mod object;
mod reference;
mod rules;
mod schema;
mod status;
mod yaml;

pub use self::bounded::is_printable;
pub use self::definition::{PLURAL, SHORT_NAME, definition, definition_yaml};
pub use self::object::{GROUP, StreamService, VERSION};
pub use self::reference::reference;
pub use self::status::StreamServiceStatus;

#[cfg(test)]
mod tests;
