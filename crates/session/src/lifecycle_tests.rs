use proptest::prelude::*;

use super::*;
use CloseReason::{ClientClosed, ConnectTimeout, EndStream, HandlerError, TimeLimit};

const LIMITS: LifeLimits = LifeLimits {
    connect_timeout: Duration::from_secs(30),
    time_limit: Some(Duration::from_secs(600)),
    end_grace: Duration::from_secs(10),
};

#[test]
fn every_transition() {
    use LifeEvent::{Close, Connected, End, PlayedOut};
    use State::{Active, Closed, Connecting, Ending};
    let rows = [
        // state, then the state after: Connected, PlayedOut, End(HandlerError), Close(ClientClosed)
        (Connecting, [Active, Connecting, Closed(HandlerError), Closed(ClientClosed)]),
        (Active, [Active, Active, Ending(HandlerError), Closed(ClientClosed)]),
        (Ending(EndStream), [Ending(EndStream), Closed(EndStream), Ending(EndStream), Closed(EndStream)]),
        (Closed(EndStream), [Closed(EndStream), Closed(EndStream), Closed(EndStream), Closed(EndStream)]),
    ];
    for (state, expected) in rows {
        for (event, expected) in
            [Connected, PlayedOut, End(HandlerError), Close(ClientClosed)].into_iter().zip(expected)
        {
            assert_eq!(state.after(event), expected, "{state:?} after {event:?}");
        }
    }
}

/// Steps of a life: at second N, either an event or time alone. Returns the state after each.
#[track_caller]
fn check(steps: &[(u64, Option<LifeEvent>)], expected: &[State]) {
    let start = Instant::now();
    let mut life = Lifecycle::new(start, LIMITS);
    let states: Vec<State> = steps
        .iter()
        .map(|(second, event)| {
            let now = start + Duration::from_secs(*second);
            match event {
                Some(event) => life.handle(*event, now),
                None => life.handle_timeout(now),
            }
            life.state()
        })
        .collect();
    assert_eq!(states, expected);
}

#[test]
fn deadlines() {
    use State::{Active, Closed, Connecting, Ending};
    check(&[(29, None), (30, None), (31, None)], &[Connecting, Closed(ConnectTimeout), Closed(ConnectTimeout)]);
    // The time limit counts from the connection, and ends in good order.
    check(
        &[(20, Some(LifeEvent::Connected)), (30, None), (619, None), (620, None), (629, None), (630, None)],
        &[Active, Active, Active, Ending(TimeLimit), Ending(TimeLimit), Closed(TimeLimit)],
    );
    check(
        &[(1, Some(LifeEvent::Connected)), (5, Some(LifeEvent::End(EndStream))), (14, None), (15, None)],
        &[Active, Ending(EndStream), Ending(EndStream), Closed(EndStream)],
    );
    // A connection that arrives before its timer was served is a connection.
    check(&[(31, Some(LifeEvent::Connected)), (31, None)], &[Active, Active]);
}

#[test]
fn the_timer_follows_the_state() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut life = Lifecycle::new(start, LIMITS);
    assert_eq!((life.poll_timeout(), life.connected_at()), (Some(at(30)), None));
    life.handle(LifeEvent::Connected, at(2));
    assert_eq!((life.poll_timeout(), life.connected_at()), (Some(at(602)), Some(at(2))));
    // A repeated event does not restart a clock.
    life.handle(LifeEvent::Connected, at(300));
    assert_eq!((life.poll_timeout(), life.since()), (Some(at(602)), at(2)));
    life.handle(LifeEvent::End(EndStream), at(400));
    assert_eq!(life.poll_timeout(), Some(at(410)));
    life.handle(LifeEvent::End(HandlerError), at(405));
    assert_eq!(life.poll_timeout(), Some(at(410)));
    life.handle(LifeEvent::PlayedOut, at(406));
    assert_eq!((life.poll_timeout(), life.connected_at()), (None, Some(at(2))));
}

#[test]
fn no_limit_and_endless_limits_have_no_timer() {
    let start = Instant::now();
    for time_limit in [None, Some(Duration::MAX)] {
        let mut life = Lifecycle::new(start, LifeLimits { time_limit, ..LIMITS });
        life.handle(LifeEvent::Connected, start);
        assert_eq!(life.poll_timeout(), None);
        life.handle_timeout(start + Duration::from_secs(1 << 30));
        assert_eq!(life.state(), State::Active);
    }
}

#[test]
fn labels_are_stable_unique_and_round_trip() {
    let labels: Vec<&str> = CloseReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(
        labels.join(" "),
        "client_closed end_stream time_limit connect_timeout connection_lost media_timeout slow_client handler_error \
         ended_by_control draining moved superseded worker_lost shutdown invalid internal_error"
    );
    for reason in CloseReason::ALL {
        assert_eq!(reason.as_str().parse::<CloseReason>().unwrap(), reason);
        let json = serde_json::to_string(&reason).unwrap();
        assert_eq!(json, format!("\"{reason}\""));
        assert_eq!(serde_json::from_str::<CloseReason>(&json).unwrap(), reason);
    }
    assert!("other".parse::<CloseReason>().is_err());
}

fn any_event() -> impl Strategy<Value = Option<LifeEvent>> {
    let reason = prop::sample::select(CloseReason::ALL.to_vec());
    prop_oneof![
        Just(None),
        Just(Some(LifeEvent::Connected)),
        Just(Some(LifeEvent::PlayedOut)),
        reason.clone().prop_map(|reason| Some(LifeEvent::End(reason))),
        reason.prop_map(|reason| Some(LifeEvent::Close(reason))),
    ]
}

fn rank(state: State) -> u8 {
    match state {
        State::Connecting => 0,
        State::Active => 1,
        State::Ending(_) => 2,
        State::Closed(_) => 3,
    }
}

proptest! {
    #[test]
    fn a_life_goes_one_way_and_always_ends(steps in prop::collection::vec((0u64..100, any_event()), 0..40)) {
        let mut now = Instant::now();
        let mut life = Lifecycle::new(now, LIMITS);
        for (seconds, event) in steps {
            now += Duration::from_secs(seconds);
            let before = life.state();
            match event {
                Some(event) => life.handle(event, now),
                None => life.handle_timeout(now),
            }
            prop_assert!(rank(life.state()) >= rank(before));
            if let Some(reason) = before.reason() {
                prop_assert_eq!(life.state().reason(), Some(reason), "the first reason stays");
            }
        }
        // Left alone, its own timers close it: at most one per state.
        for _ in 0..3 {
            if let Some(due) = life.poll_timeout() {
                now = now.max(due);
                life.handle_timeout(now);
            }
        }
        prop_assert!(life.state().is_closed());
        prop_assert_eq!(life.poll_timeout(), None);
    }
}
