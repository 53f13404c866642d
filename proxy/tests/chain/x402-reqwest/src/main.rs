//! Pays one call with the unmodified client of x402-rs: URL, API key, private key and body as arguments. Prints what came
//! as JSON.

use std::sync::Arc;

use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, bail};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use x402_chain_eip155::V2Eip155ExactClient;
use x402_reqwest::{ReqwestWithPayments, ReqwestWithPaymentsBuild, X402Client};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, key, secret, body] = arguments.as_slice() else { bail!("URL KEY SECRET BODY") };
    let signer: PrivateKeySigner = secret.parse().context("the private key")?;
    let payer = X402Client::new().register(V2Eip155ExactClient::new(Arc::new(signer)));
    let http = reqwest::Client::new().with_payments(payer).build();
    let request = http.post(url).header(AUTHORIZATION, format!("Bearer {key}"));
    let answer = request.header(CONTENT_TYPE, "application/json").body(body.clone()).send().await?;
    let status = answer.status().as_u16();
    let receipt = answer.headers().get("payment-response").and_then(|value| value.to_str().ok()).map(str::to_string);
    let body: serde_json::Value = serde_json::from_str(&answer.text().await?)?;
    println!("{}", serde_json::json!({ "status": status, "body": body, "receipt": receipt }));
    Ok(())
}
