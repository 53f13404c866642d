//! What the paid door costs on the hot path: a request's head, chunks, the JSON check, the envelope.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use config::Config;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use proxy::{
    envelope::{self, EnvelopeFacts},
    http1::{
        chunked::{Chunked, Decoded},
        head::{Head, HeadRules},
    },
    json_check::is_json,
};
use storage::model::{FeeRate, Micros, PaymentId, ResultEncoding, UnixMillis};

const REQUEST: &str = "POST /api/v1/gateway/0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\
    Authorization: Bearer am_k_00000000000000000000000000000000000000\r\nContent-Type: application/json\r\n\
    X-Crochet-Relay-Request-Id: pay_0193a1b2c3d47e5f8a9b0c1d2e3f4a5b\r\nContent-Length: 300\r\n\r\n";
const ANSWER: &str = r#"{"answer":"forty-two","usage":{"input_tokens":120,"output_tokens":240},"sources":[1,2,3]}"#;

fn head(c: &mut Criterion) {
    let rules = HeadRules::new(&Config::from_parts(None, []).unwrap());
    c.bench_function("head", |b| {
        let parse = |mut buffer: BytesMut| Head::parse(&mut buffer, &rules).unwrap().unwrap();
        b.iter_batched(|| BytesMut::from(REQUEST), parse, BatchSize::SmallInput);
    });
}

fn chunked(c: &mut Criterion) {
    let body: Vec<u8> = [b"1000\r\n".to_vec(), vec![b'x'; 4096], b"\r\n".to_vec()].concat().repeat(4);
    let body = [body, b"0\r\n\r\n".to_vec()].concat();
    let decode = |mut buffer: BytesMut| {
        let (mut decoder, mut length) = (Chunked::default(), 0);
        while let Decoded::Piece(piece) = decoder.decode(&mut buffer).unwrap() {
            length += piece.len();
        }
        length
    };
    c.bench_function("chunked 16 KiB", |b| {
        b.iter_batched(|| BytesMut::from(&*body), decode, BatchSize::SmallInput);
    });
}

fn json(c: &mut Criterion) {
    let mut group = c.benchmark_group("json check");
    for copies in [1usize, 200] {
        let text = format!("[{}]", vec![ANSWER; copies].join(","));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("{} bytes", text.len()), |b| b.iter(|| is_json(black_box(text.as_bytes()))));
    }
    group.finish();
}

fn wrapped(c: &mut Criterion) {
    let fee_rate = FeeRate(49_000);
    let facts = EnvelopeFacts {
        request_id: PaymentId::mint(UnixMillis(1_795_500_623_007)).into(),
        billable: true,
        split: fee_rate.split(Micros(10_000)),
        fee_rate,
        seller_status_code: 200,
        content_type: "application/json".to_owned(),
        encoding: ResultEncoding::Json,
    };
    c.bench_function("envelope", |b| {
        let answer = Bytes::from_static(ANSWER.as_bytes());
        b.iter(|| {
            let (_, rendered) = envelope::render(facts.encoding, &answer).unwrap();
            envelope::enclose(&facts, &rendered)
        });
    });
}

criterion_group!(benches, head, chunked, json, wrapped);
criterion_main!(benches);
