//! Where secrets are.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Where a secret is. Its text never stands in a specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum SecretSource {
    /// A file.
    File(String),
    /// An environment variable of the process that reads the specification.
    Env(String),
    /// A key of a Secret in the service's namespace.
    SecretKeyRef(SecretKeyRef),
}

/// A key of a Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// In a cluster a secret is a Secret's: files and variables are those of the router, which serves many owners of services, and none of
/// them may have it read what he cannot read himself. So the API server does not know the other two.
impl JsonSchema for SecretSource {
    fn schema_name() -> Cow<'static, str> {
        "SecretSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut reference = generator.subschema_for::<SecretKeyRef>();
        reference.insert("description".to_owned(), "A key of a Secret in the service's namespace.".into());
        json_schema!({
            "type": "object",
            "properties": { "secretKeyRef": reference },
            "required": ["secretKeyRef"],
        })
    }
}
