//! The gateway's own account of things, row by row, as its histories show them.

use anyhow::Context;
use serde_json::Value;

use crate::{api::Api, market::Market};

/// A row of `/ledger`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The posting.
    pub id: String,
    /// The payment that it belongs to.
    pub payment: String,
    /// `entry_type`.
    pub kind: String,
    /// `debit` or `credit`.
    pub direction: String,
    /// How much.
    pub micros: i64,
}

/// A row of `/gateway-requests`: one attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestRow {
    /// The gateway request.
    pub id: String,
    /// Which attempt of it.
    pub attempt: u32,
    /// `completed`, `released`, `interrupted` or `in_progress`.
    pub status: String,
    /// What was charged, its fee, and the seller's part.
    pub charged_micros: i64,
    /// The marketplace's part.
    pub fee_micros: i64,
    /// The seller's part.
    pub seller_micros: i64,
    /// Why it was released; empty when it was not.
    pub error_code: String,
}

/// What one party is shown.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    /// Its `/ledger`.
    pub ledger: Vec<LedgerRow>,
    /// Its `/gateway-requests`.
    pub requests: Vec<RequestRow>,
}

/// What all parties are shown.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// By buyer.
    pub buyers: Vec<Histories>,
    /// By seller.
    pub sellers: Vec<Histories>,
}

impl Account {
    /// Reads everybody's histories, whole.
    ///
    /// # Errors
    /// When one is not shown as documented.
    pub async fn read(market: &Market) -> anyhow::Result<Self> {
        let mut account = Self::default();
        for buyer in &market.buyers {
            account.buyers.push(Histories::read(&market.api, &buyer.key, "buyer").await?);
        }
        for shop in &market.shops {
            account.sellers.push(Histories::read(&market.api, &shop.agent.key, "seller").await?);
        }
        Ok(account)
    }
}

impl Histories {
    async fn read(api: &Api, key: &str, role: &str) -> anyhow::Result<Self> {
        let ledger = api.history("/ledger", key, LedgerRow::read).await?;
        let requests = api.history(&format!("/gateway-requests?role={role}"), key, RequestRow::read).await?;
        Ok(Self { ledger, requests })
    }
}

impl LedgerRow {
    fn read(row: &Value) -> anyhow::Result<Self> {
        Ok(Self {
            id: text(row, "/id")?,
            payment: text(row, "/relay_request_id")?,
            kind: text(row, "/entry_type")?,
            direction: text(row, "/direction")?,
            micros: number(row, "/amount/amount_micros")?,
        })
    }
}

impl RequestRow {
    fn read(row: &Value) -> anyhow::Result<Self> {
        Ok(Self {
            id: text(row, "/id")?,
            attempt: u32::try_from(number(row, "/attempt")?)?,
            status: text(row, "/status")?,
            charged_micros: number(row, "/charged_amount/amount_micros")?,
            fee_micros: number(row, "/fees/fee_amount_micros")?,
            seller_micros: number(row, "/fees/seller_receives_micros")?,
            error_code: row.pointer("/error_code").and_then(Value::as_str).unwrap_or_default().to_owned(),
        })
    }
}

fn text(row: &Value, pointer: &str) -> anyhow::Result<String> {
    Ok(row.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no text at {pointer}"))?.to_owned())
}

fn number(row: &Value, pointer: &str) -> anyhow::Result<i64> {
    row.pointer(pointer).and_then(Value::as_i64).with_context(|| format!("no whole number at {pointer}"))
}
