//! Requests to what services name: admission webhooks, and issuers of keys.
//!
//! Whoever may write a service chooses these URLs, and a router asks from where it is. Link-local addresses are never asked: there clouds tell
//! each machine its credentials. What else must not be reached is for the network to say.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::net::lookup_host;

/// An address that only this machine's own link has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a link-local address is not asked")]
pub struct LinkLocal;

/// What asks. What answers is neither followed elsewhere nor asked through a proxy: it decides who is let in.
///
/// # Errors
/// TLS cannot be set up.
pub fn client() -> reqwest::Result<Client> {
    Client::builder().no_proxy().redirect(Policy::none()).dns_resolver(Names).build()
}

/// Looks at an address that stands in a URL itself, which nobody resolves; names are looked at when a [`client`] resolves them.
///
/// # Errors
/// [`LinkLocal`].
pub fn check(url: &str) -> Result<(), LinkLocal> {
    // As it is going to be asked: a URL has many ways to write an address.
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(ip) if is_link_local(ip) => Err(LinkLocal),
        // A name, or a URL that the client refuses.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The system's resolver, without addresses that are not asked.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is the URL's.
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            let asked: Vec<SocketAddr> = found.iter().copied().filter(|at| !is_link_local(at.ip())).collect();
            if asked.is_empty() && !found.is_empty() {
                return Err(LinkLocal.into());
            }
            Ok(Box::new(asked.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_link_are_not_asked_however_they_are_written() {
        for (url, is_asked) in [
            ("http://169.254.169.254/latest/meta-data/iam/", false),
            ("https://169.254.0.1:8443/", false),
            ("http://2852039166/", false),
            ("http://0xa9fea9fe/", false),
            ("http://169.254.43518/", false),
            ("http://0251.0376.0251.0376/", false),
            ("http://[fe80::1]/", false),
            ("http://[FEBF::1]:80/", false),
            ("http://[::ffff:169.254.169.254]/", false),
            ("http://[::ffff:a9fe:a9fe]/", false),
            ("http://169.253.255.255/", true),
            ("http://127.0.0.1:8080/", true),
            ("http://10.0.0.1/?169.254.169.254", true),
            ("http://[fec0::1]/", true),
            ("https://issuer.example.com/169.254.169.254", true),
            ("no url", true),
        ] {
            assert_eq!(check(url).is_ok(), is_asked, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_there_leads_nowhere() {
        // A resolver takes an address for a name that stands for it.
        for (name, is_asked) in
            [("169.254.169.254", false), ("fe80::1", false), ("::ffff:169.254.0.1", false), ("::1", true)]
        {
            let found = Names.resolve(name.parse().unwrap()).await;
            assert_eq!(found.is_ok(), is_asked, "{name}");
        }
    }
}
