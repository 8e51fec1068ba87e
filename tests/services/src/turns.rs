//! Handlers that reply on a pause.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde_json::json;
use streamfleet_handler::{ConfigError, Description, HandlerError, Mistake, Registered, Registry};
use streamfleet_pause::{Activity, InterruptOn, ReplyOnPause, ReplyOptions, Request, Speaker, VAD_RATE, Vad};

use crate::sound::{heard_hz, is_loud, tenth};

/// How long a slow reply takes to begin: longer than anybody waits in a conversation, and than any buffer here lasts.
const THINKS: Duration = Duration::from_secs(2);

/// How long a reply holds up its thread: all that the suite does meanwhile takes less, and nobody waits for its end.
const BLOCKS: Duration = Duration::from_secs(30);

pub(crate) fn register(registry: &mut Registry) {
    let plain = ReplyOptions::default;
    pause(registry, "pause", "Ten parts, an octave above what was said.", move || ReplyOnPause::new(plain(), reply));
    pause(registry, "pause-arguments", "Ten parts of as many Hz as the argument says.", move || {
        ReplyOnPause::new(ReplyOptions { needs_args: true, ..plain() }, reply_with)
    });
    pause(registry, "pause-long", "Sixty parts, an octave above what was said.", move || {
        ReplyOnPause::new(plain(), long_reply)
    });
    pause(registry, "pause-polite", "The same, and is interrupted by the first words.", move || {
        ReplyOnPause::new(ReplyOptions { interrupt_on: InterruptOn::Speech, ..plain() }, long_reply)
    });
    pause(registry, "pause-patient", "The same, and cannot be interrupted.", move || {
        ReplyOnPause::new(ReplyOptions { can_interrupt: false, ..plain() }, long_reply)
    });
    pause(registry, "pause-greeting", "Greets with 990 Hz.", move || {
        ReplyOnPause::new(plain(), reply).map(|handler| handler.with_startup(greeting))
    });
    pause(registry, "pause-broken", "Its reply fails.", move || ReplyOnPause::new(plain(), broken));
    pause(registry, "pause-panic", "Its reply panics.", move || ReplyOnPause::new(plain(), panics));
    pause(registry, "pause-stuck", "Its reply never says anything.", move || ReplyOnPause::new(plain(), stuck));
    pause(registry, "pause-slow", "Thinks for a while before it replies.", move || ReplyOnPause::new(plain(), slow));
    pause(registry, "pause-blocks", "Says by an output that it does so, and holds up its thread.", move || {
        ReplyOnPause::new(plain(), blocks)
    });
    pause(registry, "pause-outputs", "Tells what it heard by an output, then replies.", move || {
        ReplyOnPause::new(plain(), tell)
    });
}

fn pause(
    registry: &mut Registry,
    name: &str,
    summary: &str,
    make: impl Fn() -> Result<ReplyOnPause, streamfleet_pause::OptionsError> + Send + Sync + 'static,
) {
    registry.register(name, Description::audio(name, summary), move |_| {
        let handler =
            make().map_err(|error| ConfigError::Mistakes(vec![Mistake { key: None, problem: error.to_string() }]))?;
        Ok(Registered::Handler(Box::new(handler.with_vad(|| Energy))))
    });
}

/// A model without a doubt: speech is what is louder than -40 dBFS, in steps of 10 ms.
struct Energy;

impl Vad for Energy {
    fn hop(&self) -> NonZeroUsize {
        const HOP: NonZeroUsize = NonZeroUsize::new(VAD_RATE as usize / 100).expect("a hop has samples");
        HOP
    }

    fn hear(&mut self, hop: &[i16]) -> Activity {
        if is_loud(hop) { Activity::Speech } else { Activity::Silence }
    }

    fn reset(&mut self) {}
}

async fn say(speaker: &Speaker, hz: f64, parts: usize) -> Result<(), HandlerError> {
    for n in 0..parts {
        speaker.say(tenth(hz, n)).await?;
    }
    Ok(())
}

async fn reply(request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    say(&speaker, 2.0 * heard_hz(&request.audio), 10).await
}

async fn reply_with(request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    let hz = request.args.first().and_then(serde_json::Value::as_f64);
    // A telephone cannot send any: it is answered in a tone of its own.
    say(&speaker, hz.unwrap_or(770.0), 10).await
}

async fn long_reply(request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    let hz = 2.0 * heard_hz(&request.audio);
    for n in 0..60 {
        // A little ahead of real time, as a speech synthesiser is.
        tokio::time::sleep(Duration::from_millis(80)).await;
        speaker.say(tenth(hz, n)).await?;
    }
    Ok(())
}

async fn greeting(_request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    say(&speaker, 990.0, 10).await
}

async fn broken(_request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    say(&speaker, 880.0, 2).await?;
    Err(HandlerError::new("broken on purpose"))
}

async fn panics(_request: Request, _speaker: Speaker) -> Result<(), HandlerError> {
    panic!("broken on purpose")
}

async fn slow(request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    tokio::time::sleep(THINKS).await;
    reply(request, speaker).await
}

async fn blocks(_request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    speaker.output(json!("blocks")).await?;
    // As a call of a library that knows nothing of tasks does. The output has to be fetched from here first.
    tokio::time::sleep(Duration::from_millis(20)).await;
    std::thread::sleep(BLOCKS);
    Ok(())
}

async fn stuck(_request: Request, _speaker: Speaker) -> Result<(), HandlerError> {
    std::future::pending().await
}

async fn tell(request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    let heard = request.audio.duration();
    speaker.output(json!({ "hz": heard_hz(&request.audio), "heard_ms": heard.as_millis() as u64 })).await?;
    say(&speaker, 2.0 * heard_hz(&request.audio), 10).await
}
