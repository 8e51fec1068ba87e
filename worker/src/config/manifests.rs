//! The services of a worker from the manifests that its routers read: what of a StreamService a worker obeys.
//!
//! Paths, hosts, who is calling, how often, contexts and routing are the routers' part.

use std::sync::Arc;

use streamfleet_process::config::Mistakes;
use streamfleet_service::spec::SecretSource;
use streamfleet_service::{IdentitySource, Service as Manifest};
use streamfleet_session::{IdentityPolicy, PathPrefix};

use super::plan::HandlerCheck;
use crate::http::{Callers, Proxy, Service, Telephone};

/// A file with a secret is a line; one that is longer is another file by mistake.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// What these manifests say, for a worker of a fleet.
pub(super) fn services(
    manifests: Vec<(String, Manifest)>,
    handler: HandlerCheck<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Arc<Service>> {
    let mut services = Vec::new();
    for (file, manifest) in manifests {
        if let Err(problem) = handler(&manifest.handler.name, &manifest.handler.config) {
            mistakes.push("spec.handler", format!("{problem} (service {} in {file})", manifest.name));
        }
        services.push(Arc::new(service(manifest, &file, mistakes)));
    }
    services
}

fn service(manifest: Manifest, file: &str, mistakes: &mut Mistakes) -> Service {
    let said = manifest.identity.user_id_from.into_iter().filter_map(|source| match source {
        IdentitySource::Said(said) => Some(said),
        // Only a router verifies tokens, and tells of their users.
        IdentitySource::Claim(_) => None,
    });
    let defaults = Telephone::default();
    let spec = manifest.telephone;
    let telephone = Telephone {
        before: spec.before.unwrap_or(defaults.before),
        after: spec.after.unwrap_or(defaults.after),
        callers: spec.auth_token.map_or(Callers::Anybody, |source| {
            let token = secret(&source).map_err(|problem| format!("{problem} (service {} in {file})", manifest.name));
            let token = mistakes.check("spec.telephone.authToken", token);
            Callers::Signed(token.unwrap_or_default().into())
        }),
        proxy: Proxy::None,
    };
    Service {
        // Where routers ask. A name that is no path (a route's) is none's other path either.
        path: format!("/{}", manifest.name).parse().unwrap_or_else(|_| PathPrefix::root()),
        aliases: Vec::new(),
        handler: manifest.handler.name,
        handler_config: manifest.handler.config,
        modality: manifest.modality,
        limits: manifest.limits,
        identity: IdentityPolicy { user_id_from: said.collect(), metadata: manifest.identity.metadata },
        telephone,
        capacity: Some(manifest.sessions_per_worker),
        name: manifest.name,
    }
}

fn secret(source: &SecretSource) -> Result<String, String> {
    let text = match source {
        SecretSource::File(path) => read(path).map_err(|error| format!("{path}: {error}"))?,
        SecretSource::Env(name) => std::env::var(name).map_err(|_| format!("there is no variable {name}"))?,
        SecretSource::SecretKeyRef(_) => {
            return Err("a Secret is the operator's to read; name a file or a variable".to_owned());
        }
    };
    // Editors end files with a line; a secret does not.
    let text = text.trim_end();
    // Anybody can sign with nothing.
    if text.is_empty() { Err("the secret is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn read(path: &str) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_SECRET_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
