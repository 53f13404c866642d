//! One suite for every backend: each operation, and each race that a promise rules out. A backend joins with one line
//! at the end.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

#[path = "conformance/catalog.rs"]
mod catalog;
#[path = "conformance/history.rs"]
mod history;
#[path = "conformance/identity.rs"]
mod identity;
#[path = "conformance/intents.rs"]
mod intents;
#[path = "conformance/money.rs"]
mod money;
#[path = "conformance/payments.rs"]
mod payments;
#[path = "conformance/payouts.rs"]
mod payouts;
#[path = "conformance/quotes.rs"]
mod quotes;
#[path = "conformance/results.rs"]
mod results;
#[path = "conformance/trust.rs"]
mod trust;
#[path = "conformance/work.rs"]
mod work;

/// Tasks that race for one thing.
const RACERS: usize = 32;

/// Runs `task` as many tasks at once and returns what each found.
async fn race<T: Send + 'static, F: Future<Output = T> + Send + 'static>(task: impl Fn(usize) -> F) -> Vec<T> {
    let tasks: Vec<_> = (0..RACERS).map(|n| tokio::spawn(task(n))).collect();
    let mut found = Vec::new();
    for task in tasks {
        found.push(task.await.expect("a task of the race"));
    }
    found
}

macro_rules! conformance {
    ($backend:ident, $bench:expr, { $($module:ident: $($promise:ident),* $(,)?;)* }) => {
        mod $backend {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $promise() {
                    crate::$module::$promise($bench).await;
                }
            )*)*
        }
    };
    ($backend:ident, $bench:expr) => {
        conformance!($backend, $bench, {
            quotes:
                the_same_question_gets_the_same_quote,
                equal_questions_at_once_get_one_quote,
                a_quote_that_expired_or_was_paid_is_replaced,
                a_key_is_one_purchase_in_any_state,
                a_key_reused_for_something_else_is_told,
                a_key_is_forgotten_after_its_time,
                open_quotes_are_bounded_per_buyer,
                an_open_quote_is_found_without_opening_one,
                a_capped_key_agrees_to_its_cap_and_not_to_more,
                a_capped_keys_questions_at_once_fit_into_its_cap,
                a_standing_quote_counts_for_every_capped_key_that_asks,
                an_expired_unpaid_quote_gives_back_and_late_money_takes_again;
            payments:
                a_paid_call_from_quote_to_result,
                one_claim_of_many_wins,
                one_settle_and_claim_of_many_wins,
                one_proof_buys_one_payment,
                too_little_is_owed_and_buys_nothing,
                too_much_completes_and_owes_the_rest,
                money_again_is_owed_in_any_state,
                money_for_an_expired_or_failed_payment_counts,
                a_price_of_nothing_moves_nothing,
                released_is_usable_again_until_attempts_are_used_up,
                a_late_writer_changes_nothing,
                claims_of_a_life_that_ended_are_found_and_taken_over,
                owed_and_failed_only_from_where_they_may,
                unknown_payments_are_not_found,
                books_add_up_under_a_storm,
                the_sandbox_keeps_the_first_record;
            money:
                a_reversal_counts_once_and_closes_what_is_not_paid_any_more,
                a_reversal_while_the_call_runs_is_posted_when_it_ends,
                a_refund_is_intended_sent_and_confirmed_once,
                a_surplus_is_refunded_while_its_call_stays_completed,
                a_buyers_sums_add_up_when_money_is_taken_back_after_its_refund,
                the_books_are_proven_in_parts_and_lies_are_told;
            payouts:
                a_payout_takes_all_that_was_earned_once_whoever_asks_how_often,
                money_taken_back_before_a_payout_is_not_paid_and_after_it_is_the_marketplaces_loss,
                what_was_taken_back_is_not_paid_out_where_the_clock_went_back_since,
                a_clock_that_goes_back_loses_no_earnings,
                sellers_to_whom_something_is_due_are_listed_in_pages,
                payouts_beside_calls_and_reversals_count_everything_once;
            work:
                unpaid_quotes_are_due_by_expiry_once_for_each_look,
                paid_payments_are_due_when_they_were_counted,
                settled_and_unclaimed_money_is_due_by_its_settlement,
                what_is_put_off_is_due_then_and_keeps_an_unpaid_quote,
                an_unpaid_quote_is_never_deleted_before_its_last_look;
            intents:
                what_was_signed_is_found_until_it_is_paid,
                a_payment_has_one_intent_and_money_one_payment,
                of_many_intents_with_one_signature_one_is_recorded,
                what_was_refused_goes_in_time_and_what_is_not_known_stays;
            results:
                a_held_result_round_trips,
                a_chunked_result_round_trips,
                an_empty_result_is_empty,
                results_end_with_their_time,
                chunks_out_of_order_are_refused,
                a_result_that_was_not_kept_is_sent_again_once,
                a_repetition_that_did_not_reach_the_seller_comes_back,
                nothing_else_is_sent_again;
            history:
                both_parties_see_the_call_while_it_runs_and_after,
                pages_stay_where_they_were_while_rows_are_added,
                filters_choose,
                the_ledger_shows_each_party_its_rows,
                a_part_of_the_ledger_comes_in_full_pages,
                free_calls_are_rows_without_money;
            trust:
                of_two_reviews_by_one_buyer_one_wins,
                a_review_needs_evidence_and_weighs_by_it,
                reviews_are_listed_newest_first,
                what_happened_is_counted_exactly_once,
                sums_are_those_of_the_ledger_under_a_storm,
                free_calls_are_tallied_and_make_no_standing,
                kin_do_not_lift_each_other,
                a_score_is_due_until_it_was_made_of_everything;
            identity:
                a_wallet_makes_one_profile,
                a_profile_is_closed_and_opened_and_caches_are_told,
                keys_are_found_listed_and_revoked,
                a_profile_is_written_onto_its_version,
                e12_of_two_changes_that_strand_together_one_wins,
                e12_a_wallet_that_lost_its_right_proves_nothing,
                e13_of_two_links_of_a_wallet_one_wins,
                a_profile_has_so_many_wallets_at_most,
                one_default_of_each_kind_under_a_storm,
                an_agent_is_claimed_once,
                recovery_makes_a_key_and_revokes_the_others,
                a_last_use_never_goes_back,
                an_email_makes_one_human,
                e16_sessions_end_one_by_one_and_all_at_once,
                e8_a_nonce_is_fresh_once,
                a_secret_is_drawn_once;
            catalog:
                a_new_store_has_categories,
                a_slug_is_unique_and_numbered,
                the_last_writer_never_wins_silently,
                drafts_are_deleted_and_nothing_else,
                listings_are_scanned_and_listed,
                a_challenge_is_taken_once,
                changes_are_told_in_order;
        });
    };
}

conformance!(embedded, crate::support::Bench::embedded());
conformance!(faultless, crate::support::Bench::faultless());
