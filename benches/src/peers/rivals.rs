//! Whom a user would take instead, each with the request it is measured by.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    answer::Answer,
    generator::{body, post},
    machine::{GATEWAY_CORE, LOAD_CORE},
    process::{Process, free_address},
};

/// Where Debian keeps nginx's modules.
const MODULES: &str = "/usr/lib/nginx/modules";

/// The folder with the rivals' configurations.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// A rival that runs, and what it is asked.
pub struct Rival {
    /// The process.
    pub process: Process,
    /// One request, whole.
    pub request: Vec<u8>,
}

/// The seller of all, which is an x402 facilitator too.
///
/// # Errors
/// When nginx does not start.
pub fn seller(run: &Path) -> anyhow::Result<Process> {
    Process::nginx(LOAD_CORE, run, "seller", include_str!("../../peers/seller.conf"), &[])
}

/// nginx, which passes on and does nothing else.
///
/// # Errors
/// When it does not start.
pub fn nginx(run: &Path, name: &str, seller: SocketAddr) -> anyhow::Result<Rival> {
    let facts = [("seller", &*seller.to_string())];
    let process = Process::nginx(GATEWAY_CORE, run, name, include_str!("../../peers/nginx.conf"), &facts)?;
    let request = post("/work", &process.address.to_string(), &made_up_key(), &body());
    Ok(Rival { process, request })
}

/// nginx with the gateway's job in Lua.
///
/// # Errors
/// When it does not start, or its answer is not that of a gateway.
pub fn nginx_lua(run: &Path, seller: SocketAddr) -> anyhow::Result<Rival> {
    let facts = [("seller", &*seller.to_string()), ("modules", MODULES), ("peers", PEERS)];
    let process = Process::nginx(GATEWAY_CORE, run, "nginx-lua", include_str!("../../peers/nginx-lua.conf"), &facts)?;
    let request = post("/api/v1/gateway/listing-7", &process.address.to_string(), &made_up_key(), &body());
    let (status, _, answer) = ask(process.address, &request)?;
    let wrapped = answer.contains(r#""seller_response":{"answer""#);
    ensure!(status == 200 && wrapped, "nginx-lua answers {status} {answer}");
    Ok(Rival { process, request })
}

/// The paywall of x402-axum before a reverse proxy, asked with a payment that its mock facilitator accepts.
///
/// # Errors
/// When it does not start, or does not accept the payment.
pub fn x402_axum(run: &Path, binary: &Path, seller: SocketAddr) -> anyhow::Result<Rival> {
    let address = free_address()?;
    let (path, listen) = (binary.display().to_string(), address.to_string());
    let command = [&*path, &*listen, &*seller.to_string()];
    let process = Process::start(GATEWAY_CORE, &command, address, &run.join("x402-axum.log"))?;
    let unpaid = post("/work", &listen, &made_up_key(), &body());
    let (status, terms, _) = ask(address, &unpaid)?;
    ensure!(status == 402, "x402-axum answers {status} without a payment");
    let terms = terms.context("a 402 without terms")?;
    let terms: Value = serde_json::from_slice(&STANDARD.decode(terms).context("terms in base64")?)?;
    let fields = format!("{}PAYMENT-SIGNATURE: {}\r\n", made_up_key(), STANDARD.encode(payment(&terms)?));
    let request = post("/work", &listen, &fields, &body());
    let (status, _, answer) = ask(address, &request)?;
    ensure!(status == 200, "x402-axum answers {status} {answer} to a payment");
    Ok(Rival { process, request })
}

/// A payment by the first of the terms; its signature is nobody's, which the mock facilitator does not mind.
fn payment(terms: &Value) -> anyhow::Result<String> {
    let accepted = terms.pointer("/accepts/0").context("no terms")?;
    let authorization = json!({
        "from": "0x2222222222222222222222222222222222222222",
        "to": accepted.get("payTo"),
        "value": accepted.get("amount"),
        "validAfter": "0",
        "validBefore": "9999999999",
        "nonce": format!("0x{}", "44".repeat(32)),
    });
    let payload = json!({ "signature": format!("0x{}", "55".repeat(65)), "authorization": authorization });
    let resource = terms.get("resource");
    Ok(json!({ "x402Version": 2, "resource": resource, "accepted": accepted, "payload": payload }).to_string())
}

/// A key as long as a real one: known to nginx-lua, passed on or ignored by the others, refused by our gateway.
#[must_use]
pub fn made_up_key() -> String {
    format!("Authorization: Bearer am_k_{:038}\r\n", 42)
}

/// Asks once: the status, the x402 terms if there are any, the body.
///
/// # Errors
/// When no whole answer comes.
pub fn ask(address: SocketAddr, request: &[u8]) -> anyhow::Result<(u16, Option<Vec<u8>>, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let (mut input, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part)?;
        ensure!(length > 0, "{address} closed: {}", String::from_utf8_lossy(&input));
        input.extend_from_slice(part.get(..length).unwrap_or_default());
        if let Some(answer) = Answer::read(&input).map_err(anyhow::Error::msg)? {
            let terms = answer.field(b"payment-required").map(<[u8]>::to_vec);
            return Ok((answer.status, terms, String::from_utf8_lossy(answer.body).into_owned()));
        }
    }
}
