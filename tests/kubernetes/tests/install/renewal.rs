//! Another certificate for the routers, under calls that are live. A kubelet brings it to the pods within a minute and a half, and
//! other scenarios do not wait for that.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Result, ensure};
use streamfleet_kubernetes_tests::{Talk, eventually, pods, tell};

use super::LIMIT;
use super::site::{HOME, Site, certificate};
use super::upgrade;

/// Prints the certificate that a router shows. Whoever has signed it: clients outside see to that, in all scenarios.
const ASK: &str = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], 8080)))";

/// Calls that began under the first certificate.
pub(crate) struct Renewal<'a> {
    site: &'a Site<'a>,
    calls: [Talk; 2],
}

impl<'a> Renewal<'a> {
    /// Begins to call. The WebSocket is a connection of TLS for as long as it lasts.
    pub(crate) fn begin(site: &'a Site<'a>) -> Result<Self> {
        upgrade::steady(site)?;
        let call = |transport| site.talk(upgrade::PATH, &["--wait", "60", "--transport", transport]);
        Ok(Self { site, calls: [call("webrtc")?, call("websocket")?] })
    }

    /// Changes the Secret, once the calls are live.
    pub(crate) async fn replace(&self) -> Result<()> {
        eventually("the calls are live", LIMIT, async || {
            let mut sessions = 0.0;
            for worker in self.site.pods(HOME, &format!("streamfleet.dev/service={}", upgrade::STEADY)).await? {
                let metrics = pods::metrics(self.site.cluster, pods::address(&worker)?)?;
                sessions += metrics.sum("streamfleet_sessions_admitted").unwrap_or_default();
            }
            Ok((sessions == self.calls.len() as f64).then_some(()))
        })
        .await?;
        let before = bare(&self.site.signed.certificate);
        let shown = self.shown().await?;
        ensure!(are_all(&shown, &before), "{shown:?} instead of {before}");
        self.site.cluster.apply(&certificate(&self.site.renewed))
    }

    /// All routers show the other certificate, and the calls go on.
    pub(crate) async fn served(mut self) -> Result<()> {
        let renewed = bare(&self.site.renewed.certificate);
        eventually("all routers have the other certificate", LIMIT, async || {
            Ok(are_all(&self.shown().await?, &renewed).then_some(()))
        })
        .await?;
        for call in &mut self.calls {
            ensure!(!call.has_ended()?, "a call has ended");
        }
        for call in self.calls {
            let said = call.hang_up().await?;
            let (transport, back) = (&said["transport"], &said["reconnects"]);
            tell(
                self.site.cluster,
                &format!("another certificate: {transport} {}, came back {back} times", said["verdict"]),
            )?;
            ensure!(said["verdict"] == "heard" && said["reconnects"] == 0, "{said}");
        }
        Ok(())
    }

    /// What each router shows at present.
    async fn shown(&self) -> Result<Vec<String>> {
        let ask = |router: &Ipv4Addr| -> Result<String> {
            let mut command = Command::new("python3");
            let said = self.site.cluster.control().output(command.args(["-c", ASK, &router.to_string()]))?;
            Ok(bare(&said))
        };
        self.site.routers().await?.iter().map(ask).collect()
    }
}

/// Whether both routers show this.
fn are_all(shown: &[String], certificate: &str) -> bool {
    shown.len() == 2 && shown.iter().all(|shown| shown == certificate)
}

/// PEM without its line ends, which are everybody's own.
fn bare(pem: &str) -> String {
    pem.split_whitespace().collect()
}
