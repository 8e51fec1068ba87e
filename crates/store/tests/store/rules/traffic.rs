use std::time::Duration;

use futures_util::FutureExt as _;
use streamfleet_session::CloseReason;
use streamfleet_store::{HELD_LEASE, MAX_HOLDERS, Phase, RECENT, RouterId, Topic, Traffic, Waits};

use crate::world::{Scene, World, request, restored, with_token};

async fn counts(scene: &Scene<'_>) -> (u64, u64) {
    let Traffic { arrived, departed, .. } = scene.traffic().await;
    (arrived, departed)
}

fn router(name: &str) -> RouterId {
    name.parse().unwrap()
}

async fn hold(scene: &Scene<'_>, name: &str, held: u32) {
    tell(scene, name, Waits { held, refused: 0 }).await;
}

async fn tell(scene: &Scene<'_>, name: &str, waits: Waits) {
    scene.store.hold(&scene.service, &router(name), waits).await.unwrap();
}

pub(super) async fn clients_that_come_and_go_are_counted(world: &World) {
    let scene = world.scene();
    assert_eq!(scene.traffic().await, Traffic::default(), "a service that nobody knows");
    let a = scene.worker("a", 8).await;
    let (first, second, third) = (request("1", &["a"]), request("2", &["a"]), request("3", &["a"]));
    scene.place(&first).await;
    scene.place(&second).await;
    assert_eq!(counts(&scene).await, (0, 0), "nobody has confirmed them");
    scene.report(&a, first.ticket, Phase::Connecting).await;
    assert_eq!(counts(&scene).await, (1, 0));
    scene.report(&a, first.ticket, Phase::Active).await;
    assert_eq!(counts(&scene).await, (1, 0), "once");
    scene.store.release(&scene.service, second.ticket).await.unwrap();
    assert_eq!(counts(&scene).await, (1, 0), "what was given back has never been");
    scene.active(&a, &third).await;
    scene.end(&a, first.ticket).await;
    scene.end(&a, first.ticket).await;
    assert_eq!(counts(&scene).await, (2, 1));
    // Another service's are its own.
    assert_eq!(counts(&world.scene()).await, (0, 0));
    scene.place(&request("4", &["a"])).await;
    world.pass(world.terms.lease).await;
    let traffic = scene.traffic().await;
    assert_eq!((traffic.arrived, traffic.departed), (2, 2), "what is lost has gone, and it is asked that counts");
}

pub(super) async fn a_client_that_moves_is_neither_come_nor_gone(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let stays = request("1", &["a"]);
    scene.active(&a, &stays).await;
    let moves = with_token("1", &["a"], stays.token);
    scene.place(&moves).await;
    scene.report(&a, moves.ticket, Phase::Connecting).await;
    scene.report(&a, moves.ticket, Phase::Active).await;
    scene.end(&a, stays.ticket).await;
    assert_eq!(counts(&scene).await, (1, 0), "it has arrived elsewhere");
    // One that never arrives, and whose first session ends meanwhile.
    let again = with_token("1", &["a"], moves.token);
    scene.place(&again).await;
    scene.end(&a, moves.ticket).await;
    assert_eq!(counts(&scene).await, (1, 0), "it may be on its way");
    scene.store.release(&scene.service, again.ticket).await.unwrap();
    assert_eq!(counts(&scene).await, (1, 1), "and was not");
    // One that gives up, and stays where it is.
    let stays = request("2", &["a"]);
    scene.active(&a, &stays).await;
    let taker = with_token("2", &["a"], stays.token);
    scene.place(&taker).await;
    scene.report(&a, taker.ticket, Phase::Connecting).await;
    scene.end(&a, taker.ticket).await;
    assert_eq!(counts(&scene).await, (2, 1));
    scene.end(&a, stays.ticket).await;
    assert_eq!(counts(&scene).await, (2, 2));
}

pub(super) async fn what_is_written_again_is_news_if_it_is_young(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    world.pass(Duration::from_secs(5)).await;
    let write = async |session: &str, age: Duration| {
        let claim = request(session, &[]);
        scene.store.restore(&scene.service, &a, &[restored(&claim, age)]).await.unwrap();
        claim
    };
    let young = write("young", Duration::from_secs(2)).await;
    assert_eq!(counts(&scene).await, (1, 0), "begun while the store was away from it");
    scene.store.restore(&scene.service, &a, &[restored(&young, Duration::from_secs(2))]).await.unwrap();
    assert_eq!(counts(&scene).await, (1, 0), "said again, it is the same");
    write("older", RECENT / 2).await;
    assert_eq!(counts(&scene).await, (1, 0), "older than what is counted: the store was lost since");
    // A claim that its worker makes known otherwise than by a report.
    let claimed = request("claimed", &["a"]);
    scene.renew(&a, 8).await;
    scene.place(&claimed).await;
    scene.store.restore(&scene.service, &a, &[restored(&claimed, Duration::ZERO)]).await.unwrap();
    assert_eq!(counts(&scene).await, (2, 0));
    for _ in 0..20 {
        world.pass(Duration::from_secs(5)).await;
        scene.renew(&a, 8).await;
    }
    write("old", RECENT + Duration::from_secs(1)).await;
    assert_eq!(counts(&scene).await, (2, 0), "many that come back are no rush");
    // Of two with one id the younger goes: one client.
    write("young", Duration::from_secs(110)).await;
    assert_eq!(counts(&scene).await, (2, 1));
    scene.store.end(&scene.service, &a, young.ticket, CloseReason::Superseded).await.unwrap();
    assert_eq!(counts(&scene).await, (2, 1));
}

pub(super) async fn held_calls_are_summed_and_run_out(world: &World) {
    let scene = world.scene();
    let held = async || scene.traffic().await.held;
    hold(&scene, "r1", 3).await;
    hold(&scene, "r2", 4).await;
    hold(&world.scene(), "r1", 9).await;
    assert_eq!(held().await, 7, "of a service without any worker too");
    hold(&scene, "r1", 1).await;
    assert_eq!(held().await, 5);
    world.pass(HELD_LEASE / 2).await;
    hold(&scene, "r2", 2).await;
    world.pass(HELD_LEASE / 2).await;
    assert_eq!(held().await, 2, "a router that is gone is believed no longer");
    hold(&scene, "r2", 0).await;
    hold(&scene, "r3", 0).await;
    assert_eq!(held().await, 0);
    hold(&scene, "r1", u32::MAX).await;
    hold(&scene, "r2", 1).await;
    assert_eq!(held().await, u32::MAX);
}

pub(super) async fn refused_calls_are_counted(world: &World) {
    let scene = world.scene();
    tell(&scene, "r1", Waits { held: 0, refused: 3 }).await;
    tell(&scene, "r2", Waits { held: 1, refused: 2 }).await;
    tell(&scene, "r1", Waits::default()).await;
    let traffic = scene.traffic().await;
    assert_eq!((traffic.refused, traffic.held, traffic.arrived), (5, 1, 0), "also where there is no worker");
}

/// One question for all services, of which most have nobody who waits.
pub(super) async fn all_services_for_which_calls_wait_are_listed(world: &World) {
    let scenes = [world.scene(), world.scene(), world.scene()];
    let held = async || {
        // Other rules may have left some behind.
        let all = world.store.held().await.unwrap();
        let ours =
            scenes.iter().map(|scene| all.iter().find(|(service, _)| *service == scene.service).map(|(_, n)| *n));
        ours.collect::<Vec<Option<u32>>>()
    };
    assert_eq!(held().await, [None, None, None]);
    hold(&scenes[0], "r1", 3).await;
    hold(&scenes[0], "r2", 4).await;
    hold(&scenes[1], "r1", 1).await;
    tell(&scenes[2], "r1", Waits { held: 0, refused: 9 }).await;
    assert_eq!(held().await, [Some(7), Some(1), None]);
    hold(&scenes[1], "r1", 0).await;
    world.pass(HELD_LEASE / 2).await;
    hold(&scenes[0], "r2", 2).await;
    assert_eq!(held().await, [Some(5), None, None]);
    world.pass(HELD_LEASE / 2).await;
    assert_eq!(held().await, [Some(2), None, None], "a router that is gone is believed no longer");
    world.pass(HELD_LEASE / 2).await;
    assert_eq!(held().await, [None, None, None]);
}

pub(super) async fn whoever_waits_for_held_calls_is_woken(world: &World) {
    let scene = world.scene();
    let mut listener = scene.store.listen(&scene.service, Topic::Directory);
    listener.woken().await;
    let mut check = async |held: u32, expected: bool| {
        // Whatever has come late of what was before.
        tokio::time::sleep(Duration::from_millis(50)).await;
        while listener.woken().now_or_never().is_some() {}
        hold(&scene, "r1", held).await;
        let limit = if expected { Duration::from_secs(5) } else { Duration::from_millis(50) };
        let woken = tokio::time::timeout(limit, listener.woken()).await.is_ok();
        assert_eq!(woken, expected, "{held}");
    };
    check(2, true).await;
    check(3, false).await;
    check(0, true).await;
    check(0, false).await;
    check(1, true).await;
}

pub(super) async fn forgotten_is_the_router_that_spoke_first(world: &World) {
    let scene = world.scene();
    for n in 0..=MAX_HOLDERS {
        if n == 1 {
            world.pass(Duration::from_millis(20)).await;
        }
        hold(&scene, &format!("r{n:03}"), if n == 0 { 1000 } else { 1 }).await;
    }
    let all = u32::try_from(MAX_HOLDERS).unwrap();
    assert_eq!(scene.traffic().await.held, all);
    hold(&scene, &format!("r{all:03}"), 2).await;
    assert_eq!(scene.traffic().await.held, all + 1, "who is known displaces nobody");
}
