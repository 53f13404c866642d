//! A paid reverse proxy as a Rust seller would build it today: x402-axum's paywall before an axum route that passes
//! the request on with reqwest. The facilitator is the mock that the measured seller answers for.
//!
//! `peer-x402-axum LISTEN SELLER`, both `address:port` on loopback; one worker thread.

use alloy_primitives::address;
use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::post,
};
use x402_axum::X402Middleware;
use x402_chain_eip155::{KnownNetworkEip155, V2Eip155Exact};
use x402_types::networks::USDC;

#[derive(Clone)]
struct Seller {
    client: reqwest::Client,
    base: String,
}

impl Seller {
    async fn ask(
        &self,
        path: &str,
        content_type: Option<&header::HeaderValue>,
        body: Bytes,
    ) -> reqwest::Result<Response> {
        let mut request = self.client.post(format!("{}{path}", self.base)).body(body);
        if let Some(value) = content_type {
            request = request.header(header::CONTENT_TYPE, value);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
        let mut response = (status, answer.bytes().await?).into_response();
        if let Some(value) = content_type {
            response.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        Ok(response)
    }
}

async fn pass_on(State(seller): State<Seller>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let asked = seller.ask(uri.path(), headers.get(header::CONTENT_TYPE), body).await;
    asked.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().context("LISTEN is missing")?;
    let base = format!("http://{}", arguments.next().context("SELLER is missing")?);
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async move {
        let paywall = X402Middleware::new(&base);
        let price = USDC::base_sepolia().parse("0.01").context("the price")?;
        let tag = V2Eip155Exact::price_tag(address!("0x1111111111111111111111111111111111111111"), price);
        let client = reqwest::Client::builder().pool_max_idle_per_host(512).build()?;
        let route = post(pass_on).layer(paywall.with_price_tag(tag));
        let app = Router::new().route("/{*path}", route).with_state(Seller { client, base });
        let listener = tokio::net::TcpListener::bind(&listen).await?;
        Ok(axum::serve(listener, app).await?)
    })
}
