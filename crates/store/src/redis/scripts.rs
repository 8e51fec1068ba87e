//! The scripts: every step that has to be one, in the language of the server.

use redis::Script;

use super::config::RedisConfig;
use crate::calls::MAX_CALLS;
use crate::memory::TOKEN_GRACE;
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

macro_rules! steps {
    ($($name:ident = $file:literal),* $(,)?) => {
        /// Every script, made once.
        #[derive(Debug)]
        pub(super) struct Scripts { $(pub(super) $name: Step),* }

        impl Scripts {
            pub(super) fn new(config: &RedisConfig) -> Self {
                let constants = constants(config);
                Self { $($name: Step::new(&constants, include_str!(concat!("lua/", $file, ".lua")))),* }
            }
        }
    };
}

steps! {
    register = "register",
    renew = "renew",
    leave = "leave",
    workers = "workers",
    gate = "gate",
    traffic = "traffic",
    hold = "hold",
    hold_list = "hold-list",
    held = "held",
    claim = "claim",
    release = "release",
    report = "report",
    end = "end",
    restore = "restore",
    ask = "ask",
    acknowledge = "acknowledge",
    outcome = "outcome",
    reap = "reap",
    session = "session",
    list = "list",
    append = "append",
    outputs = "outputs",
    call_enter = "call-enter",
    call_find = "call-find",
    context_open = "context-open",
    context_find = "context-find",
    context_rotate = "context-rotate",
    context_share = "context-share",
    context_confirm = "context-confirm",
    context_verify = "context-verify",
    context_read = "context-read",
    context_write = "context-write",
    context_close = "context-close",
}

impl Step {
    fn new(constants: &str, body: &str) -> Self {
        let text = format!("{constants}{PRELUDE}\nlocal function step()\n{body}\nend\n{EPILOGUE}");
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
