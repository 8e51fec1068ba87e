//! YAML documents that hold StreamServices: what `kubectl apply` takes, from files.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use streamfleet_process::config::{Layers, Mistakes};
use streamfleet_session::ServiceName;

use crate::service::Service;
use crate::spec::StreamServiceSpec;

/// The group and version of the resource.
pub const API_VERSION: &str = "streamfleet.dev/v1alpha1";
/// Its kind.
pub const KIND: &str = "StreamService";

/// The longest text, in bytes: as much as an API server takes.
pub const MAX_TEXT: usize = 3 << 20;
/// Documents in one text.
pub const MAX_DOCUMENTS: usize = 1_000;

/// One document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Manifest {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Its name.
    pub metadata: Meta,
    /// What it is.
    pub spec: StreamServiceSpec,
    /// What an API server says about it; not looked at.
    pub status: Value,
}

/// The part of Kubernetes' object metadata that is looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// A DNS label.
    pub name: String,
    /// A DNS label, or empty.
    pub namespace: String,
    /// Labels, annotations and all else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Meta {
    /// As a service is called in a fleet.
    fn service_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// The services in a text of one or more YAML documents; empty documents are none. `origin` is the text's name in messages.
///
/// # Errors
/// Every mistake of every document, with its key and the number of the document.
pub fn read(origin: &str, text: &str) -> Result<Vec<Service>, Mistakes> {
    let mut mistakes = Mistakes::new();
    let services = usable(origin, text, &mut mistakes);
    mistakes.or(services)
}

/// Likewise: those that can be used, beside the mistakes of the others.
pub(crate) fn usable(origin: &str, text: &str, mistakes: &mut Mistakes) -> Vec<Service> {
    if text.len() > MAX_TEXT {
        mistakes.push("", format!("{origin} is longer than {MAX_TEXT} bytes"));
        return Vec::new();
    }
    let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => {
            let first = error.to_string().lines().next().unwrap_or_default().to_owned();
            mistakes.push("", format!("{origin} is not valid YAML: {first}"));
            return Vec::new();
        }
    };
    if documents.len() > MAX_DOCUMENTS {
        mistakes.push("", format!("{origin} has more than {MAX_DOCUMENTS} documents"));
        return Vec::new();
    }
    let many = documents.len() > 1;
    let mut services = Vec::new();
    for (n, document) in documents.into_iter().enumerate().filter(|(_, document)| !document.is_null()) {
        let name = if many { format!("{origin}, document {}", n + 1) } else { origin.to_owned() };
        match one(&name, &document) {
            Ok(service) => services.push(service),
            Err(found) => mistakes.extend(found),
        }
    }
    services
}

fn one(origin: &str, document: &Value) -> Result<Service, Mistakes> {
    // JSON is YAML: the document goes through the same reader as every configuration, which goes on past each mistake.
    let loaded = Layers::new("").yaml(origin, document.to_string()).load::<Manifest>();
    let (manifest, mut mistakes) = (loaded.config, loaded.mistakes);
    // Of something else nothing more is to be said.
    if manifest.kind != KIND {
        let mut wrong = Mistakes::new();
        wrong.push("kind", format!("{:?} is not {KIND} ({origin})", shown(&manifest.kind)));
        return Err(wrong);
    }
    if manifest.api_version != API_VERSION {
        mistakes.push("apiVersion", format!("{:?} is not {API_VERSION} ({origin})", shown(&manifest.api_version)));
    }
    let name = manifest.metadata.service_name().parse::<ServiceName>().map_err(|error| format!("{error} ({origin})"));
    let Some(name) = mistakes.check("metadata.name", name) else { return Err(mistakes) };
    match Service::new(name, manifest.spec) {
        Ok(service) => mistakes.or(service),
        Err(found) => {
            for mistake in found.iter() {
                mistakes.push(&*mistake.key, format!("{} ({origin})", mistake.message));
            }
            Err(mistakes)
        }
    }
}

/// The beginning of a text that may be anything.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        read("fleet.yaml", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    const ECHO: &str = "
apiVersion: streamfleet.dev/v1alpha1
kind: StreamService
metadata: {name: echo, labels: {app: echo}}
spec:
  handler: {name: echo}
";

    #[test]
    fn the_example_is_two_services() {
        let services = read("services.yaml", include_str!("../../../examples/fleet/services.yaml")).unwrap();
        let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["assistant", "rooms"]);
    }

    #[test]
    fn documents_are_services() {
        let services =
            read("fleet.yaml", &format!("{ECHO}---\n---{}", ECHO.replace("name: echo, ", "name: a, namespace: b, ")))
                .unwrap();
        let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["echo", "b/a"]);
        assert_eq!(read("fleet.yaml", "").unwrap(), []);
    }

    #[test]
    fn what_an_api_server_returns_can_be_read() {
        let text = format!("{ECHO}  limits:\nstatus: {{replicas: 3}}\n")
            .replace("labels:", "uid: 1f3c, generation: 4, labels:");
        assert_eq!(read("fleet.yaml", &text).unwrap().len(), 1);
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = format!(
            "{ECHO}---{}",
            ECHO.replace("name: echo, ", "name: Echo!, ").replace("handler:", "handlers:").replace("v1alpha1", "v2")
        );
        let found = mistakes(&text);
        for part in ["spec.handlers", "apiVersion: \"streamfleet.dev/v2\" is not", "metadata.name: "] {
            assert!(
                found.iter().any(|mistake| mistake.contains(part) && mistake.contains("document 2")),
                "{part}: {found:#?}"
            );
        }
        assert_eq!(
            mistakes("kind: Deployment\nspec: {replicas: 3}"),
            ["kind: \"Deployment\" is not StreamService (fleet.yaml)"]
        );
        assert!(mistakes("a: [")[0].starts_with("fleet.yaml is not valid YAML"));
        assert!(mistakes("- 1")[0].contains("kind"), "{:?}", mistakes("- 1"));
        let types = mistakes(
            &ECHO.replace("handler: {name: echo}", "handler: {name: echo}\n  limits: {concurrency: many, perUser: 0}"),
        );
        for key in ["spec.limits.concurrency", "spec.limits.perUser"] {
            assert!(types.iter().any(|mistake| mistake.starts_with(key)), "{key}: {types:#?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = read("fleet.yaml", &text);
        }
    }
}
