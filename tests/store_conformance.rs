//! The contract of `Store` and `EventLog`: one body of cases, run against every back end.
//!
//! The production half needs MONGO_URL and REDIS_URL: run `scripts/test --test store_conformance`.

// A test is where a panic belongs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "store/commits.rs"]
mod commits;
#[path = "store/consumer_groups.rs"]
mod consumer_groups;
#[path = "store/consumers.rs"]
mod consumers;
#[path = "store/embedded.rs"]
mod embedded_only;
#[path = "store/groups_at_work.rs"]
mod groups_at_work;
#[path = "store/history.rs"]
mod history;
#[path = "store/leases.rs"]
mod leases;
#[path = "store/log.rs"]
mod log;
#[path = "store/queries.rs"]
mod queries;
#[path = "store/queues.rs"]
mod queues;
#[path = "store/support.rs"]
mod support;
#[path = "store/tokens.rs"]
mod tokens;
#[path = "store/users.rs"]
mod users;

/// Makes one test per case for the back end that `support::<back end>()` opens.
macro_rules! conformance {
    ($back_end:ident) => {
        mod $back_end {
            conformance! {
                $back_end all:
                commits::a_new_node_is_read_back_as_it_was_written
                commits::a_new_node_conflicts_with_an_existing_one
                commits::a_stale_revision_conflicts
                commits::an_update_of_an_absent_node_conflicts
                commits::a_commit_is_all_or_nothing
                commits::a_repeated_commit_returns_the_first_result
                commits::idempotency_keys_of_others_are_others
                commits::a_conflict_is_not_remembered
                commits::racing_repetitions_write_once
                commits::racing_writers_lose_no_update
                commits::a_large_hierarchy_is_one_commit
                leases::a_lease_has_one_holder
                leases::a_lease_ends_by_itself
                leases::of_many_at_once_one_gets_it
                log::an_unknown_channel_is_empty
                log::sequences_are_dense_under_concurrent_writers
                log::events_of_a_node_stand_in_the_order_of_its_revisions
                log::a_tail_sees_everything_exactly_once
                log::a_tail_that_is_dropped_while_waiting_loses_nothing
                log::a_tail_waits_and_is_woken
                log::many_tails_follow_one_channel
                log::a_repeated_event_keeps_its_place
                log::channels_count_apart
                log::reads_are_limited_and_consecutive
                log::a_time_is_a_place
                log::what_retention_took_is_reported
                log::a_channel_that_retention_emptied_goes_on
                history::a_channel_is_read_in_order
                history::all_channels_are_read_by_time
                history::history_is_filtered
                queries::the_default_order_is_by_id
                queries::nulls_come_first_and_id_last
                queries::several_keys_sort_in_turn
                queries::numbers_sort_as_numbers
                queries::a_page_is_cut_after_the_filter
                queries::limits_may_be_beyond_everything
                queries::fields_in_data_are_found
                queries::count_agrees_with_find
                users::a_user_is_found_by_id_and_by_name
                users::names_and_addresses_are_unique
                users::a_password_is_replaced_only_if_it_is_the_old_one
                users::only_an_active_superuser_counts
                users::groups_are_made_once_and_joined
                consumers::a_consumer_without_a_name_ends_with_its_subscription
                consumers::a_name_keeps_its_place_and_fences_off_who_read_before
                consumers::a_name_belongs_to_one_user_and_channel
                consumers::a_cursor_moves_in_turns
                consumers::of_racing_turns_one_wins
                consumers::of_racing_openers_the_last_holds_the_name
                consumers::acks_are_cumulative_and_seeking_is_not
                consumers::what_nobody_uses_expires
                consumer_groups::a_group_is_made_once_and_keeps_its_state
                consumer_groups::a_name_is_a_group_or_it_is_not
                consumer_groups::of_racing_writers_of_a_group_one_wins
                consumer_groups::of_racing_openers_all_get_the_same_group
                consumer_groups::a_group_that_was_moved_begins_anew
                groups_at_work::each_event_goes_to_one_member_in_the_order_of_its_tree
                groups_at_work::what_a_member_leaves_goes_to_others_at_once
                groups_at_work::what_nobody_can_do_becomes_a_dead_letter_once
                groups_at_work::a_group_that_is_moved_or_removed_ends_for_its_members
                groups_at_work::retention_is_told_to_the_group
                queues::items_are_taken_in_order_and_removed
                queues::what_is_released_or_overdue_is_offered_again
                queues::racing_takers_get_different_items
                queues::a_key_is_pushed_once
                queues::a_queue_is_bounded
                users::a_name_stays_with_whoever_had_it
                users::racing_renames_share_no_name
                users::a_change_sets_what_it_names
                users::users_are_listed_in_pages
                users::a_group_goes_when_nobody_is_in_it
                users::a_name_that_was_taken_gives_no_rights
                tokens::named_tokens_are_kept_until_they_end
                tokens::an_ended_token_is_remembered
                users::wanted_indexes_are_present
                users::it_answers_pings
            }
        }
    };
    ($back_end:ident all: $($module:ident::$case:ident)*) => {
        $(conformance! { @case $back_end $module $case })*
    };
    (@case $back_end:ident $module:ident $case:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            crate::$module::$case(crate::support::$back_end().await).await;
        }
    };
}

conformance!(embedded);
conformance!(production);
