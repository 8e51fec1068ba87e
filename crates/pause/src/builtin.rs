//! `parrot`: says back what you said, once you have paused; and `secretary`, which has more to say, and hangs up.

mod secretary;

use serde_json::{Value, json};
use streamfleet_handler::{ConfigError, Description, HandlerError, Keys, PcmFormat, Registered, Registry, Switch};

use crate::{AlgoOptions, InterruptOn, OptionsError, ReplyOnPause, ReplyOptions, Request, Speaker};

/// Adds the handlers of this crate to those of the SDK.
pub fn register(registry: &mut Registry) {
    let about = Description::audio("Parrot", "Waits for you to pause, then says back what you said.");
    registry.register("parrot", about, parrot);
    secretary::register(registry);
}

/// Every handler that ships with Streamfleet.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::builtin();
    register(&mut registry);
    registry
}

fn parrot(config: Value) -> Result<Registered, ConfigError> {
    let mut keys = Keys::new(config);
    let options = options(&mut keys);
    keys.finish()?;
    let parrot = ReplyOnPause::new(options, repeat).map_err(|error| mistaken(&error))?;
    Ok(Registered::Handler(Box::new(parrot)))
}

fn mistaken(error: &OptionsError) -> ConfigError {
    ConfigError::Mistakes(vec![streamfleet_handler::Mistake { key: None, problem: error.to_string() }])
}

/// FastRTC's options by FastRTC's names, and `interrupt_on`.
pub fn options(keys: &mut Keys) -> ReplyOptions {
    let base = ReplyOptions::default();
    let algo = base.algo_options;
    let mut seconds = |key, default| keys.number(key, default, 0.0..=f64::MAX);
    let algo_options = AlgoOptions {
        audio_chunk_duration: seconds("audio_chunk_duration", algo.audio_chunk_duration),
        started_talking_threshold: seconds("started_talking_threshold", algo.started_talking_threshold),
        speech_threshold: seconds("speech_threshold", algo.speech_threshold),
        max_continuous_speech_s: seconds("max_continuous_speech_s", algo.max_continuous_speech_s),
    };
    let interrupt_on = [("pause", InterruptOn::Pause), ("speech", InterruptOn::Speech)];
    ReplyOptions {
        algo_options,
        can_interrupt: keys.switch("can_interrupt", Switch::On) == Switch::On,
        interrupt_on: keys.choice("interrupt_on", base.interrupt_on, &interrupt_on),
        input: PcmFormat::mono(keys.integer("input_sample_rate", base.input.rate, 8_000..=48_000)),
        output_sample_rate: keys.integer("output_sample_rate", base.output_sample_rate, 8_000..=48_000),
        needs_args: keys.switch("needs_args", Switch::Off) == Switch::On,
    }
}

/// The words, and how long they were: an output that a page can show beside the turn.
async fn repeat(request: Request, speaker: Speaker) -> Result<(), HandlerError> {
    let heard = request.audio.duration();
    speaker.output(json!({ "heard_ms": heard.as_millis() as u64, "args": request.args })).await?;
    speaker.audio(request.audio).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parrot_is_made_and_its_mistakes_are_named() {
        let made = |config: Value| registry().get("parrot", config).map(|made| made.media());
        assert!(made(Value::Null).is_ok());
        assert!(made(json!({ "can_interrupt": false, "interrupt_on": "speech", "needs_args": true })).is_ok());
        let error = |config: Value| made(config).unwrap_err().to_string();
        assert_eq!(
            error(json!({ "interrupt_on": "cough" })),
            r#"`interrupt_on` must be one of pause, speech, not "cough""#
        );
        assert_eq!(error(json!({ "speech_threshold": 2 })), OPTIONS_MISTAKE,);
    }

    const OPTIONS_MISTAKE: &str = "`speech_threshold` must be more than 0 and at most `audio_chunk_duration`, not 2";
}
