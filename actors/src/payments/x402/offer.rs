//! What a 402 says to clients of x402.

use serde_json::{Map, Value, json};
use storage::model::{Listing, ListingId, Quote};

use super::{
    IDENTIFIER, SCHEME, X402,
    attest::EXTENSION,
    wire::{self, PaymentRequired, Resource, SIGNATURE_HEADER, VERSION},
};

/// How much of a listing's description is passed on, characters.
const DESCRIPTION_MAX: usize = 200;
/// An example that is longer is left out, bytes: a head has little room.
const EXAMPLE_MAX: usize = 1 << 10;
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

impl X402 {
    /// What is the same for every call.
    pub(crate) fn terms(&self) -> Value {
        json!({
            "scheme": SCHEME, "network": self.network, "asset": self.asset, "payTo": self.pay_to,
            "maxTimeoutSeconds": self.max_timeout_seconds,
            "extra": { "name": self.domain.name, "version": self.domain.version },
        })
    }

    /// The value of `PAYMENT-REQUIRED`. `error`: x402's word for why what was signed did not do.
    pub(crate) fn required(&self, quote: &Quote, listing: &Listing, site: &str, error: Option<&str>) -> String {
        let usual = || format!("{SIGNATURE_HEADER} header is required");
        let mut extensions = Map::new();
        extensions.insert(IDENTIFIER.into(), identifier());
        extensions.insert("bazaar".into(), bazaar(listing));
        let requirements = self.requirements_of(quote);
        if let Some(attester) = &self.attester {
            let url = resource_url(listing.id, site);
            extensions.insert(EXTENSION.into(), attester.offer(&url, &requirements, quote.created_at.0 / 1000));
        }
        wire::encode(&PaymentRequired {
            x402_version: VERSION,
            error: Some(error.map_or_else(usual, str::to_string)),
            resource: resource(listing, site),
            accepts: vec![requirements],
            extensions,
        })
    }
}

/// Where a call is bought.
pub(super) fn resource_url(listing: ListingId, site: &str) -> String {
    format!("{site}/api/v1/gateway/{listing}")
}

/// What is sold.
fn resource(listing: &Listing, site: &str) -> Resource {
    Resource {
        url: resource_url(listing.id, site),
        description: Some(listing.description.chars().take(DESCRIPTION_MAX).collect()),
        mime_type: Some("application/json".into()),
    }
}

/// The buyer may name its payment.
fn identifier() -> Value {
    json!({
        "info": { "required": false },
        "schema": {
            "$schema": DIALECT, "type": "object",
            "properties": {
                "required": { "type": "boolean" },
                "id": { "type": "string", "minLength": 16, "maxLength": 128, "pattern": "^[A-Za-z0-9_-]+$" },
            },
        },
    })
}

/// What a call looks like, so that facilitators can list the listing. Its words are the seller's.
fn bazaar(listing: &Listing) -> Value {
    let example = |text: &Option<String>| -> Option<Value> {
        let text = text.as_ref().filter(|text| text.len() <= EXAMPLE_MAX)?;
        serde_json::from_str(text).ok()
    };
    let mut output = json!({ "type": "json" });
    if let (Some(example), Value::Object(fields)) = (example(&listing.example_response), &mut output) {
        fields.insert("example".into(), example);
    }
    json!({
        "info": {
            "input": {
                "type": "http", "method": "POST", "bodyType": "json",
                "body": example(&listing.example_request).unwrap_or_else(|| json!({})),
            },
            "output": output,
        },
        "schema": {
            "$schema": DIALECT, "type": "object", "required": ["input"],
            "properties": {
                "input": {
                    "type": "object", "required": ["type", "method", "bodyType", "body"],
                    "properties": {
                        "type": { "const": "http" }, "method": { "const": "POST" }, "bodyType": { "const": "json" },
                        "body": {},
                    },
                },
                "output": {
                    "type": "object", "required": ["type"],
                    "properties": { "type": { "type": "string" }, "example": {} },
                },
            },
        },
    })
}
