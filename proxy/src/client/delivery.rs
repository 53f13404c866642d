//! What was bought, written out: the seller's answer to standard output or a file, the receipt to standard error.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    http::{ANSWER_MAX, Opened},
    note,
    table::{dollars, plain, plain_lines},
};

/// Where an answer goes.
pub(super) struct Delivery<'a> {
    /// The envelope as it is.
    pub(super) json: bool,
    /// A file for what the seller said.
    pub(super) output: Option<&'a Path>,
    pub(super) payment: Option<&'a str>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Bought<'a>,
}

#[derive(Deserialize)]
struct Bought<'a> {
    request_id: String,
    charged_amount: Amount,
    fees: Fees,
    seller_status_code: u16,
    seller_content_type: String,
    seller_response_encoding: Option<String>,
    #[serde(borrow)]
    seller_response: &'a RawValue,
}

#[derive(Deserialize)]
struct Amount {
    amount_micros: i64,
}

#[derive(Deserialize)]
struct Fees {
    fee_amount_micros: i64,
}

/// Writes it out; when this returns, it is out.
///
/// # Errors
/// When it breaks off, or cannot be written.
pub(super) async fn deliver(mut opened: Opened, to: &Delivery<'_>) -> Result<()> {
    if opened.answer.field("content-type").to_ascii_lowercase().starts_with("text/event-stream") {
        return pass_on(&mut opened, to.output).await;
    }
    let is_replayed = opened.answer.field("x-crochet-replayed") == "true";
    let mut body = Vec::new();
    while let Some(piece) = opened.piece().await? {
        body.extend_from_slice(&piece);
        ensure!(body.len() as u64 <= ANSWER_MAX, "the answer is larger than {ANSWER_MAX} bytes");
    }
    let envelope: Envelope<'_> =
        serde_json::from_slice(&body).context("the gateway's answer is not as it should be")?;
    if to.json {
        put(None, &[&body, b"\n"])?;
    } else {
        write_response(&envelope.data, to.output)?;
        note(&receipt(&envelope.data, to.payment, is_replayed));
    }
    Ok(())
}

fn receipt(bought: &Bought<'_>, payment: Option<&str>, is_replayed: bool) -> String {
    let charged = match bought.charged_amount.amount_micros {
        0 => "free of charge".to_string(),
        micros => format!("charged {} (of it {} fee)", dollars(micros), dollars(bought.fees.fee_amount_micros)),
    };
    let again = if is_replayed { ", once: this is the stored answer" } else { "" };
    let seller = format!("{} {}", bought.seller_status_code, plain(&bought.seller_content_type));
    let payment = payment.map(|payment| format!("\npayment {payment}")).unwrap_or_default();
    format!(
        "request {}: {charged}{again}; the seller answered {}{payment}",
        plain(&bought.request_id),
        seller.trim_end()
    )
}

/// JSON as the seller wrote it; text and bytes as they were before they were put into the envelope.
fn write_response(bought: &Bought<'_>, output: Option<&Path>) -> Result<()> {
    let raw = bought.seller_response.get();
    let is_on_terminal = output.is_none() && io::stdout().is_terminal();
    let is_json = is_json(&bought.seller_content_type);
    let text: Option<String> = if is_json { None } else { serde_json::from_str(raw).ok() };
    let bytes = match (&bought.seller_response_encoding, text) {
        (Some(encoding), Some(text)) if encoding == "base64" => {
            STANDARD.decode(text).context("the gateway's answer is not the base64 that it says it is")?
        }
        (_, Some(text)) => text.into_bytes(),
        (_, None) if output.is_some() => return put(output, &[raw.as_bytes()]),
        (_, None) => raw.as_bytes().to_vec(),
    };
    if !is_on_terminal {
        let end: &[u8] = if is_json { b"\n" } else { b"" };
        return put(output, &[&bytes, if output.is_none() { end } else { b"" }]);
    }
    match String::from_utf8(bytes) {
        Ok(text) => put(None, &[plain_lines(&text).as_bytes(), b"\n"]),
        Err(binary) => {
            bail!("the answer is {} bytes that are no text: run it again with --output FILE", binary.as_bytes().len())
        }
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty() || essence == "application/json" || essence.ends_with("+json")
}

/// Events as they come; the last is the receipt.
async fn pass_on(opened: &mut Opened, output: Option<&Path>) -> Result<()> {
    let mut file = output.map(create).transpose()?;
    let is_terminal = io::stdout().is_terminal();
    while let Some(piece) = opened.piece().await? {
        match &mut file {
            Some(file) => file.write_all(&piece)?,
            None if is_terminal => put(None, &[&piece.iter().map(|byte| harmless(*byte)).collect::<Vec<_>>()])?,
            None => put(None, &[&piece])?,
        }
    }
    file.map_or(Ok(()), |file| file.sync_all())?;
    Ok(())
}

/// A byte without what would begin a command to the terminal.
fn harmless(byte: u8) -> u8 {
    if byte.is_ascii_control() && !b"\n\t".contains(&byte) { b'?' } else { byte }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("{} cannot be written", path.display()))
}

/// Writes all parts; into a file synced, so that the payment may be forgotten.
fn put(output: Option<&Path>, parts: &[&[u8]]) -> Result<()> {
    let Some(path) = output else {
        let mut out = io::stdout().lock();
        parts.iter().try_for_each(|part| out.write_all(part))?;
        out.flush()?;
        return Ok(());
    };
    let mut file = create(path)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
    written.with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bought(content_type: &str, rest: &str) -> String {
        format!(
            "{{\"data\":{{\"request_id\":\"gw_req_1\",\"billable\":true,\"charged_amount\":{{\"amount_micros\":1000000}},\
             \"fees\":{{\"fee_amount_micros\":49000}},\"seller_status_code\":200,\
             \"seller_content_type\":\"{content_type}\",{rest}}}}}"
        )
    }

    fn written(content_type: &str, rest: &str) -> Vec<u8> {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let path = directory.path().join("answer");
        let text = bought(content_type, rest);
        let envelope: Envelope<'_> = serde_json::from_str(&text).expect("an envelope");
        write_response(&envelope.data, Some(&path)).expect("written");
        std::fs::read(path).expect("read")
    }

    #[test]
    fn an_answer_is_what_the_seller_said() {
        let json = "{\"b\": 1.10, \"a\": \"x\"}";
        assert_eq!(written("application/json", &format!("\"seller_response\":{json}")), json.as_bytes());
        assert_eq!(written("text/plain", "\"seller_response\":\"gr\\u00fc\\u00dfe\\n\""), "grüße\n".as_bytes());
        assert_eq!(written("application/json", "\"seller_response\":\"text\""), b"\"text\"");
        let binary = "\"seller_response_encoding\":\"base64\",\"seller_response\":\"AJ+Slg==\"";
        assert_eq!(written("image/png", binary), [0, 0x9f, 0x92, 0x96]);
        assert_eq!(written("", "\"seller_response\":null"), b"null");
    }

    #[test]
    fn a_receipt_says_what_it_cost_and_whether_it_was_bought_before() {
        let text = bought("application/json", "\"seller_response\":1");
        let envelope: Envelope<'_> = serde_json::from_str(&text).expect("an envelope");
        assert_eq!(
            receipt(&envelope.data, Some("pay_1"), true),
            "request gw_req_1: charged 1.00 USD (of it 0.049 USD fee), once: this is the stored answer; the seller answered \
             200 application/json\npayment pay_1"
        );
    }
}
