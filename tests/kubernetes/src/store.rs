//! A Redis as companies have one: apart from the cluster, over TLS with certificates of both sides, with a user who may do no more
//! than docs/store.md names.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::part::Part;
use crate::plan::addresses;
use crate::programs::root;
use crate::tls::Authority;
use crate::wait::eventually;

/// It listens within this, however busy the machine.
const STARTS: Duration = Duration::from_secs(30);
/// Where clients of TLS find it.
const PORT: u16 = 6380;
const USER: &str = "fleet";
/// One that no URL takes.
const PASSWORD: &str = "p@ss/w%rd#of:redis";
/// What the chart is told the Secrets by.
const LOGIN: &str = "redis-login";
const CERTIFICATES: &str = "redis-certificates";

/// It runs beside the control plane until it is dropped.
pub struct Store {
    certificates: Value,
    _process: Part,
}

impl Store {
    /// Starts one, and waits until it listens.
    ///
    /// # Errors
    /// When `redis-server` is missing or ends, or docs/store.md names no rights.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let address = addresses::CONTROL.to_string();
        let authority = Authority::new()?;
        let (server, client) = (authority.sign(&[&address])?, authority.sign(&["streamfleet"])?);
        let write = |name: &str, text: &str| {
            let path = cluster.folder().join(name);
            fs::write(&path, text).map(|()| path.display().to_string())
        };
        let ca = write("redis-ca.crt", authority.certificate())?;
        let (certificate, key) = (write("redis.crt", &server.certificate)?, write("redis.key", &server.key)?);
        let documented = fs::read_to_string(root().join("docs/store.md"))?;
        let rights = rights(&documented).context("docs/store.md has no `ACL SETUSER`")?;
        let config = write(
            "redis.conf",
            &format!(
                "bind {address}\nport 0\ntls-port {PORT}\ntls-cert-file {certificate}\ntls-key-file {key}\n\
                 tls-ca-cert-file {ca}\ntls-auth-clients yes\nsave \"\"\nappendonly no\ndir {}\n\
                 user default off\nuser {USER} on >{PASSWORD} {rights}\n",
                cluster.folder().display()
            ),
        )?;
        let log = cluster.folder().join("redis.log");
        let process = Part::new("redis-server", vec!["redis-server".into(), config.into()], log, cluster.folder());
        process.start(cluster.control())?;
        eventually("redis-server listens", STARTS, async || {
            let listens =
                cluster.control().connect(SocketAddr::from((addresses::CONTROL, PORT)), Duration::from_secs(1));
            Ok(listens.is_ok().then_some(()))
        })
        .await?;
        let certificates =
            json!({ "ca.crt": authority.certificate(), "tls.crt": client.certificate, "tls.key": client.key });
        Ok(Self { certificates, _process: process })
    }

    /// The Secrets that whoever installs the chart makes of it.
    pub fn secrets(&self, namespace: &str) -> Vec<Value> {
        let secret = |name: &str, content: Value| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace },
                "stringData": content,
            })
        };
        vec![secret(LOGIN, json!({ "password": PASSWORD })), secret(CERTIFICATES, self.certificates.clone())]
    }

    /// The chart's `redis`.
    pub fn values(&self) -> Value {
        json!({
            "url": format!("rediss://{USER}@{}:{PORT}", addresses::CONTROL), "existingSecret": LOGIN,
            "tls": { "existingSecret": CERTIFICATES, "clientCertificate": true },
        })
    }
}

/// What docs/store.md has a user be given, for all services: whose list of held calls is one of these keys too.
fn rights(documented: &str) -> Option<String> {
    let (_, rest) = documented.split_once("ACL SETUSER fleet on >… ")?;
    let (rights, _) = rest.split_once("```")?;
    Some(rights.replace("{ns/name}:", "").split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_the_documents() {
        let text = "x\n```\nACL SETUSER fleet on >… resetchannels ~sf:{ns/name}:* &sf:{ns/name}:* -@all +eval\n  +get\n```\n+del";
        assert_eq!(rights(text).unwrap(), "resetchannels ~sf:* &sf:* -@all +eval +get");
        assert_eq!(rights("nothing"), None);
    }
}
