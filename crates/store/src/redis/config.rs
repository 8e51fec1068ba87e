//! Where the Redis is and how it is spoken to.

use std::fmt;
use std::time::Duration;

use crate::memory::Bounds;
use crate::words::Terms;

/// A node's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Which arrangement of nodes it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrangement {
    /// One node, or an address behind which somebody sees to that.
    Single(Address),
    /// A primary that Sentinels name.
    Sentinel {
        /// Some of the Sentinels.
        sentinels: Vec<Address>,
        /// The name that they know the primary by.
        primary: String,
        /// For the Sentinels, if they ask for it.
        login: Option<Login>,
    },
    /// A Cluster; some of its nodes.
    Cluster(Vec<Address>),
}

/// Who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; `None` for the default user.
    pub user: Option<String>,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.user)
    }
}

/// TLS to every node. The process installs rustls' provider before it connects.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities to trust, in PEM; those of the system if `None`.
    pub authorities: Option<Vec<u8>>,
    /// Our certificate and its key, in PEM, where it asks for them.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// All that a [`RedisStore`](super::RedisStore) needs to know.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Where it is.
    pub arrangement: Arrangement,
    /// Who we are.
    pub login: Option<Login>,
    /// Whether it speaks TLS.
    pub tls: Option<Tls>,
    /// The longest that a connection may take to be made.
    pub connect_deadline: Duration,
    /// The longest that a command may take. Far above what any of ours takes, below what a client's offer can wait.
    pub command_deadline: Duration,
    /// How long things last.
    pub terms: Terms,
    /// How many contexts a service has, and how large. Retention holds for contexts opened without a claim.
    pub bounds: Bounds,
}

impl RedisConfig {
    /// With default deadlines, terms and bounds.
    #[must_use]
    pub fn new(arrangement: Arrangement) -> Self {
        Self {
            arrangement,
            login: None,
            tls: None,
            connect_deadline: Duration::from_millis(1000),
            command_deadline: Duration::from_millis(500),
            terms: Terms::default(),
            bounds: Bounds::default(),
        }
    }
}
