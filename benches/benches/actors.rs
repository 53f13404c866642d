//! What deciding costs on the hot path: a key's form, the seller's signed head, a refusal's bytes, the circuit.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use std::hint::black_box;

use actors::{
    keys,
    refusal::{Code, Refusal},
    seller::{CallContext, Signer},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use storage::model::{
    Endpoint, EndpointLimits, EndpointStatus, GatewayRequestId, ListingId, Micros, PaymentId, ProfileId, SigningSecret,
    UnixMillis,
};

const NOW: UnixMillis = UnixMillis(1_795_500_623_007);

fn key(c: &mut Criterion) {
    let key = keys::generate().unwrap().text;
    c.bench_function("key form and checksum", |b| b.iter(|| keys::is_well_formed(black_box(key.as_bytes()))));
}

fn signed_head(c: &mut Criterion) {
    let listing = ListingId::mint(NOW);
    let secret = SigningSecret { key: [7; 32], created_at: NOW };
    let endpoint = Endpoint {
        listing,
        url: "http://127.0.0.1:9000/work".to_owned(),
        upstream_auth: None,
        timeout_ms: 30_000,
        limits: EndpointLimits::default(),
        status: EndpointStatus::Active,
        secret,
        previous_secret: None,
        last_test: None,
        version: 1,
    };
    let signer = Signer::new(&endpoint).unwrap();
    let call = CallContext {
        request_id: GatewayRequestId::from(PaymentId::mint(NOW)),
        buyer: ProfileId::mint(NOW),
        attempt: 1,
        charged: Micros(10_000),
        body_sha256: &[9; 32],
        traceparent: None,
        accept: "application/json",
        deadline_ms: 30_000,
        now: NOW,
        is_test: false,
    };
    let mut group = c.benchmark_group("signed head");
    for size in [300usize, 16 << 10] {
        let body = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{size} bytes"), |b| b.iter(|| signer.head(&call, black_box(&body))));
    }
    group.finish();
}

fn refusal(c: &mut Criterion) {
    for (name, code) in [("refusal 401", Code::Unauthenticated), ("refusal 429", Code::RateLimited)] {
        let refusal = Refusal::from(code);
        c.bench_function(name, |b| b.iter(|| black_box(&refusal).body("http://127.0.0.1:8080")));
    }
}

criterion_group!(benches, key, signed_head, refusal);
criterion_main!(benches);
