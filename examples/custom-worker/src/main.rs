//! A worker with a handler of one's own: it sends back what it hears, an octave up.
//!
//! Run it with `cargo run --release -p custom-worker -- --config examples/custom-worker/worker.yaml`, then call it:
//! `cargo run --release --bin streamfleet -- call http://127.0.0.1:8081/chipmunk --out reply.wav`.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use async_trait::async_trait;
use streamfleet_handler::{AudioFrame, Description, Emit, Handler, HandlerError, Input, Queue, Registered, Registry};

struct Chipmunk(Queue<AudioFrame>);

impl Chipmunk {
    fn new() -> Self {
        // A second of 20 ms frames; the oldest go first should the client hear more slowly than it speaks.
        Chipmunk(Queue::new(NonZeroUsize::new(50).expect("invariant: 50 is not zero")))
    }
}

#[async_trait]
impl Handler for Chipmunk {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Chipmunk::new())
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if let Input::Audio(mut frame) = input {
            // Every second sample twice as fast, then the same again to fill the time.
            let half: Vec<i16> = frame.samples.iter().step_by(2).copied().collect();
            frame.samples = [half.as_slice(), half.as_slice()].concat();
            self.0.push(frame);
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        Ok(Emit::Audio(self.0.next().await))
    }
}

fn main() -> ExitCode {
    let mut registry = Registry::builtin();
    let description = Description::audio("Chipmunk", "Sends back what it hears, an octave up.");
    registry.register("chipmunk", description, |_config| Ok(Registered::Handler(Box::new(Chipmunk::new()))));
    streamfleet_worker::program::run(&registry)
}
