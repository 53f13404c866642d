//! What the nouns cost on the hot path: money, postings, a payment's life, its bytes.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use storage::model::{
    Account, CallFacts, Claimed, Evidence, FeeRate, KeptResult, ListingId, Micros, OriginCurrency, Owner, Payment,
    PaymentId, Posting, PostingId, PostingKind, ProfileId, Quote, Rail, ResultEncoding, ResultPlace, UnixMillis,
    ledger_rows,
};

const NOW: UnixMillis = UnixMillis(1_795_500_623_007);
const OWNER: Owner = Owner { node: 7, epoch: 3 };

fn money(c: &mut Criterion) {
    c.bench_function("micros split", |b| b.iter(|| FeeRate(49_000).split(black_box(Micros(1_000_000)))));
    c.bench_function("micros parse", |b| b.iter(|| Micros::parse_units(black_box("12.000001"))));
    let (suspense, seller) = (Account::Suspense(PaymentId::mint(NOW)), Account::Seller(ProfileId::mint(NOW)));
    let split = FeeRate(49_000).split(Micros(1_000_000));
    let id = PostingId::mint(NOW);
    c.bench_function("posting", |b| {
        b.iter(|| {
            let credits = [(seller, split.seller), (Account::Marketplace, split.fee)];
            Posting::new(id, PostingKind::Completed, NOW, &[(suspense, black_box(split.charged))], &credits).unwrap()
        });
    });
    c.bench_function("id mint", |b| b.iter(|| PaymentId::mint(black_box(NOW))));
    let id = PaymentId::mint(NOW);
    c.bench_function("id text", |b| b.iter(|| black_box(id).to_string()));
}

fn life_of_a_payment(c: &mut Criterion) {
    let quoted = quoted();
    c.bench_function("payment settle and claim", |b| {
        b.iter_batched_ref(|| quoted.clone(), settle_and_claim, BatchSize::SmallInput);
    });
    let mut claimed = quoted.clone();
    let claim = settle_and_claim(&mut claimed);
    let end = |payment: &mut Payment| {
        let Claimed::Won(claim) = claim else { return };
        payment.complete(claim, facts(), result(), PostingId::mint(NOW), NOW).unwrap();
    };
    c.bench_function("payment complete", |b| {
        b.iter_batched_ref(|| claimed.clone(), end, BatchSize::SmallInput);
    });
    let mut completed = claimed.clone();
    end(&mut completed);
    let posting = completed.progress.postings.last().unwrap().clone();
    c.bench_function("ledger rows of a posting", |b| {
        b.iter(|| ledger_rows(black_box(&completed), &posting, completed.quote.seller));
    });
    let bytes = postcard::to_stdvec(&completed).unwrap();
    eprintln!("a completed payment is {} bytes", bytes.len());
    c.bench_function("payment to bytes", |b| b.iter(|| postcard::to_stdvec(black_box(&completed)).unwrap()));
    c.bench_function("payment from bytes", |b| {
        b.iter(|| postcard::from_bytes::<Payment>(black_box(&bytes)).unwrap());
    });
}

fn settle_and_claim(payment: &mut Payment) -> Claimed {
    let evidence = Evidence {
        proof_key: format!("sandbox:{}", payment.quote.id),
        rail: Rail::Sandbox,
        reference: "reference".to_owned(),
        amount: payment.quote.price,
        recorded_at: NOW,
    };
    payment.settle(evidence, PostingId::mint(NOW), NOW).unwrap();
    payment.claim(OWNER, 300, NOW)
}

fn quoted() -> Payment {
    let id = PaymentId::mint(NOW);
    Payment::quoted(Quote {
        id,
        buyer: ProfileId::mint(NOW),
        seller: ProfileId::mint(NOW),
        listing: ListingId::mint(NOW),
        body_sha256: [7; 32],
        price: Micros(1_000_000),
        fee_rate: FeeRate(49_000),
        currency: OriginCurrency::Sol,
        rail: Rail::Sandbox,
        provider_ref: id.to_string(),
        terms: Vec::new(),
        idempotency_key: None,
        created_at: NOW,
        expires_at: NOW,
    })
}

fn facts() -> CallFacts {
    CallFacts {
        http_status: 200,
        seller_status_code: Some(200),
        error_code: None,
        response_bytes: 200,
        total_ms: 12,
        seller_ms: 9,
    }
}

fn result() -> KeptResult {
    KeptResult {
        place: ResultPlace::Inline,
        encoding: ResultEncoding::Json,
        seller_status_code: 200,
        content_type: "application/json".to_owned(),
        bytes: 200,
        sha256: [9; 32],
        kept_until: NOW,
    }
}

criterion_group!(benches, money, life_of_a_payment);
criterion_main!(benches);
