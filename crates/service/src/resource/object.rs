//! One StreamService.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamfleet_process::config::{Layers, Mistakes};
use streamfleet_session::ServiceName;

use super::bounded::{self, Bounded};
use super::definition::PLURAL;
use super::meta;
use super::rules::UNBOUNDED;
use super::status::StreamServiceStatus;
use crate::manifest::{API_VERSION, KIND};
use crate::service::Service;
use crate::spec::{Disruption, ScalingMode, SecretSource, StreamServiceSpec};

/// The group of the resource.
pub const GROUP: &str = "streamfleet.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";

/// A StreamService as the API server returns it, and takes it. Who wrote which part of it is not read.
///
/// One that this program cannot read (it was written under a later definition, or an earlier one) is an object all the same: a list of
/// them must not fail for the sake of one.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamService {
    /// Its name, namespace, labels, age.
    pub metadata: ObjectMeta,
    /// What it is to be, or why that cannot be read.
    pub spec: Result<Box<StreamServiceSpec>, Mistakes>,
    /// What an operator has said of it last; nothing where none has, or where that cannot be read.
    pub status: StreamServiceStatus,
}

impl StreamService {
    /// One that is to be made.
    #[must_use]
    pub fn new(name: &str, spec: StreamServiceSpec) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        Self { metadata, spec: Ok(Box::new(spec)), status: StreamServiceStatus::default() }
    }

    /// Its name in the fleet: `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// A name that is no DNS label: services have none, resources may.
    pub fn service_name(&self) -> Result<ServiceName, Mistakes> {
        let (namespace, name) = (self.metadata.namespace.as_deref(), self.metadata.name.as_deref().unwrap_or_default());
        let whole = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        let mut mistakes = Mistakes::new();
        mistakes.check("metadata.name", whole.parse()).ok_or(mistakes)
    }

    /// When it was made, in seconds since the Unix epoch; as late as can be where nobody has said so.
    #[must_use]
    pub fn created(&self) -> i64 {
        self.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
    }
}

impl Service {
    /// What a resource says, checked.
    ///
    /// # Errors
    /// Every mistake, with its key: those of any specification, and what holds in a cluster alone.
    pub fn from_resource(resource: &StreamService) -> Result<Self, Mistakes> {
        let name = resource.service_name()?;
        let spec = resource.spec.as_ref().map_err(Clone::clone)?;
        let mut mistakes = Mistakes::new();
        only_secrets_of_the_cluster(spec, &mut mistakes);
        match Self::new(name, StreamServiceSpec::clone(spec)) {
            Ok(mut service) => {
                // Here there is an operator.
                let scaling = &service.operation.autoscaling;
                service.grows_to = (scaling.mode == ScalingMode::Sessions).then_some(scaling.max);
                if !service.has_bounded_drains() && service.operation.disruption != Disruption::Always {
                    mistakes.push("spec.limits.timeLimitSeconds", UNBOUNDED);
                }
                mistakes.or(service)
            }
            Err(found) => {
                mistakes.extend(found);
                Err(mistakes)
            }
        }
    }
}

/// Files and variables are the router's, which reads them for everybody.
fn only_secrets_of_the_cluster(spec: &StreamServiceSpec, mistakes: &mut Mistakes) {
    let named = [
        ("spec.identity.jwt.secret", spec.identity.jwt.as_ref().and_then(|jwt| jwt.secret.as_ref())),
        ("spec.media.turn.secret", spec.media.turn.secret.as_ref()),
        ("spec.telephone.authToken", spec.telephone.auth_token.as_ref()),
    ];
    for (key, source) in named {
        if let Some(SecretSource::File(_) | SecretSource::Env(_)) = source {
            mistakes.push(key, "in a cluster a secret is named by secretKeyRef");
        }
    }
}

/// The object as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Form<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: &'a ObjectMeta,
    spec: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    status: Value,
}

/// What of an object is read. Of the rest nothing is kept, however it looks.
#[derive(Deserialize)]
struct Told {
    #[serde(default, deserialize_with = "meta::unmanaged")]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "bounded::written")]
    spec: Bounded,
    #[serde(default, deserialize_with = "bounded::seen")]
    status: Bounded,
}

impl Serialize for StreamService {
    /// # Errors
    /// A specification that could not be read is not written: it would be lost.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let spec = self.spec.as_ref().map_err(serde::ser::Error::custom)?;
        let value = |value: serde_json::Result<Value>| value.map_err(serde::ser::Error::custom);
        let status = if self.status == StreamServiceStatus::default() {
            Value::Null
        } else {
            value(serde_json::to_value(&self.status))?
        };
        let form = Form {
            api_version: API_VERSION,
            kind: KIND,
            metadata: &self.metadata,
            spec: value(serde_json::to_value(spec))?,
            status,
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StreamService {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Told { metadata, spec, status } = Told::deserialize(deserializer)?;
        let status = serde_json::from_value(status.value).unwrap_or_default();
        Ok(Self { metadata, spec: read(spec), status })
    }
}

/// A specification, or every mistake in it.
fn read(Bounded { value: spec, fault }: Bounded) -> Result<Box<StreamServiceSpec>, Mistakes> {
    if let Some(fault) = fault {
        let mut mistakes = Mistakes::new();
        mistakes.push(fault.key("spec"), fault.to_string());
        return Err(mistakes);
    }
    // What is right, as nearly all of them are, is read once.
    if let Ok(spec) = StreamServiceSpec::deserialize(&spec) {
        return Ok(Box::new(spec));
    }
    #[derive(Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        spec: StreamServiceSpec,
    }
    let text = serde_json::json!({ "spec": spec }).to_string();
    let loaded = Layers::new("").yaml("the resource", text).load::<Whole>();
    let mut mistakes = Mistakes::new();
    for mistake in loaded.mistakes.iter() {
        mistakes.push(&*mistake.key, &*mistake.message);
    }
    if mistakes.is_empty() {
        mistakes.push("spec", "cannot be read");
    }
    Err(mistakes)
}

impl kube::Resource for StreamService {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
