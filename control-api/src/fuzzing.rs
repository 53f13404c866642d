//! Ways in for hostile input, without a socket and without a store: what the fuzz targets and their seeds call. Nothing
//! else does, and nothing here decides anything by itself.

use std::time::Duration;

use actors::refusal::{Code, Refusal};
use storage::model::UnixMillis;

use crate::{
    fields::{Fields, Lines, choice, exact, list, number, price, text},
    identity::{
        address::Address,
        challenge::Purpose,
        nonce::{Nonce, Seal, Subject},
        signature::Signature,
    },
    query::Query,
};

/// Whether this signature, as text, proves this address over this message.
///
/// # Errors
/// `SignatureInvalid`, `ContractWalletUnsupported`; `ValidationFailed` when the address is none.
pub fn wallet_proves(address: &str, message: &str, signature: &str) -> Result<(), Code> {
    let address = Address::parse(address).map_err(|_| Code::ValidationFailed)?;
    let signature = Signature::parse(address.family(), signature).map_err(|refusal| refusal.code())?;
    signature.verify(&address, message).map_err(|refusal| refusal.code())
}

/// An address as it is shown, when the text is one.
#[must_use]
pub fn address_shown(text: &str) -> Option<String> {
    Address::parse(text).ok().map(|address| address.shown())
}

/// Issues a challenge's nonce under `secret` for a wallet that registers.
///
/// # Errors
/// `ValidationFailed` when the address is none.
pub fn challenge_issue(secret: &[u8; 32], address: &str, now: UnixMillis) -> Result<String, Code> {
    let (seal, subject) = sealed(secret, address)?;
    let nonce = Nonce::issue(&seal, &subject, 4, TTL, now).map_err(|refusal| refusal.code())?;
    Ok(nonce.text().to_string())
}

/// Checks a nonce under `secret` for a wallet that registers.
///
/// # Errors
/// `ChallengeInvalid`, `ChallengeExpired`; `ValidationFailed` when the address is none.
pub fn challenge_check(secret: &[u8; 32], address: &str, text: &str, now: UnixMillis) -> Result<(), Code> {
    let (seal, subject) = sealed(secret, address)?;
    Nonce::check(&seal, &subject, TTL, text, now).map(|_| ()).map_err(|refusal| refusal.code())
}

const TTL: Duration = Duration::from_secs(300);

fn sealed(secret: &[u8; 32], address: &str) -> Result<(Seal, Subject), Code> {
    let wallet = Address::parse(address).map_err(|_| Code::ValidationFailed)?;
    let subject = Subject { purpose: Purpose::Register, wallet, profile: None, other: None };
    Ok((Seal::new(secret).ok_or(Code::Internal)?, subject))
}

/// Reads a JSON body with a reader of every kind.
///
/// # Errors
/// `InvalidJson`, `ValidationFailed`.
pub fn body(bytes: &[u8]) -> Result<(), Refusal> {
    const WORDS: &[(&str, u8)] = &[("one", 1), ("two", 2)];
    Fields::read(bytes, |f| {
        let _ = f.optional("line", text(1..=200, Lines::One));
        let _ = f.given("lines", text(1..=200, Lines::Many));
        let _ = f.optional("exact", exact(1..=64));
        let _ = f.optional("number", number(1..=1000));
        let _ = f.optional("price", price);
        let _ = f.optional("word", choice(WORDS));
        let _ = f.optional("list", list(1..=8, exact(1..=8)));
        let _ = f.object("inner", |inner| inner.required("number", number(0..=9)));
        Some(())
    })
}

/// Reads a query string with a reader of every kind.
///
/// # Errors
/// `ValidationFailed`.
pub fn query(text: &str) -> Result<(), Refusal> {
    Query::read(text, |query| {
        let _ = (query.limit(), query.text("q"), query.price("min_price"), query.moment("from"));
        let _ = query.choice("sort", &[("newest", 1), ("price", 2)]);
        let _ = query.parsed::<storage::model::ListingId>("listing", "an id");
    })
}
