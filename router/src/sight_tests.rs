use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;

const FRESH: Freshness = Freshness::Fresh;
const PAST: Freshness = Freshness::Stale(Duration::from_secs(9));
const NEVER: Freshness = Freshness::Stale(Duration::MAX);

const fn relayed(serve: Option<bool>) -> Media {
    Media::Relayed { serve }
}

#[test]
fn what_was_seen_once_is_enough_to_serve() {
    use Word::{Away, Clear, Kept};
    // What one router sees, look by look.
    let check = |looks: &[(&[Freshness], Word)]| {
        let (mut sight, now) = (Sight::default(), Instant::now());
        for (n, (snapshots, expected)) in looks.iter().enumerate() {
            assert_eq!(sight.look(snapshots.to_vec(), Media::Workers, now), *expected, "look {n} of {looks:?}");
        }
    };
    check(&[(&[], Clear), (&[NEVER], Kept), (&[NEVER, NEVER], Kept), (&[], Clear)]);
    check(&[(&[FRESH, FRESH], Clear), (&[FRESH, PAST, FRESH], Away)]);
    // A service that is made while the store is away, in any order: all others are served.
    check(&[(&[FRESH], Clear), (&[PAST, NEVER], Away), (&[NEVER, PAST], Away)]);
    // A part of the store that never answers, of a router that has just begun.
    check(&[(&[NEVER, NEVER], Kept), (&[NEVER, FRESH], Away), (&[NEVER, PAST], Away)]);
    // The only one that was read is gone: who has it as a client still sends media.
    check(&[(&[FRESH], Clear), (&[], Clear), (&[NEVER], Away)]);
}

#[test]
fn a_blind_relay_is_kept_from_clients_while_it_may_not_be_alone() {
    // From when on it is told what, in milliseconds, and when it is let in.
    let check = |told: &[(u64, Media)], expected: Option<u64>| {
        let (mut sight, start) = (Sight::default(), Instant::now());
        let let_in = (0..120_000).step_by(250).find(|ms| {
            let media = told.iter().rev().find(|(from, _)| from <= ms).unwrap().1;
            sight.look([NEVER], media, start + Duration::from_millis(*ms)) == Word::Away
        });
        assert_eq!(let_in, expected, "{told:?}");
    };
    let (unknown, nobody, somebody) = (relayed(None), relayed(Some(false)), relayed(Some(true)));
    check(&[(0, Media::Workers)], None);
    check(&[(0, somebody)], None);
    check(&[(0, nobody)], Some(3_000));
    check(&[(0, unknown)], Some(8_000));
    check(&[(0, unknown), (1_000, nobody)], Some(4_000));
    check(&[(0, unknown), (7_750, somebody)], None);
    // Those that began with it.
    check(&[(0, nobody), (2_750, somebody)], None);
    // The last one dies; of one that is there again soon, the time begins anew.
    check(&[(0, somebody), (60_000, nobody)], Some(63_000));
    check(&[(0, somebody), (60_000, nobody), (62_000, somebody), (63_000, nobody)], Some(66_000));
}

/// A router of a small world; all times are in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Router {
    begins: u64,
    /// From when on it can read the store.
    sees: Option<u64>,
    dies: Option<u64>,
}

const fn router(begins: u64, sees: Option<u64>) -> Router {
    Router { begins, sees, dies: None }
}

/// When each begins to serve, and when it ceases to while it lives: what each one says is known to all, itself among them, after `lag`.
fn play(routers: &[Router], lag: u64) -> Vec<Vec<u64>> {
    const TICK: u64 = 250;
    let start = Instant::now();
    let mut sights: Vec<Sight> = routers.iter().map(|_| Sight::default()).collect();
    let mut ready: Vec<Vec<bool>> = vec![Vec::new(); routers.len()];
    for now in (0..120_000_u64).step_by(250) {
        let told = |n: &Vec<bool>| now.checked_sub(lag).is_some_and(|then| n[(then / TICK) as usize]);
        let serve = ready.iter().any(told);
        for ((router, sight), ready) in routers.iter().zip(&mut sights).zip(&mut ready) {
            let lives = now >= router.begins && router.dies.is_none_or(|dies| now < dies);
            let freshness = if router.sees.is_some_and(|sees| now >= sees) { FRESH } else { NEVER };
            let is_ready = lives && {
                let at = start + Duration::from_millis(now);
                let word = sight.look([freshness], relayed(Some(serve)), at);
                // Nobody says so in its first second.
                word != Word::Kept && now >= router.begins + 1_000
            };
            ready.push(is_ready);
        }
    }
    let turns = |(router, ready): (&Router, &Vec<bool>)| {
        let turned = |n: &usize| ready[*n] != (*n > 0 && ready[*n - 1]);
        let at = (0..ready.len()).filter(turned).map(|n| n as u64 * TICK);
        at.filter(|at| router.dies != Some(*at)).collect()
    };
    routers.iter().zip(&ready).map(turns).collect()
}

#[test]
fn one_serves_and_whoever_serves_goes_on() {
    let never: &[u64] = &[];
    // However soon a readiness is known to others.
    for lag in (250..=1_750).step_by(250) {
        let check = |routers: &[Router], expected: &[&[u64]]| {
            assert_eq!(play(routers, lag), expected, "{routers:?}, known after {lag} ms");
        };
        let (sees, blind) = (router(0, Some(0)), router(0, None));
        check(&[sees, sees], &[&[1_000], &[1_000]]);
        check(&[sees, blind], &[&[1_000], never]);
        check(&[blind, sees, blind], &[never, &[1_000], never]);
        // The store is away, and there is no other: both, once and for all, and also when it is back for one of them or for both.
        check(&[blind, blind], &[&[3_000], &[3_000]]);
        check(&[router(0, Some(60_000)), blind], &[&[3_000], &[3_000]]);
        check(&[router(0, Some(60_000)), router(0, Some(60_000))], &[&[3_000], &[3_000]]);
        // One is enough, and one that sees the store comes beside it.
        check(&[blind, router(10_000, None), router(10_000, Some(0))], &[&[3_000], never, &[11_000]]);
        // A rollout to a store that cannot be reached ends at its first router, until there is no other one.
        check(&[sees, router(10_000, None)], &[&[1_000], never]);
        let dies = Router { dies: Some(60_000), ..sees };
        check(&[dies, sees, router(10_000, None)], &[&[1_000], &[1_000], never]);
        check(&[dies, router(10_000, None)], &[&[1_000], &[63_000 + lag]]);
    }
}

/// What the probe says, as others and the store come and go.
#[tokio::test(start_paused = true)]
async fn the_probe_says_it() {
    let readiness = Readiness::new();
    let (sees, serves) = (Arc::new(AtomicBool::new(false)), watch::channel(None));
    let see = |sees: &Arc<AtomicBool>| {
        let sees = sees.clone();
        move |_| vec![if sees.load(Relaxed) { FRESH } else { NEVER }]
    };
    let (said, kept): (&[_], &[_]) = (&["the store does not answer"], &["store"]);
    let after = async |seconds: u64, expected: (&[&'static str], &[&'static str]), readiness: &Readiness| {
        sleep(Duration::from_secs(seconds)).await;
        let (notes, reasons) = expected;
        assert_eq!((readiness.notes(), readiness.reasons()), (notes.to_vec(), reasons.to_vec()));
    };
    let course = async {
        after(1, (&[], kept), &readiness).await;
        serves.0.send_replace(Some(true));
        after(60, (&[], kept), &readiness).await;
        serves.0.send_replace(Some(false));
        after(2, (&[], kept), &readiness).await;
        after(2, (said, &[]), &readiness).await;
        // It is one of those that do.
        serves.0.send_replace(Some(true));
        after(60, (said, &[]), &readiness).await;
        sees.store(true, Relaxed);
        after(1, (&[], &[]), &readiness).await;
        sees.store(false, Relaxed);
        after(60, (said, &[]), &readiness).await;
    };
    tokio::select! {
        () = tell(see(&sees), readiness.clone(), Some(serves.1)) => panic!("it has no end"),
        () = course => {}
    }
    // By whom no media comes, and whom nobody tells of others.
    for (serve, expected) in [(None, (&[][..], kept)), (Some(watch::channel(None).1), (said, &[][..]))] {
        let (readiness, sees) = (Readiness::new(), Arc::default());
        tokio::select! {
            () = tell(see(&sees), readiness.clone(), serve) => panic!("it has no end"),
            () = after(60, expected, &readiness) => {}
        }
    }
}
