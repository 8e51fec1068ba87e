//! Workers of a fleet in one process, on a store in memory whose time is virtual and on a Redis that is started here.

mod drain;
mod duplicates;
pub(super) mod fickle;
mod membership;
mod outages;
mod outputs;
#[allow(dead_code, reason = "the store's own tests do more with it")]
#[path = "../../../crates/store/tests/store/server.rs"]
mod server;
mod world;

use std::time::Duration;

use self::server::Clock;
use self::world::Ground;

/// What holds on any store.
macro_rules! scenes {
    ($($module:ident: $($scene:ident),+;)+) => {
        mod in_memory {
            $($(#[tokio::test(start_paused = true)]
            async fn $scene() {
                super::$module::$scene(super::Ground::memory()).await;
            })+)+
        }

        mod on_redis {
            $($(#[tokio::test]
            async fn $scene() {
                super::$module::$scene(super::Ground::redis(None).await).await;
            })+)+
        }

        /// The clocks of workers and of the store need not agree: here the store's is a minute ahead.
        mod a_minute_apart {
            $($(#[tokio::test]
            async fn $scene() {
                let clock = super::Clock::new();
                clock.forward(super::Duration::from_secs(60));
                super::$module::$scene(super::Ground::redis(Some(&clock)).await).await;
            })+)+
        }
    };
}

scenes! {
    outputs: any_worker_reads_them_and_they_outlive_their_worker, a_store_that_has_lost_them_is_given_them_again,
        a_client_that_moves_goes_on_where_it_was;
    duplicates: the_younger_of_two_ends, what_nobody_has_claimed_is_made_known_and_the_second_of_an_id_ends,
        a_client_that_moves_to_another_worker_ends_its_old_session;
    drain: a_worker_that_is_asked_to_leave_asks_its_clients_and_says_when_it_is_empty,
        a_worker_is_empty_when_it_says_so_after_it_was_asked,
        a_handler_s_last_words_reach_a_session_of_another_worker;
}
