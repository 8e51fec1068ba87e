//! A worker with the handlers that the whole-system suites talk to: those of docs/conformance.md, and those of the suite
//! `conversation`. They are written on the SDK as an application's are. Which service has which handler, and its limits,
//! is configuration: tests/src/services.rs.

mod context;
mod ends;
mod plain;
mod scripts;
mod sound;
mod turns;

use std::process::ExitCode;

use streamfleet_handler::{Description, Handler, Registered, Registry};

fn main() -> ExitCode {
    streamfleet_worker::program::run(&registry())
}

fn registry() -> Registry {
    let mut registry = streamfleet_pause::builtin::registry();
    plain::register(&mut registry);
    scripts::register(&mut registry);
    ends::register(&mut registry);
    context::register(&mut registry);
    turns::register(&mut registry);
    registry
}

/// Registers a handler that takes no configuration.
fn add<H: Handler>(registry: &mut Registry, name: &str, summary: &str, make: impl Fn() -> H + Send + Sync + 'static) {
    let about = Description::audio(name, summary);
    registry.register(name, about, move |_| Ok(Registered::Handler(Box::new(make()))));
}

#[cfg(test)]
mod tests {
    use streamfleet_handler::testing::Drive;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_handler_is_made_and_starts() {
        let registry = registry();
        let names: Vec<_> = registry.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            // Those that ship are tested where they are made, and two of them need files.
            let Ok(Registered::Handler(handler)) = registry.get(&name, serde_json::Value::Null) else { continue };
            let mut drive = Drive::start(handler.copy());
            drive.settle().await;
            drive.cancel();
            let _ = drive.ended().await;
        }
    }
}
