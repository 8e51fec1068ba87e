//! The scripts: every step that has to be one, in the language of the server.

use redis::Script;

use super::config::RedisConfig;
use crate::calls::MAX_CALLS;
use crate::memory::{EMPTY_RETENTION, TOKEN_GRACE};
use crate::outputs::{MAX_OUTPUTS, MAX_OUTPUTS_BYTES, MAX_READ};
use crate::traffic::{MAX_HOLDERS, MAX_WORDS, RECENT};

/// The form of what is stored. Raised with every change that an older program would misread.
pub(super) const SCHEMA: &str = "1";

/// How long the keys of a service outlast the last word from any of its processes, in milliseconds: a day, so that a
/// weekend's deployment that is stopped at night finds its contexts and its drains.
const LINGER_MS: u64 = 24 * 60 * 60 * 1000;

/// Tracks of one session that wait to be closed: more than an offer may have m-lines.
const MAX_TRACKS: usize = 32;

const PRELUDE: &str = include_str!("lua/prelude.lua");

const EPILOGUE: &str = include_str!("lua/epilogue.lua");

/// A script and the name that the server knows it by.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) text: String,
    pub(super) hash: String,
}

/// Whether a step is run by a server that has no memory left.
#[derive(Debug, Clone, Copy)]
enum When {
    /// It is not, whether it writes or reads: leases that nobody can renew run out, and whoever reads or tidies up meanwhile would take
    /// living workers for dead ones. A full server is as one that is away.
    HasRoom,
    /// It is: it makes room.
    Always,
}

impl When {
    /// The line by which the server (Redis 7) knows. A script without one is begun in any case, and fails at its first write.
    fn line(self) -> &'static str {
        match self {
            Self::HasRoom => "#!lua\n",
            Self::Always => "#!lua flags=allow-oom\n",
        }
    }
}

macro_rules! steps {
    ($($name:ident = $file:literal $when:ident),* $(,)?) => {
        /// Every script, made once.
        #[derive(Debug)]
        pub(super) struct Scripts { $(pub(super) $name: Step),* }

        impl Scripts {
            pub(super) fn new(config: &RedisConfig) -> Self {
                let constants = constants(config);
                Self { $($name: Step::new(When::$when, &constants, include_str!(concat!("lua/", $file, ".lua")))),* }
            }
        }
    };
}

steps! {
    register = "register" HasRoom,
    renew = "renew" HasRoom,
    leave = "leave" Always,
    workers = "workers" HasRoom,
    gate = "gate" HasRoom,
    traffic = "traffic" HasRoom,
    hold = "hold" HasRoom,
    hold_list = "hold-list" HasRoom,
    held = "held" HasRoom,
    claim = "claim" HasRoom,
    release = "release" Always,
    report = "report" HasRoom,
    end = "end" Always,
    restore = "restore" HasRoom,
    ask = "ask" HasRoom,
    acknowledge = "acknowledge" HasRoom,
    outcome = "outcome" HasRoom,
    reap = "reap" HasRoom,
    relieve = "relieve" Always,
    session = "session" HasRoom,
    list = "list" HasRoom,
    append = "append" HasRoom,
    outputs = "outputs" HasRoom,
    settling = "settling" HasRoom,
    call_enter = "call-enter" HasRoom,
    call_find = "call-find" HasRoom,
    context_open = "context-open" HasRoom,
    context_find = "context-find" HasRoom,
    context_rotate = "context-rotate" HasRoom,
    context_share = "context-share" HasRoom,
    context_confirm = "context-confirm" HasRoom,
    context_verify = "context-verify" HasRoom,
    context_read = "context-read" HasRoom,
    context_write = "context-write" HasRoom,
    context_close = "context-close" Always,
}

impl Step {
    fn new(when: When, constants: &str, body: &str) -> Self {
        let line = when.line();
        let text = format!("{line}{constants}{PRELUDE}\nlocal function step()\n{body}\nend\n{EPILOGUE}");
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

fn constants(config: &RedisConfig) -> String {
    let bounds = &config.bounds;
    let numbers = [
        ("LINGER", LINGER_MS.to_string()),
        ("AFTERLIFE", config.terms.afterlife.as_millis().to_string()),
        ("TOKEN_GRACE", TOKEN_GRACE.as_millis().to_string()),
        ("EMPTY_RETENTION", EMPTY_RETENTION.as_millis().to_string()),
        ("EXPIRED_AT_ONCE", bounds.expired_at_once.to_string()),
        ("CLOSED_PER_KEY", bounds.closed_per_key.to_string()),
        ("MAX_CONTEXTS", bounds.contexts.to_string()),
        ("MAX_BYTES", bounds.bytes.to_string()),
        ("MAX_TRACKS", MAX_TRACKS.to_string()),
        ("MAX_OUTPUTS", MAX_OUTPUTS.to_string()),
        ("MAX_OUTPUTS_BYTES", MAX_OUTPUTS_BYTES.to_string()),
        ("MAX_READ", MAX_READ.to_string()),
        ("MAX_CALLS", MAX_CALLS.to_string()),
        ("MAX_HOLDERS", MAX_HOLDERS.to_string()),
        ("MAX_WORDS", MAX_WORDS.to_string()),
        ("RECENT", RECENT.as_millis().to_string()),
    ];
    let numbers = numbers.map(|(name, value)| format!("local {name} = {value}\n")).concat();
    format!("local SCHEMA = '{SCHEMA}'\n{numbers}")
}
