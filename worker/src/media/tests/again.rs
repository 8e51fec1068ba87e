//! A client that offers again: with the id of a session that is just over, or from the address of one that is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamfleet_session::lifecycle::CloseReason;

use super::client::Client;
use super::echo::echo;
use super::network::Conditions;
use super::world::{Opening, World};
use crate::media::shard::Command;
use crate::media::shared::{Shared, Stage};

const HOME: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)), 6000);

/// What a session holds elsewhere. Notes where its session stands when it is given back.
struct Place {
    shared: Arc<Shared>,
    given_back: GivenBack,
}

type GivenBack = Arc<Mutex<Vec<Stage>>>;

impl Drop for Place {
    fn drop(&mut self) {
        self.given_back.lock().push(self.shared.stage());
    }
}

fn call(world: &mut World, id: &str, given_back: &GivenBack) -> (usize, Arc<Shared>) {
    let (client, offer) = Client::new(HOME, world.now);
    let given_back = given_back.clone();
    let opening = Opening {
        id,
        guard: Box::new(move |shared| Box::new(Place { shared: shared.clone(), given_back })),
        ..Opening::new(&offer, echo())
    };
    world.call_as(client, opening)
}

#[track_caller]
fn is_echoed(world: &mut World, client: usize, time: Duration) {
    let before = world.clients[client].echoes.len();
    world.run(time);
    let echoed = world.clients[client].echoes.len() - before;
    let expected = (time.as_millis() / 20) as usize;
    assert!(echoed + 3 >= expected, "{echoed} of {expected}");
}

#[test]
fn an_id_is_free_the_moment_its_session_is_over() {
    let mut world = World::new(1, Conditions::CLEAN);
    let given_back = GivenBack::default();
    for round in 1..=5 {
        let (c, shared) = call(&mut world, "the-same", &given_back);
        world.run(Duration::from_secs(1));
        is_echoed(&mut world, c, Duration::from_secs(1));
        // Ended by control, and the next offer comes with the first sign that it is over.
        world.command(Command::End(shared.token(), CloseReason::EndedByControl));
        for _ in 0..2_000 {
            if matches!(shared.stage(), Stage::Closed(_)) {
                break;
            }
            world.run(Duration::from_millis(1));
        }
        assert_eq!(shared.stage(), Stage::Closed(CloseReason::EndedByControl));
        assert_eq!(world.shard.table_sizes(), [0; 5]);
        // Whoever was waiting for that found the place free.
        assert_eq!(*given_back.lock(), vec![Stage::Ending(CloseReason::EndedByControl); round]);
        assert_eq!(Arc::strong_count(&shared), 1, "nobody else holds on to it");
        world.clients[c].alive = false;
    }
    let (c, _) = call(&mut world, "the-same", &given_back);
    world.run(Duration::from_secs(1));
    is_echoed(&mut world, c, Duration::from_secs(30));
}

/// A client that vanished comes back from the same address before it was missed. Its old session must neither keep the
/// address from it nor take it away when it ends.
#[test]
fn a_session_ends_without_taking_its_successors_address() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (first, old) = call(&mut world, "before", &GivenBack::default());
    world.run(Duration::from_secs(2));
    world.clients[first].alive = false;
    let (second, new) = call(&mut world, "after", &GivenBack::default());
    world.run(Duration::from_secs(1));
    is_echoed(&mut world, second, Duration::from_secs(30));
    assert_eq!(old.stage(), Stage::Closed(CloseReason::ConnectionLost));
    assert_eq!(new.stage(), Stage::Active);
    is_echoed(&mut world, second, Duration::from_secs(5));
}
