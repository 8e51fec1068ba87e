//! Which store a process uses.

use std::sync::Arc;

use crate::Store;
use crate::memory::Memory;
use crate::redis::{RedisConfig, RedisStore};
use crate::users::Users;
use crate::words::Terms;

/// Which store a process uses.
#[derive(Debug, Clone)]
pub enum Backend {
    /// A Redis.
    Redis(Box<RedisConfig>),
    /// One that whole fleets share which live in one process.
    Memory(Arc<Memory>),
}

impl Backend {
    /// How long things last in it.
    #[must_use]
    pub fn terms(&self) -> Terms {
        match self {
            Self::Redis(config) => config.terms,
            Self::Memory(memory) => memory.terms(),
        }
    }

    /// The store. A Redis is connected to from here on, by tasks of the runtime that this is called in.
    #[must_use]
    pub fn open(self) -> Arc<dyn Store> {
        self.open_with_users().0
    }

    /// The same, and whoever makes its users, if it has any.
    #[must_use]
    pub fn open_with_users(self) -> (Arc<dyn Store>, Option<Arc<dyn Users>>) {
        match self {
            Self::Redis(config) => {
                let store = Arc::new(RedisStore::new(*config));
                (store.clone(), Some(store))
            }
            Self::Memory(memory) => (memory, None),
        }
    }
}
