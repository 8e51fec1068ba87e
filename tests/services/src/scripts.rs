//! Handlers that emit what they are given, and then nothing.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde_json::json;
use streamfleet_handler::{Emit, Handler, HandlerError, Input, Registry, async_trait};

use crate::add;
use crate::sound::{FORMAT, audio, sine, tenths};

pub(crate) fn register(registry: &mut Registry) {
    let bye = Some("bye".to_owned());
    script(registry, "bye", "A second in ten parts, then the end.", {
        [tenths(660.0, 10), vec![Emit::EndStream(bye)]].concat()
    });
    let rate = FORMAT.rate as usize;
    script(registry, "bye-at-once", "A second in one part, and the end.", {
        vec![audio(sine(660.0, 0, rate)), Emit::EndStream(None)]
    });
    script(registry, "outputs", "An output, half a second of audio, an output of two values.", {
        vec![Emit::Output(json!("ready")), audio(sine(660.0, 0, rate / 2)), Emit::Output(json!(["with audio", 2]))]
    });
    script(registry, "eager", "An output, then a second in ten parts.", {
        [vec![Emit::Output(json!("early"))], tenths(660.0, 10)].concat()
    });
    script(registry, "close-track", "Half a second, the end of the audio track, then an output.", {
        let close = vec![Emit::CloseTrack("0".to_owned()), Emit::Output(json!("after the track"))];
        [tenths(660.0, 5), close].concat()
    });
}

fn script(registry: &mut Registry, name: &str, summary: &str, items: Vec<Emit>) {
    add(registry, name, summary, move || Script::new(items.clone()));
}

struct Script {
    items: Vec<Emit>,
    left: Mutex<VecDeque<Emit>>,
}

impl Script {
    fn new(items: Vec<Emit>) -> Self {
        let left = Mutex::new(items.iter().cloned().collect());
        Self { items, left }
    }
}

#[async_trait]
impl Handler for Script {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::new(self.items.clone()))
    }

    async fn receive(&self, _input: Input) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        let next = self.left.lock().pop_front();
        match next {
            Some(emit) => Ok(emit),
            None => std::future::pending().await,
        }
    }
}
