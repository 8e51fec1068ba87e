use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;
use streamfleet_handler::PcmFormat;

use super::*;

fn audio(samples: &[i16]) -> AudioFrame {
    AudioFrame { samples: samples.to_vec(), format: PcmFormat::mono(8_000), timestamp: Duration::ZERO }
}

/// What may happen, in few letters.
#[derive(Clone, Copy, Debug)]
enum Act {
    Begin,
    Talk,
    /// A pause after an utterance of this one sample.
    Pause(i16),
    Trigger(i16),
    /// A trigger that brings arguments.
    TriggerWith(i16, i64),
    Args(i64),
    Spoke(u64),
    Over(u64),
    PlayedOut,
    Interrupted,
}

impl Act {
    fn input(self) -> TurnInput {
        match self {
            Self::Begin => TurnInput::Began,
            Self::Talk => TurnInput::StartedTalking,
            Self::Pause(sample) => TurnInput::Paused(audio(&[sample])),
            Self::Trigger(sample) => TurnInput::Triggered(audio(&[sample]), None),
            Self::TriggerWith(sample, arg) => TurnInput::Triggered(audio(&[sample]), Some(vec![json!(arg)])),
            Self::Args(arg) => TurnInput::Args(vec![json!(arg)]),
            Self::Spoke(id) => TurnInput::Spoke(ReplyId(id)),
            Self::Over(id) => TurnInput::Over(ReplyId(id)),
            Self::PlayedOut => TurnInput::PlayedOut,
            Self::Interrupted => TurnInput::Interrupted,
        }
    }
}

fn effects(turns: &mut Turns) -> Vec<Effect> {
    std::iter::from_fn(|| turns.poll_effect()).collect()
}

fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Log(log) => log.as_str().to_owned(),
        Effect::SendInput => "send_input".to_owned(),
        Effect::StartReply { id, to, args } => {
            let to = match to {
                Opening::Startup => "startup".to_owned(),
                Opening::Utterance(audio) => format!("{:?}", audio.samples),
            };
            let args = if args.is_empty() { String::new() } else { format!(" {}", json!(args)) };
            format!("start {} {to}{args}", id.0)
        }
        Effect::CancelReply(id) => format!("cancel {}", id.0),
        Effect::ClearQueue => "clear".to_owned(),
    }
}

#[track_caller]
fn check(options: TurnOptions, script: &[(Act, &[&str])]) {
    let mut turns = Turns::new(options);
    for (step, (act, expected)) in script.iter().enumerate() {
        turns.handle_input(act.input());
        let shown: Vec<_> = effects(&mut turns).iter().map(shown).collect();
        assert_eq!(shown, *expected, "step {step}: {act:?}");
    }
}

const PLAIN: TurnOptions =
    TurnOptions { interruption: Interruption::OnPause, arguments: Arguments::Unused, startup: Startup::Silent };
const NEVER: TurnOptions = TurnOptions { interruption: Interruption::Never, ..PLAIN };
const ON_SPEECH: TurnOptions = TurnOptions { interruption: Interruption::OnSpeech, ..PLAIN };
const WITH_ARGS: TurnOptions = TurnOptions { arguments: Arguments::Awaited, ..PLAIN };
const GREETING: TurnOptions = TurnOptions { startup: Startup::Speaks, ..PLAIN };

use Act::{Args as Arg, Begin, Interrupted, Over, Pause, PlayedOut, Spoke, Talk, Trigger, TriggerWith};

#[test]
fn a_turn_is_told_in_order_and_its_answer_begins_once() {
    check(
        PLAIN,
        &[
            (Begin, &[]),
            (Talk, &["started_talking"]),
            (Pause(1), &["pause_detected", "start 1 [1]"]),
            (Spoke(1), &["response_starting"]),
            (Spoke(1), &[]),
            (Over(1), &[]),
            (Talk, &["started_talking"]),
            // What it said may still be playing.
            (Pause(2), &["clear", "pause_detected", "start 2 [2]"]),
            // A reply without audio.
            (Over(2), &["response_starting"]),
            (Over(2), &[]),
            (Spoke(2), &[]),
        ],
    );
}

#[test]
fn a_pause_interrupts_a_reply_and_what_it_still_says_does_not_count() {
    check(
        PLAIN,
        &[
            (Pause(1), &["pause_detected", "start 1 [1]"]),
            (Spoke(1), &["response_starting"]),
            (Talk, &["started_talking"]),
            (Spoke(1), &[]),
            (Pause(2), &["cancel 1", "clear", "pause_detected", "start 2 [2]"]),
            (Spoke(1), &[]),
            (Over(1), &[]),
            (Spoke(2), &["response_starting"]),
        ],
    );
}

#[test]
fn speech_interrupts_at_once_where_that_is_asked_for() {
    check(
        ON_SPEECH,
        &[
            (Talk, &["started_talking"]),
            (Pause(1), &["pause_detected", "start 1 [1]"]),
            (Spoke(1), &["response_starting"]),
            (Talk, &["started_talking", "cancel 1", "clear"]),
            (Over(1), &[]),
            (Pause(2), &["pause_detected", "start 2 [2]"]),
        ],
    );
}

#[test]
fn a_reply_that_may_not_be_interrupted_is_not() {
    check(
        NEVER,
        &[
            (Talk, &["started_talking"]),
            (Pause(1), &["pause_detected", "start 1 [1]"]),
            (Talk, &[]),
            (Pause(2), &[]),
            (Trigger(3), &[]),
            (TriggerWith(3, 4), &[]),
            (Over(1), &["response_starting"]),
            (Pause(4), &["pause_detected", "start 2 [4]"]),
        ],
    );
    let mut turns = Turns::new(NEVER);
    assert_eq!(turns.hearing(), Hearing::Open);
    turns.handle_input(Pause(1).input());
    assert_eq!(turns.hearing(), Hearing::Closed);
    turns.handle_input(Over(1).input());
    assert_eq!(turns.hearing(), Hearing::Open);
}

#[test]
fn arguments_are_asked_for_every_turn_and_waited_for() {
    check(
        WITH_ARGS,
        &[
            (Talk, &["started_talking"]),
            (Pause(1), &["pause_detected", "send_input"]),
            (Arg(7), &["start 1 [1] [7]"]),
            (Spoke(1), &["response_starting"]),
            (Over(1), &[]),
            // Not the old ones.
            (Pause(2), &["clear", "pause_detected", "send_input"]),
            // The user goes on meanwhile: one reply to all of it, and no second question.
            (Talk, &["started_talking"]),
            (Pause(3), &["pause_detected"]),
            (Trigger(4), &["pause_detected"]),
            (Arg(8), &["start 2 [2, 3, 4] [8]"]),
        ],
    );
}

#[test]
fn arguments_that_come_early_are_kept_and_those_of_an_earlier_turn_are_not() {
    check(
        WITH_ARGS,
        &[
            (Arg(1), &[]),
            (Arg(2), &[]),
            (Pause(1), &["pause_detected", "send_input", "start 1 [1] [2]"]),
            // The answer to that question comes while the reply runs: it is of that turn.
            (Arg(3), &[]),
            (Over(1), &["response_starting"]),
            (Pause(2), &["pause_detected", "send_input"]),
            (Arg(4), &["start 2 [2] [4]"]),
            (Arg(5), &[]),
            (Pause(3), &["cancel 2", "pause_detected", "send_input"]),
            (Arg(6), &["start 3 [3] [6]"]),
            (TriggerWith(4, 9), &["cancel 3", "pause_detected", "send_input", "start 4 [4] [9]"]),
        ],
    );
    // Nobody waits for them: they change nothing.
    check(PLAIN, &[(Arg(1), &[]), (Pause(1), &["pause_detected", "start 1 [1]"])]);
}

#[test]
fn a_trigger_answers_what_has_been_said_so_far() {
    check(
        PLAIN,
        &[
            (Trigger(1), &["pause_detected", "start 1 [1]"]),
            (Spoke(1), &["response_starting"]),
            (Trigger(2), &["cancel 1", "clear", "pause_detected", "start 2 [2]"]),
        ],
    );
    check(
        WITH_ARGS,
        &[
            (Trigger(1), &["pause_detected", "send_input"]),
            (TriggerWith(2, 5), &["pause_detected", "start 1 [1, 2] [5]"]),
        ],
    );
}

#[test]
fn the_greeting_comes_first_and_can_be_talked_over() {
    check(
        GREETING,
        &[
            (Begin, &["start 1 startup"]),
            (Spoke(1), &["response_starting"]),
            (Pause(1), &["cancel 1", "clear", "pause_detected", "start 2 [1]"]),
        ],
    );
    check(
        TurnOptions { startup: Startup::Speaks, ..WITH_ARGS },
        &[(Begin, &["send_input"]), (Arg(1), &["start 1 startup [1]"]), (Over(1), &["response_starting"])],
    );
    // It never came to it: the user was faster than the arguments.
    check(
        TurnOptions { startup: Startup::Speaks, ..WITH_ARGS },
        &[(Begin, &["send_input"]), (Pause(1), &["pause_detected"]), (Arg(1), &["start 1 [1] [1]"])],
    );
}

#[test]
fn nothing_is_cleared_that_has_been_heard() {
    check(
        ON_SPEECH,
        &[
            // Nobody has said anything.
            (Talk, &["started_talking"]),
            (Pause(1), &["pause_detected", "start 1 [1]"]),
            // Nor has a reply that was stopped before its first word.
            (Talk, &["started_talking", "cancel 1"]),
            (Pause(2), &["pause_detected", "start 2 [2]"]),
            (Spoke(2), &["response_starting"]),
            (Over(2), &[]),
            (PlayedOut, &[]),
            (Talk, &["started_talking"]),
            (Pause(3), &["pause_detected", "start 3 [3]"]),
            (Spoke(3), &["response_starting"]),
            (PlayedOut, &[]),
            // It went on afterwards.
            (Spoke(3), &[]),
            (Talk, &["started_talking", "cancel 3", "clear"]),
            // Once.
            (Pause(4), &["pause_detected", "start 4 [4]"]),
            (Spoke(4), &["response_starting"]),
            // The session has thrown it away itself.
            (Interrupted, &["cancel 4"]),
            (Talk, &["started_talking"]),
        ],
    );
}

#[test]
fn the_session_can_interrupt_as_well() {
    check(
        PLAIN,
        &[
            (Interrupted, &[]),
            (Pause(1), &["pause_detected", "start 1 [1]"]),
            (Interrupted, &["cancel 1"]),
            (Spoke(1), &[]),
            (Pause(2), &["pause_detected", "start 2 [2]"]),
        ],
    );
}

#[test]
fn what_waits_for_arguments_is_bounded_and_its_end_is_kept() {
    let mut turns = Turns::new(WITH_ARGS);
    for number in 0..30 {
        turns.handle_input(TurnInput::Paused(audio(&[number; 5 * 8_000])));
    }
    turns.handle_input(Arg(1).input());
    let Some(Effect::StartReply { to: Opening::Utterance(audio), .. }) = effects(&mut turns).pop() else {
        panic!("no reply");
    };
    assert_eq!(audio.samples.len(), 60 * 8_000);
    assert_eq!((audio.samples[0], audio.samples.last()), (18, Some(&29)));
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Talk),
        4 => any::<i16>().prop_map(Pause),
        1 => any::<i16>().prop_map(Trigger),
        1 => any::<i16>().prop_map(|sample| TriggerWith(sample, 0)),
        2 => Just(Arg(1)),
        4 => (1_u64..9).prop_map(Spoke),
        3 => (1_u64..9).prop_map(Over),
        1 => Just(PlayedOut),
        1 => Just(Interrupted),
    ]
}

fn all_options() -> impl Strategy<Value = TurnOptions> {
    let interruption = prop::sample::select(vec![Interruption::Never, Interruption::OnPause, Interruption::OnSpeech]);
    let arguments = prop::sample::select(vec![Arguments::Unused, Arguments::Awaited]);
    let startup = prop::sample::select(vec![Startup::Silent, Startup::Speaks]);
    (interruption, arguments, startup).prop_map(|(interruption, arguments, startup)| TurnOptions {
        interruption,
        arguments,
        startup,
    })
}

proptest! {
    /// Whatever happens in whatever order: replies do not overlap, every one of them but the greeting follows a pause
    /// that no other reply has answered, and begins to answer at most once, while it runs. A reply that follows leaves
    /// nothing of an earlier one to be heard, where replies may be interrupted.
    #[test]
    fn order_holds(options in all_options(), script in prop::collection::vec(acts(), 0..60)) {
        let mut turns = Turns::new(options);
        let (mut running, mut last, mut pauses, mut asked) = (None, 0, 0, 0);
        let mut begun = std::collections::HashSet::new();
        let mut unheard = false;
        for act in std::iter::once(Begin).chain(script) {
            turns.handle_input(act.input());
            match act {
                Spoke(id) if running == Some(id) => unheard = true,
                PlayedOut | Interrupted => unheard = false,
                _ => {}
            }
            if let Over(id) = act && running == Some(id) {
                running = None;
                begun.insert(id);
            }
            for effect in effects(&mut turns) {
                match effect {
                    Effect::Log(Log::PauseDetected) => pauses += 1,
                    Effect::Log(Log::StartedTalking) => {}
                    Effect::Log(Log::ResponseStarting) => match act {
                        Spoke(id) => {
                            prop_assert_eq!(running, Some(id));
                            prop_assert!(begun.insert(id), "response_starting twice");
                        }
                        Over(id) => prop_assert!(begun.contains(&id)),
                        _ => prop_assert!(false, "{act:?} starts no response"),
                    },
                    Effect::SendInput => {
                        prop_assert_eq!(options.arguments, Arguments::Awaited);
                        asked += 1;
                    }
                    Effect::StartReply { id, to, args } => {
                        prop_assert!(running.is_none(), "two replies at a time");
                        prop_assert_eq!(id.0, last + 1);
                        if to == Opening::Startup {
                            prop_assert_eq!(last, 0);
                        } else {
                            prop_assert!(pauses > 0, "a reply to nothing");
                        }
                        prop_assert_eq!(args.is_empty(), options.arguments == Arguments::Unused);
                        prop_assert_eq!(asked, i32::from(options.arguments == Arguments::Awaited));
                        prop_assert!(!unheard || options.interruption == Interruption::Never || options.arguments == Arguments::Awaited, "over another's words");
                        (last, running, pauses, asked) = (id.0, Some(id.0), 0, 0);
                    }
                    Effect::CancelReply(id) => {
                        prop_assert_eq!(running.take(), Some(id.0));
                    }
                    Effect::ClearQueue => {
                        prop_assert!(options.interruption != Interruption::Never);
                        prop_assert!(std::mem::take(&mut unheard), "nothing to clear");
                    }
                }
            }
            if options.interruption == Interruption::Never {
                prop_assert_eq!(turns.hearing() == Hearing::Closed, running.is_some());
            }
        }
    }
}
