//! The fields of a listing as a seller gives them, read once for creating and changing alike.

use actors::refusal::{Code, Refusal};
use serde_json::value::RawValue;
use storage::model::{CategoryId, DeliveryType, Format, Listing, ListingStatus, Micros, OriginCurrency, PricingModel};
use url::Url;

use super::endpoint_input::EndpointInput;
use crate::{
    door::Door,
    fields::{Fields, Given, Lines, Read, choice, exact, is_deceptive, list, price, text},
};

pub(crate) const DELIVERY_TYPES: &[(&str, DeliveryType)] = &[
    ("api", DeliveryType::Api),
    ("webhook", DeliveryType::Webhook),
    ("streaming", DeliveryType::Streaming),
    ("batch", DeliveryType::Batch),
    ("file", DeliveryType::File),
];
const FORMATS: &[(&str, Format)] =
    &[("json", Format::Json), ("sse", Format::Sse), ("text", Format::Text), ("binary", Format::Binary)];
const PRICING_MODELS: &[(&str, PricingModel)] = &[("free", PricingModel::Free), ("per_call", PricingModel::PerCall)];
const CURRENCIES: &[(&str, OriginCurrency)] = &[
    ("SOL", OriginCurrency::Sol),
    ("ETH", OriginCurrency::Eth),
    ("USDC", OriginCurrency::Usdc),
    ("USDC-SOL", OriginCurrency::UsdcSol),
];
const STATUSES: &[(&str, ListingStatus)] = &[("draft", ListingStatus::Draft), ("active", ListingStatus::Active)];

const LONG_TEXT: usize = 5_000;
const EXAMPLE_MAX: usize = 16_384;
const URL_MAX: usize = 2_048;
const TAGS_MAX: usize = 10;
const TAG_MAX: usize = 40;

/// What a seller gave.
#[derive(Clone, Debug)]
pub(crate) struct ListingInput {
    name: Option<String>,
    description: Option<String>,
    category: Given<CategoryId>,
    delivery_type: Option<DeliveryType>,
    formats: Option<Vec<Format>>,
    connection_instructions: Given<String>,
    pricing_model: Option<PricingModel>,
    price: Option<Micros>,
    preferred_currency: Given<OriginCurrency>,
    documentation_url: Given<String>,
    example_request: Given<String>,
    example_response: Given<String>,
    tags: Option<Vec<String>>,
    pub(crate) status: Option<ListingStatus>,
    pub(crate) endpoint: EndpointInput,
}

impl ListingInput {
    /// Reads the fields of a change: all of them optional.
    pub(crate) fn read(f: &mut Fields, door: &Door) -> Self {
        // These two have one value each; it is checked, and there is nothing to keep.
        let _ = f.optional("auth_method", choice(&[("none", ())]));
        let _ = f.optional("pricing_currency", choice(&[("USD", ())]));
        Self {
            name: f.optional("name", text(3..=120, Lines::One)),
            description: f.optional("description", text(1..=LONG_TEXT, Lines::Many)),
            category: f.given("category", |value| category(door, value)),
            delivery_type: f.optional("delivery_type", choice(DELIVERY_TYPES)),
            formats: f.optional("formats", list(1..=FORMATS.len(), choice(FORMATS))),
            connection_instructions: f.given("connection_instructions", text(0..=LONG_TEXT, Lines::Many)),
            pricing_model: f.optional("pricing_model", choice(PRICING_MODELS)),
            price: f.optional("pricing_amount", price),
            preferred_currency: f.given("preferred_currency", choice(CURRENCIES)),
            documentation_url: f.given("documentation_url", public_url),
            example_request: f.given("example_request", example),
            example_response: f.given("example_response", example),
            tags: f.optional("tags", list(0..=TAGS_MAX, text(1..=TAG_MAX, Lines::One))),
            status: f.optional("status", choice(STATUSES)),
            endpoint: EndpointInput::read(f, door),
        }
    }

    /// Reads the fields of a new listing: some must be there.
    pub(crate) fn read_new(f: &mut Fields, door: &Door) -> Self {
        f.require(&["name", "description", "pricing_model"]);
        let input = Self::read(f, door);
        if input.pricing_model == Some(PricingModel::PerCall) {
            if input.price.is_none() {
                f.wrong("pricing_amount", "is required for a per_call listing");
            }
            if input.endpoint.url.is_none() {
                f.wrong("private_endpoint_url", "is required for a per_call listing");
            }
        }
        input
    }

    /// Changes a listing as given; its status aside, which has rules of its own.
    pub(crate) fn apply(&self, listing: &mut Listing) {
        set(&self.name, &mut listing.name);
        set(&self.description, &mut listing.description);
        self.category.apply(&mut listing.category);
        set(&self.delivery_type, &mut listing.delivery_type);
        set(&self.formats, &mut listing.formats);
        self.connection_instructions.apply(&mut listing.connection_instructions);
        set(&self.pricing_model, &mut listing.pricing_model);
        set(&self.price, &mut listing.price);
        if self.pricing_model == Some(PricingModel::Free) && self.price.is_none() {
            listing.price = Micros::ZERO;
        }
        self.preferred_currency.apply(&mut listing.preferred_currency);
        self.documentation_url.apply(&mut listing.documentation_url);
        self.example_request.apply(&mut listing.example_request);
        self.example_response.apply(&mut listing.example_response);
        set(&self.tags, &mut listing.tags);
    }
}

fn set<T: Clone>(given: &Option<T>, to: &mut T) {
    if let Some(value) = given {
        *to = value.clone();
    }
}

/// Checks what a listing must be as a whole, whatever changed.
///
/// # Errors
/// `ValidationFailed`.
pub(crate) fn check_whole(listing: &Listing, has_endpoint: bool) -> Result<(), Refusal> {
    let wrong = |name: &str, reason: &str| Err(Refusal::from(Code::ValidationFailed).field(name, reason));
    match listing.pricing_model {
        PricingModel::Free if listing.price != Micros::ZERO => {
            wrong("pricing_amount", "must be 0 or left out for a free listing")
        }
        PricingModel::PerCall if listing.price < Micros::PRICE_MIN => {
            wrong("pricing_amount", "must be at least 0.000001 for a per_call listing")
        }
        PricingModel::PerCall if !has_endpoint => wrong("private_endpoint_url", "is required for a per_call listing"),
        PricingModel::Free | PricingModel::PerCall => Ok(()),
    }
}

fn category(door: &Door, value: &RawValue) -> Read<CategoryId> {
    let name = exact(1..=100)(value)?;
    let known = door.catalogue.category_named(&name).map(|category| category.id);
    known.ok_or_else(|| "must be the id or slug of a category".into())
}

fn public_url(value: &RawValue) -> Read<String> {
    let text = exact(1..=URL_MAX)(value)?;
    let wanted = || "must be an http or https URL".to_string();
    if text.chars().any(|c| is_deceptive(c) || c.is_whitespace()) {
        return Err(wanted());
    }
    let url = Url::parse(&text).map_err(|_| wanted())?;
    let is_good = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    if is_good { Ok(url.into()) } else { Err(wanted()) }
}

/// Any JSON value; kept as the seller wrote it, once every text in it has been looked at.
fn example(value: &RawValue) -> Read<String> {
    let text = value.get();
    if text.len() > EXAMPLE_MAX {
        return Err(format!("must have at most {EXAMPLE_MAX} bytes"));
    }
    let parsed: serde_json::Value =
        serde_json::from_str(text).map_err(|_| "must be a JSON value nested at most 128 deep".to_string())?;
    if has_deceptive_text(&parsed) {
        return Err("must not hold control or direction-override characters".into());
    }
    Ok(text.to_string())
}

fn has_deceptive_text(value: &serde_json::Value) -> bool {
    let is_bad = |text: &str| text.chars().any(|c| is_deceptive(c) && !matches!(c, '\n' | '\r' | '\t'));
    match value {
        serde_json::Value::String(text) => is_bad(text),
        serde_json::Value::Array(items) => items.iter().any(has_deceptive_text),
        serde_json::Value::Object(members) => {
            members.iter().any(|(name, value)| is_bad(name) || has_deceptive_text(value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).expect("JSON")
    }

    #[test]
    fn examples_stay_as_they_were_written() {
        let text = "{\"b\": 1.10, \"a\": [12345678901234567890123]}";
        assert_eq!(example(&raw(text)), Ok(text.into()));
        for text in ["\"\\u202e\"", "{\"\\u0000\": 1}", "[\"\u{2066}\"]"] {
            if let Ok(value) = RawValue::from_string(text.into()) {
                assert!(example(&value).is_err(), "{text}");
            }
        }
        assert!(example(&raw(&format!("{}{}", "[".repeat(200), "]".repeat(200)))).is_err());
    }

    #[test]
    fn documentation_is_on_the_web() {
        assert_eq!(public_url(&raw("\"https://example.org/a\"")), Ok("https://example.org/a".into()));
        for text in ["\"javascript:alert(1)\"", "\"https://u@example.org\"", "\"example\"", "5", "\"\""] {
            assert!(public_url(&raw(text)).is_err(), "{text}");
        }
    }
}
