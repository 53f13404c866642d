//! The actor, its gate and its replacement, on a real store.

mod bench;

use std::sync::atomic::Ordering;

use storage::model::*;

use super::*;
use crate::refusal::Code;
use bench::{Bench, Counted, SECOND, ask_for, eventually};

async fn kill(bench: &Bench, gate: &Arc<Gate>) {
    // Asked once, replaced, asked once more: it dies twice, and the one who asked is told.
    let told = ask(&bench.world, gate, Question::Panic).await;
    assert!(told.is_err_and(|refusal| refusal.code() == Code::Overloaded));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_panics_is_replaced_and_payments_in_flight_survive() {
    let bench = Bench::new("");
    let id = bench.listing(1_000).await;
    let (handle, caller) = (bench.handle(id).await, bench.caller());
    let payment = bench.quote(&handle, &caller, 1).await;
    let gate = bench.gate(id);
    let flight = gate.flights.take(payment).expect("the first");
    kill(&bench, &gate).await;
    assert!(gate.flights.take(payment).is_err(), "it is still being worked on");
    assert_ne!(bench.quote(&handle, &caller, 2).await, payment, "the next actor answers");
    assert_eq!(bench.quote(&handle, &caller, 1).await, payment, "and knows what the gate knows");
    assert!(Arc::ptr_eq(&gate, &bench.gate(id)), "the gate did not die with its actor");
    drop(flight);
    assert!(gate.flights.take(payment).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_at_once_one_actor_lives_and_one_quote_is_made() {
    let bench = Arc::new(Bench::new(""));
    let id = bench.listing(1_000).await;
    let caller = Arc::new(bench.caller());
    let asked: Vec<_> = (0..200)
        .map(|_| {
            let (bench, caller) = (bench.clone(), caller.clone());
            tokio::spawn(async move {
                let handle = bench.handle(id).await;
                bench.quote(&handle, &caller, 7).await
            })
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for one in asked {
        ids.insert(one.await.expect("a quote"));
    }
    assert_eq!((ids.len(), bench.rail.offers.load(Ordering::SeqCst)), (1, 1));
    let gate = bench.gate(id);
    assert!(gate.mailbox.is_home_of(1), "no second actor was started");
    assert_eq!(gate.mailbox.depth(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poll_a_payment_however_many_wait_for_it() {
    let bench = Arc::new(Bench::new(""));
    let id = bench.listing(1_000).await;
    let (handle, caller) = (bench.handle(id).await, bench.caller());
    let quoted = bench.quote(&handle, &caller, 1).await;
    let payment = bench.world.store.payment_get(quoted).await.expect("read").expect("there");
    let gate = bench.gate(id);
    let wait = |patience: Duration| {
        let (bench, gate, payment) = (bench.clone(), gate.clone(), payment.clone());
        tokio::spawn(async move {
            ask(&bench.world, &gate, |reply| Question::Settlement(payment.clone(), patience, reply)).await
        })
    };
    let waiting: Vec<_> = (0..100).map(|_| wait(Duration::from_secs(60))).collect();
    let impatient = wait(Duration::ZERO).await.expect("joined").expect("an answer").expect("no fault");
    assert!(matches!(impatient, Checked::Pending(_)), "its own patience counts, not the longest");
    let checks = || bench.rail.checks.load(Ordering::SeqCst);
    eventually("it is polled again and again", || checks() >= 3).await;
    bench.rail.is_settled.store(true, Ordering::SeqCst);
    for one in waiting {
        let found = one.await.expect("joined").expect("an answer").expect("no fault");
        assert!(matches!(found, Checked::Settled(_)));
    }
    assert!(checks() < 100, "{} checks for a hundred who waited", checks());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_nobody_polls() {
    let bench = Bench::new("");
    let id = bench.listing(1_000).await;
    let (handle, caller) = (bench.handle(id).await, bench.caller());
    let quoted = bench.quote(&handle, &caller, 1).await;
    let payment = bench.world.store.payment_get(quoted).await.expect("read").expect("there");
    let gate = bench.gate(id);
    let question = |reply| Question::Settlement(payment.clone(), Duration::from_secs(3_600), reply);
    let left = tokio::time::timeout(Duration::from_millis(120), ask(&bench.world, &gate, question)).await;
    assert!(left.is_err(), "it is pending, and the buyer left");
    let checks = || bench.rail.checks.load(Ordering::SeqCst);
    // The next look finds that nobody waits; after it there is none.
    let mut before = checks();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if checks() == before {
            break;
        }
        before = checks();
        assert!(before < 50, "it polls for nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_outcome_of_a_claim_that_was_taken_over_changes_nothing_and_is_counted() {
    let counted = Counted::default();
    let bench = metrics::with_local_recorder(&counted, || Bench::new(""));
    let id = bench.listing(1_000).await;
    let (handle, caller) = (bench.handle(id).await, bench.caller());
    let quoted = bench.quote(&handle, &caller, 1).await;
    bench.rail.is_settled.store(true, Ordering::SeqCst);
    let text = quoted.to_string();
    let ask = Ask { payment_id: Some(&text), ..ask_for(&caller, 1) };
    let Ok(PaymentFound::Settled(ready)) = handle.payment(&ask).await else { panic!("it is settled") };
    let permit = handle.admit_paid(&ready).await.expect("admitted");
    let Ok(ClaimFound::Claim(claim)) = ready.settle_and_claim(&permit, 2).await else { panic!("it is claimed") };
    // Its owner was taken for dead.
    let store = &bench.world.store;
    let PaymentState::Claimed(held) = claim.payment().progress.state else { panic!("it is claimed") };
    let facts = CallFacts::interrupted();
    store.payment_release(quoted, held, AttemptStatus::Interrupted, facts).await.expect("released");
    let request = storage::ClaimRequest { owner: Owner { node: 7, epoch: 1 }, request_bytes: 2 };
    store.payment_claim(quoted, request).await.expect("claimed by another");
    let before = store.payment_get(quoted).await.expect("read").expect("there");
    let result = KeptResult {
        place: ResultPlace::NotKept,
        encoding: ResultEncoding::Nothing,
        seller_status_code: 200,
        content_type: String::new(),
        bytes: 0,
        sha256: [0; 32],
        kept_until: bench.now(),
    };
    let orphans = || counted.of("crochet_payments_total{provider=sandbox,result=orphan}");
    assert_eq!(orphans(), 0);
    let late = claim.complete(CallFacts::default(), KeptAnswer { result, held: None }).await;
    assert_eq!(orphans(), 1, "what it knew is evidence, and counted");
    assert_eq!(late.expect_err("it is another's").code(), Code::PaymentInProgress);
    let after = store.payment_get(quoted).await.expect("read").expect("there");
    assert_eq!((before.progress.state.name(), &before.progress), ("claimed", &after.progress));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_says_no_at_once() {
    let bench = Bench::new("mailbox = 2");
    let id = bench.listing(1_000).await;
    bench.handle(id).await;
    let gate = bench.gate(id);
    // The one thread that actors live on is held up: nothing is taken out of any mailbox.
    let (hold, held) = std::sync::mpsc::channel::<()>();
    assert!(bench.world.arbiters[0].spawn_fn(move || _ = held.recv()));
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let (world, gate) = (bench.world.clone(), gate.clone());
            tokio::spawn(async move { ask(&world, &gate, Question::Refresh).await })
        })
        .collect();
    let finished = || asked.iter().filter(|one| one.is_finished()).count();
    eventually("most are refused while nothing is handled", || finished() >= 7).await;
    assert!(gate.mailbox.depth() <= 3, "{}", gate.mailbox.depth());
    drop(hold);
    let (mut done, mut refused) = (0, 0);
    for one in asked {
        match one.await.expect("joined") {
            Ok(()) => done += 1,
            Err(refusal) => {
                assert_eq!((refusal.code(), refusal.status()), (Code::Overloaded, 503));
                assert!(refusal.retry_after_seconds().is_some());
                refused += 1;
            }
        }
    }
    assert!((1..=3).contains(&done) && refused == 10 - done, "{done} done, {refused} refused");
    assert_eq!(gate.mailbox.depth(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_listing_gives_up_actor_and_gate_and_has_them_back_with_the_next_call() {
    let bench = Bench::new("idle_stop = \"1s\"");
    let id = bench.listing(1_000).await;
    let (handle, caller) = (bench.handle(id).await, bench.caller());
    let payment = bench.quote(&handle, &caller, 1).await;
    let flight = handle.gate.flights.take(payment).expect("the first");
    drop(handle);
    let gate = Arc::downgrade(&bench.gate(id));
    bench.time.fetch_add(10 * SECOND, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert!(gate.strong_count() > 0, "a payment in flight is not idle");
    drop(flight);
    eventually("gate and actor are gone", || gate.strong_count() == 0).await;
    assert!(bench.world.gates.is_empty());
    let handle = bench.handle(id).await;
    assert_eq!(bench.quote(&handle, &caller, 1).await, payment, "the store knows the rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_goes_and_comes_back_finds_its_payments_in_flight() {
    let bench = Bench::new("");
    let id = bench.listing(1_000).await;
    let (handle, caller) = (bench.handle(id).await, bench.caller());
    let payment = bench.quote(&handle, &caller, 1).await;
    let flight = handle.gate.flights.take(payment).expect("the first");
    let old = bench.gate(id);
    drop(handle);
    bench.world.forget_gate(&old);
    let handle = bench.handle(id).await;
    assert!(!Arc::ptr_eq(&old, &handle.gate));
    assert!(handle.gate.flights.take(payment).is_err(), "the call that was begun is still under way");
    drop(flight);
    assert!(handle.gate.flights.take(payment).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_feed_makes_settings_read_anew_and_nothing_else() {
    let bench = Bench::new("");
    let id = bench.listing(1_000).await;
    let handle = bench.handle(id).await;
    let gate = bench.gate(id);
    let permit = gate.admit(gate.terms(), ProfileId::mint(bench.now()), bench.now()).await.expect("admitted");
    bench.directory.forget_all();
    let mut listing = handle.terms().listing.clone();
    listing.price = Micros(2_000);
    bench.world.store.listing_update(listing, None).await.expect("written");
    let again = bench.handle(id).await;
    assert_eq!(again.terms().listing.price, Micros(2_000));
    assert_eq!(handle.terms().listing.price, Micros(1_000), "a request keeps what it began with");
    assert!(Arc::ptr_eq(&gate, &again.gate), "the seller's slots are still the same");
    assert_eq!(gate.view(bench.now()).taken, 1);
    drop(permit);
    assert_eq!(gate.view(bench.now()).taken, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_are_bounded_and_only_what_nobody_uses_makes_room() {
    let bench = Bench::new("gates_max = 16");
    let used = bench.listing(1).await;
    let in_use = bench.handle(used).await;
    let mut handles = Vec::new();
    for _ in 0..40 {
        let id = bench.listing(1).await;
        drop(bench.handle(id).await);
        bench.time.fetch_add(1, Ordering::Relaxed);
    }
    assert!(bench.world.gates.len() <= 16, "{}", bench.world.gates.len());
    assert!(Arc::ptr_eq(&in_use.gate, &bench.gate(used)), "who is in use stays, however old");
    for _ in 0..15 {
        let id = bench.listing(1).await;
        handles.push(bench.handle(id).await);
    }
    let one_more = bench.listing(1).await;
    let refused = bench.directory.listing(&one_more.to_string()).await;
    assert!(refused.is_err_and(|refusal| refusal.code() == Code::Overloaded), "full means no");
    assert!(bench.directory.listing(&used.to_string()).await.is_ok(), "but not for who is there");
    handles.clear();
    assert!(bench.directory.listing(&one_more.to_string()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_names_cost_no_actor_and_one_read() {
    let bench = Bench::new("unknown_listings_max = 100");
    for n in 0..1_000 {
        let refused = bench.directory.listing(&format!("invented-{n}")).await;
        assert!(refused.is_err_and(|refusal| refusal.code() == Code::NotFound));
    }
    assert!(bench.world.gates.is_empty() && bench.directory.unknown_names() <= 100);
    // While it is believed, the store is not asked: a listing that appears there is not seen yet.
    let id = ListingId::mint(bench.now());
    assert!(bench.directory.listing(&id.to_string()).await.is_err());
    bench.world.store.close().await.expect("closed");
    let again = bench.directory.listing(&id.to_string()).await;
    assert!(again.is_err_and(|refusal| refusal.code() == Code::NotFound), "answered from memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_circuit_is_probed_by_paid_calls_only_on_priced_listings() {
    let bench = Bench::new("");
    let (priced, free) = (bench.listing(1_000).await, bench.listing(0).await);
    let caller = bench.caller();
    for (id, sells_a_probe) in [(priced, false), (free, true)] {
        let handle = bench.handle(id).await;
        let gate = bench.gate(id);
        for _ in 0..7 {
            let mut permit = gate.admit(gate.terms(), caller.profile.id, bench.now()).await.expect("closed");
            permit.record(bench.now(), true);
        }
        let look = || gate.look(&gate.terms(), &caller, bench.now());
        assert!(look().is_err_and(|refusal| refusal.code() == Code::SellerCircuitOpen), "open: nothing is sold");
        bench.time.fetch_add(2 * SECOND, Ordering::Relaxed);
        assert_eq!(gate.circuit(bench.now()), CircuitView::HalfOpen);
        assert_eq!(look().is_ok(), sells_a_probe);
        if !sells_a_probe {
            let refusal = handle.offer(&ask_for(&caller, 9)).await.expect_err("nothing is under way");
            assert_eq!(refusal.code(), Code::SellerCircuitOpen, "no 402 while it is not closed");
        }
        let probe = gate.admit(gate.terms(), caller.profile.id, bench.now()).await.expect("one may probe");
        let other = gate.admit(gate.terms(), caller.profile.id, bench.now()).await;
        assert!(other.is_err_and(|refusal| refusal.code() == Code::SellerCircuitOpen), "one at a time");
        drop(probe);
        let mut next = gate.admit(gate.terms(), caller.profile.id, bench.now()).await.expect("given back");
        next.record(bench.now(), false);
        assert_eq!(gate.circuit(bench.now()), CircuitView::Closed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_finds_no_slot_is_given_back_and_an_open_circuit_takes_nothing_off_the_rate() {
    let bench = Bench::new("waiting_time = \"1ms\"\ncircuit_failures_in_row = 3");
    let limits = EndpointLimits {
        max_concurrency: 1,
        requests_per_second: Some(1),
        burst: Some(6),
        ..EndpointLimits::default()
    };
    let id = bench.listing_with(1_000, limits).await;
    bench.handle(id).await;
    let (gate, buyer) = (bench.gate(id), ProfileId::mint(bench.now()));
    let admit = async || gate.admit(gate.terms(), buyer, bench.now()).await;
    for _ in 0..3 {
        admit().await.expect("closed").record(bench.now(), true);
    }
    for _ in 0..50 {
        assert!(admit().await.is_err_and(|refusal| refusal.code() == Code::SellerCircuitOpen));
    }
    bench.time.fetch_add(2 * SECOND, Ordering::Relaxed);
    // The one slot is taken by a call from before the failures.
    assert!(gate.slots.take(1).await);
    assert!(admit().await.is_err_and(|refusal| refusal.code() == Code::SellerBusy));
    gate.slots.give_back();
    let probe = admit().await.expect("the probe was given back, and three of six tokens were left");
    assert_eq!(gate.circuit(bench.now()), CircuitView::HalfOpen);
    drop(probe);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_is_not_called_faster_by_changing_its_listing_and_a_moved_endpoint_starts_closed() {
    let bench = Bench::new("");
    let limits = EndpointLimits { requests_per_second: Some(1), burst: Some(2), ..EndpointLimits::default() };
    let id = bench.listing_with(1_000, limits).await;
    let handle = bench.handle(id).await;
    let (gate, buyer) = (bench.gate(id), ProfileId::mint(bench.now()));
    let admit = async || gate.admit(gate.terms(), buyer, bench.now()).await;
    drop((admit().await.expect("one"), admit().await.expect("two")));
    let limited = admit().await.err().expect("no third");
    assert_eq!((limited.code(), limited.status()), (Code::RateLimited, 429));
    let mut offer = Offer {
        listing: handle.terms().listing.clone(),
        endpoint: handle.terms().endpoint.as_ref().map(|endpoint| endpoint.endpoint.clone()),
    };
    offer.listing.version += 1;
    offer.listing.name = "another name".into();
    gate.publish(offer.clone());
    assert!(admit().await.is_err_and(|refusal| refusal.code() == Code::RateLimited), "the rate stands");
    for _ in 0..7 {
        let ticket = gate.circuit.lock().admit(bench.now());
        let circuit::Admission::Pass(ticket) = ticket else { panic!("closed") };
        gate.record(bench.now(), true, ticket);
    }
    assert_eq!(gate.circuit(bench.now()).name(), "open");
    let endpoint = offer.endpoint.as_mut().expect("an endpoint");
    endpoint.url = "http://127.0.0.1:10/".into();
    endpoint.version += 1;
    gate.publish(offer.clone());
    assert_eq!(gate.circuit(bench.now()), CircuitView::Closed, "the failures were another endpoint's");
    offer.listing.version -= 1;
    offer.listing.name = "an old name".into();
    gate.publish(offer);
    assert_eq!(gate.terms().listing.name, "another name", "what is older does not overwrite");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_quotes_and_rested_buyers_are_let_go() {
    let bench = Bench::new("");
    let limits = EndpointLimits { requests_per_second_per_buyer: Some(1_000), ..EndpointLimits::default() };
    let id = bench.listing_with(1_000, limits).await;
    let (handle, caller) = (bench.handle(id).await, bench.caller());
    bench.quote(&handle, &caller, 1).await;
    let gate = bench.gate(id);
    assert_eq!(gate.view(bench.now()).open_quotes, 1);
    for _ in 0..100 {
        let permit = gate.admit(gate.terms(), ProfileId::mint(bench.now()), bench.now()).await;
        drop(permit.expect("admitted"));
    }
    bench.time.fetch_add(3_600 * SECOND, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.tidy(bench.now());
    assert_eq!(gate.view(bench.now()).open_quotes, 0);
    let terms = gate.terms();
    let rates = &terms.endpoint.as_ref().expect("an endpoint").rates;
    assert_eq!(rates.per_buyer.as_ref().expect("a rate").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_said_to_be_owed_only_when_it_is() {
    let bench = Bench::new("");
    let id = bench.listing(1_000).await;
    let (handle, caller) = (bench.handle(id).await, bench.caller());
    let store = &bench.world.store;
    let mut payments = Vec::new();
    // Two calls are under way: another node's, and one of this life whose request died.
    for (body, owner) in [(1, Owner { node: 7, epoch: 1 }), (2, store.owner())] {
        let payment = bench.quote(&handle, &caller, body).await;
        let evidence = Evidence {
            proof_key: format!("money {body}"),
            rail: Rail::Sandbox,
            reference: String::new(),
            amount: Micros(1_000),
            recorded_at: bench.now(),
        };
        let claim = storage::ClaimRequest { owner, request_bytes: 2 };
        store.payment_settle(payment, evidence, Some(claim)).await.expect("claimed");
        payments.push((body, payment));
    }
    let mut listing = store.listing_get(id).await.expect("read").expect("there").listing;
    listing.status = ListingStatus::Suspended;
    store.listing_update(listing, None).await.expect("suspended");
    bench.directory.changed(id).await;

    let mut told = Vec::new();
    for (body, payment) in payments {
        let handle = bench.handle(id).await;
        let text = payment.to_string();
        let ask = Ask { payment_id: Some(&text), ..ask_for(&caller, body) };
        let Ok(PaymentFound::Settled(ready)) = handle.payment(&ask).await else { panic!("it is settled") };
        let refusal = handle.admit_paid(&ready).await.err().expect("the listing is closed");
        let kept = store.payment_get(payment).await.expect("read").expect("there");
        let body: serde_json::Value = serde_json::from_slice(&refusal.body("")).expect("JSON");
        let said = body["error"]["details"]["payment_state"].as_str().map(str::to_string);
        told.push((refusal.code(), said, kept.progress.state.name()));
    }
    let under_way = (Code::PaymentInProgress, Some("claimed".into()), "claimed");
    let given_back = (Code::PaymentClosed, Some("owed".into()), "owed");
    assert_eq!(told, [under_way, given_back]);
}
