//! Where clients are told to send to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A public address: `IP:PORT`, or `IP` where the port is the relay's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertised {
    /// The address.
    pub ip: IpAddr,
    /// Its port, if a load balancer has another one.
    pub port: Option<u16>,
}

impl Advertised {
    /// Where that is, of a relay with this port.
    #[must_use]
    pub fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

/// Neither `IP:PORT` nor `IP`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected IP:PORT or IP, got {0:?}")]
pub struct NoAddress(String);

impl FromStr for Advertised {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let whole = text.parse().map(|at: SocketAddr| Self { ip: at.ip(), port: Some(at.port()) });
        whole.or_else(|_| text.parse().map(|ip| Self { ip, port: None })).map_err(|_| NoAddress(text.to_owned()))
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl Serialize for Advertised {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Advertised {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_of_its_own_or_the_relays() {
        for (text, at) in [
            ("192.0.2.1:443", "192.0.2.1:443"),
            ("192.0.2.1", "192.0.2.1:3478"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("2001:db8::1", "[2001:db8::1]:3478"),
        ] {
            let advertised: Advertised = text.parse().unwrap();
            assert_eq!((advertised.at(3478), advertised.to_string()), (at.parse().unwrap(), text.to_owned()));
        }
        for text in ["", "example.com", "192.0.2.1:", "192.0.2.1:65536", "[::1]"] {
            assert_eq!(text.parse::<Advertised>(), Err(NoAddress(text.to_owned())));
        }
    }
}
