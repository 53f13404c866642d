//! Answers: the envelope, the headers that every answer has, and how money, ids and moments are shown.

use std::{
    convert::Infallible,
    fmt::Display,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    body::{BodySize, MessageBody},
    http::{StatusCode, header},
};
use actors::{
    limiter::RateFields,
    refusal::{Code, Refusal},
};
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use storage::model::{FeeRate, Micros, Split};

const JSON: &str = "application/json";

/// A good answer.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    cookie: Option<String>,
}

#[derive(Serialize)]
struct Envelope<T, P, S> {
    success: bool,
    data: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pagination: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<S>,
}

/// Where a page-numbered list stands.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pages {
    pub(crate) page: usize,
    pub(crate) limit: usize,
    pub(crate) total: usize,
    pub(crate) total_pages: usize,
}

/// Where a history stands.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct More {
    pub(crate) limit: usize,
    pub(crate) next_cursor: Option<String>,
}

impl Reply {
    /// 200 with `data`.
    pub(crate) fn ok<T: Serialize>(data: T) -> Result<Self, Refusal> {
        Self::new(StatusCode::OK, data, None::<()>)
    }

    /// 201 with `data`.
    pub(crate) fn created<T: Serialize>(data: T) -> Result<Self, Refusal> {
        Self::new(StatusCode::CREATED, data, None::<()>)
    }

    /// 200 with one page of a list.
    pub(crate) fn page<T: Serialize, P: Serialize>(data: T, pagination: P) -> Result<Self, Refusal> {
        Self::new(StatusCode::OK, data, Some(pagination))
    }

    /// 200 with one page of a list, and what all of it comes to.
    pub(crate) fn page_of<T: Serialize, P: Serialize, S: Serialize>(
        data: T,
        pagination: P,
        summary: S,
    ) -> Result<Self, Refusal> {
        Self::with(StatusCode::OK, data, Some(pagination), Some(summary))
    }

    /// A page for people.
    pub(crate) fn html(body: impl Into<Bytes>) -> Self {
        Self::text("text/html; charset=utf-8", body)
    }

    /// A text of this media type, without the envelope.
    pub(crate) fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type, body: body.into(), cookie: None }
    }

    fn new<T: Serialize, P: Serialize>(status: StatusCode, data: T, pagination: Option<P>) -> Result<Self, Refusal> {
        Self::with(status, data, pagination, None::<()>)
    }

    fn with<T: Serialize, P: Serialize, S: Serialize>(
        status: StatusCode,
        data: T,
        pagination: Option<P>,
        summary: Option<S>,
    ) -> Result<Self, Refusal> {
        let body = serde_json::to_vec(&Envelope { success: true, data, pagination, summary }).map_err(|error| {
            tracing::error!(%error, "an answer could not be written");
            Refusal::from(Code::Internal)
        })?;
        Ok(Self { status, content_type: JSON, body: body.into(), cookie: None })
    }

    /// With a whole `Set-Cookie`.
    pub(crate) fn with_cookie(self, cookie: String) -> Self {
        Self { cookie: Some(cookie), ..self }
    }
}

/// What is written at once of a body.
const PIECE: usize = 8 << 10;

/// A body, given to its connection piece by piece. A connection copies what it is given until the client takes it: of a
/// long text that many ask for and nobody takes, each would hold a copy.
struct Pieces(Bytes);

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(u64::try_from(self.0.len()).unwrap_or(u64::MAX))
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let count = self.0.len().min(PIECE);
        Poll::Ready((count > 0).then(|| Ok(self.0.split_to(count))))
    }
}

/// What an answer carries besides its body.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// The client's own when it was well-formed, else ours.
    pub(crate) request_id: String,
    /// What is left of the rate, once that is known.
    pub(crate) rate: Option<RateFields>,
    /// It was asked with a key, or carries one: no cache may keep it.
    pub(crate) is_private: bool,
    /// The methods of the route, when the one asked is not among them.
    pub(crate) allow: Option<&'static str>,
}

/// Writes an answer or a refusal.
pub(crate) fn write(answer: Result<Reply, Refusal>, frame: Frame, site: &str) -> HttpResponse {
    match answer {
        Ok(reply) => {
            let mut response = HttpResponse::build(reply.status);
            frame.write(&mut response);
            if let Some(cookie) = reply.cookie {
                response.insert_header((header::SET_COOKIE, cookie));
            }
            response.insert_header((header::CONTENT_TYPE, reply.content_type)).body(Pieces(reply.body))
        }
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = HttpResponse::build(status);
            frame.write(&mut response);
            if let Some(seconds) = refusal.retry_after_seconds() {
                response.insert_header((header::RETRY_AFTER, seconds.to_string()));
            }
            if refusal.code() == Code::Unauthenticated {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            response.insert_header((header::CONTENT_TYPE, JSON)).body(refusal.body(site))
        }
    }
}

impl Frame {
    fn write(self, response: &mut HttpResponseBuilder) {
        response.insert_header(("x-request-id", self.request_id));
        response.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
        if self.is_private {
            response.insert_header((header::CACHE_CONTROL, "no-store"));
        }
        if let Some(rate) = self.rate {
            response.insert_header(("ratelimit-policy", rate.policy));
            response.insert_header(("ratelimit", rate.state));
        }
        if let Some(methods) = self.allow {
            response.insert_header((header::ALLOW, methods));
        }
    }
}

/// Shown as its `Display` says: ids and moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A decimal number, written digit by digit and never through a float.
#[derive(Clone, Debug)]
pub(crate) struct Decimal(String);

impl Decimal {
    /// Currency units.
    pub(crate) fn units(amount: Micros) -> Self {
        Self(amount.units())
    }

    /// Thousandths of one.
    pub(crate) fn thousandths(value: u64) -> Self {
        Self(Micros(i64::try_from(value).unwrap_or(i64::MAX).saturating_mul(1000)).units())
    }

    fn rate(rate: FeeRate) -> Self {
        Self(rate.decimal())
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = RawValue::from_string(self.0.clone()).map_err(serde::ser::Error::custom)?;
        number.serialize(serializer)
    }
}

/// JSON text of a seller's, shown as the JSON it is.
#[derive(Clone, Debug)]
pub(crate) struct JsonText(pub(crate) String);

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match RawValue::from_string(self.0.clone()) {
            Ok(value) => value.serialize(serializer),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

/// An amount: micros are the truth, cents are for the eye.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct AmountView {
    amount_cents: i64,
    amount_micros: i64,
    currency: &'static str,
}

impl From<Micros> for AmountView {
    fn from(amount: Micros) -> Self {
        Self { amount_cents: amount.cents(), amount_micros: amount.0, currency: "USD" }
    }
}

/// The parts of a charge; the cents shown add up too.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FeesView {
    fee_rate: Decimal,
    fee_amount_cents: i64,
    fee_amount_micros: i64,
    seller_receives_cents: i64,
    seller_receives_micros: i64,
}

impl FeesView {
    pub(crate) fn new(rate: FeeRate, split: Split) -> Self {
        Self {
            fee_rate: Decimal::rate(rate),
            fee_amount_cents: split.fee.cents(),
            fee_amount_micros: split.fee.0,
            seller_receives_cents: split.seller_cents(),
            seller_receives_micros: split.seller.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_digit_by_digit() {
        let text = serde_json::to_string(&Decimal::units(Micros(9_999_999_999))).expect("JSON");
        assert_eq!(text, "9999.999999");
        let fees = FeesView::new(FeeRate(49_000), FeeRate(49_000).split(Micros(1_000_000)));
        let text = serde_json::to_string(&fees).expect("JSON");
        assert!(text.starts_with("{\"fee_rate\":0.049,\"fee_amount_cents\":5,"), "{text}");
    }

    #[test]
    fn broken_json_text_is_shown_as_text() {
        assert_eq!(serde_json::to_string(&JsonText("{\"a\": 1}".into())).expect("JSON"), "{\"a\": 1}");
        assert_eq!(serde_json::to_string(&JsonText("{".into())).expect("JSON"), "\"{\"");
    }
}
