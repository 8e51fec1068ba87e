//! What holds for every store: one table of rules.

mod calls;
mod claims;
mod contexts;
mod demands;
mod drains;
mod losses;
mod moves;
mod outputs;
mod traffic;
mod workers;

use std::future::Future;
use std::pin::Pin;

use crate::world::World;

type Rule = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! rules {
    ($($module:ident: $($rule:ident),+;)+) => {
        const RULES: &[(&str, Rule)] = &[$($(
            (concat!(stringify!($module), "::", stringify!($rule)), |world| Box::pin($module::$rule(world))),
        )+)+];
    };
}

rules! {
    workers: epochs_grow_and_fence, leases_run_out, readiness_comes_with_the_first_renewal, gates_close_and_open, a_worker_is_asked_to_leave,
        a_second_process_of_a_name_replaces_the_first, leaving_ends_what_is_left;
    drains: orders_are_numbered, a_worker_is_drained_when_it_says_so_itself, what_was_said_before_proves_nothing,
        a_claim_and_a_drain_in_any_order;
    traffic: clients_that_come_and_go_are_counted, a_client_that_moves_is_neither_come_nor_gone,
        what_is_written_again_is_news_if_it_is_young, held_calls_are_summed_and_run_out, refused_calls_are_counted,
        all_services_for_which_calls_wait_are_listed, whoever_waits_for_held_calls_is_woken,
        forgotten_is_the_router_that_spoke_first;
    claims: one_id_has_one_session, limits_hold, quotas_hold, the_first_with_room_is_taken, pins_bind, reservations_run_out,
        a_claim_is_replayed, a_released_claim_is_free;
    moves: only_its_client_takes_a_session_over, a_taker_that_connects_is_the_session, a_taker_that_fails_leaves_it,
        a_second_try_replaces_the_first, a_holder_that_ends_leaves_the_id_to_its_taker,
        what_was_shown_stays_good_until_its_client_has_arrived, a_taker_whose_client_has_gone_back_is_superseded;
    demands: ends_are_asked_and_acknowledged, who_is_meant_is_said_by_its_context,
        a_session_that_is_being_ended_is_taken_over_by_nobody, the_first_reason_stays, last_words_go_with_the_end, tracks_are_closed, what_is_unknown_is_said,
        askers_wait_for_the_outcome;
    losses: lost_workers_are_reaped_once, lost_sessions_resume_elsewhere, sessions_are_restored,
        who_is_lost_once_more_is_remembered_as_long, nobody_writes_again_what_another_has,
        a_claim_that_nobody_confirmed_gives_way, the_younger_goes, who_has_gone_on_elsewhere_stays_there,
        who_has_gone_on_elsewhere_stays_whoever_is_written_first, a_worker_that_returns_brings_no_old_token_back,
        who_says_that_he_was_here_waits_for_workers_that_come_again;
    outputs: outputs_are_numbered_and_bounded, outputs_that_a_store_has_missed_are_asked_for, outputs_outlive_their_session,
        outputs_are_their_verified_users, outputs_go_on_with_their_context;
    calls: a_call_is_entered_once;
    contexts: only_the_token_or_the_verified_user_resumes, tokens_are_good_once,
        a_token_is_good_once_more_while_its_successor_may_be_lost, tokens_are_numbered_in_their_order,
        a_client_that_moves_keeps_its_token_until_it_has_arrived,
        what_was_shown_is_good_once_more_where_what_was_given_may_be_lost,
        a_replaced_token_takes_nothing_from_its_successor, documents_have_versions,
        closed_contexts_are_forgotten, many_that_expire_together_are_gone_at_once, a_context_is_open_while_anybody_holds_it;
}

/// Tries every rule.
pub(crate) async fn hold(world: &World) {
    for (name, rule) in RULES {
        println!("  {name}");
        rule(world).await;
    }
}
