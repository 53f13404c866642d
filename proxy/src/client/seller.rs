//! What a seller does with its listings.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use storage::model::Micros;

use super::{
    Client, Ended, arguments::usd, catalog::one, given, home::write_secret, http::Answer, identity::work,
    keys::without_secrets, note, path, read_input, table::cell, wallets::words,
};

/// A listing's fields. Those given by name replace those of the file.
#[derive(Debug, Args)]
pub struct Fields {
    /// A JSON object with any of the API's fields; - for standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What it is called
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// What it does; @FILE or @- for standard input
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// What a call costs; 0 makes it free
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub price: Option<Micros>,
    /// Where the gateway reaches the seller; @FILE keeps it off the command line
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Its category (id or slug)
    #[arg(long, value_name = "NAME")]
    pub category: Option<String>,
    /// api, webhook, streaming, batch or file
    #[arg(long, value_name = "WORD")]
    pub delivery_type: Option<String>,
    /// json, sse, text, binary
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    pub formats: Vec<String>,
    /// Words to be found by, at most ten
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    pub tags: Vec<String>,
    /// How to call it; @FILE or @- for standard input
    #[arg(long, value_name = "TEXT")]
    pub instructions: Option<String>,
    /// A request that works: JSON, or @FILE
    #[arg(long, value_name = "JSON")]
    pub example_request: Option<String>,
    /// What is answered to it: JSON, or @FILE
    #[arg(long, value_name = "JSON")]
    pub example_response: Option<String>,
    /// draft or active
    #[arg(long, value_name = "WORD")]
    pub status: Option<String>,
}

impl Fields {
    fn read(&self) -> Result<Object> {
        let mut fields = self.file.as_deref().map(Object::read).transpose()?.unwrap_or_default();
        let text = |typed: &Option<String>| typed.as_deref().map(given).transpose();
        fields.set("name", self.name.clone())?;
        fields.set("description", text(&self.description)?)?;
        if let Some(price) = self.price {
            let model = if price == Micros::ZERO { "free" } else { "per_call" };
            fields.set("pricing_model", Some(model))?;
            // As text: it is never read through a float.
            fields.set("pricing_amount", Some(price.units()))?;
        }
        fields.set("private_endpoint_url", text(&self.endpoint)?.map(|url| url.trim().to_string()))?;
        fields.set("category", self.category.clone())?;
        fields.set("delivery_type", self.delivery_type.clone())?;
        fields.set("formats", words(&self.formats))?;
        fields.set("tags", words(&self.tags))?;
        fields.set("connection_instructions", text(&self.instructions)?)?;
        fields.set_json("example_request", self.example_request.as_deref())?;
        fields.set_json("example_response", self.example_response.as_deref())?;
        fields.set("status", self.status.clone())?;
        Ok(fields)
    }
}

/// A JSON object whose values stay as they were written: an example is shown to buyers as its seller wrote it.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Object(BTreeMap<String, Box<RawValue>>);

impl Object {
    /// One from a file.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn read(file: &Path) -> Result<Self> {
        serde_json::from_str(&read_input(file)?).with_context(|| format!("{} holds no JSON object", file.display()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(AsRef::as_ref)
    }

    /// Sets a field, when there is something to set.
    pub(super) fn set(&mut self, name: &str, value: Option<impl Serialize>) -> Result<()> {
        if let Some(value) = value {
            self.0.insert(name.to_string(), serde_json::value::to_raw_value(&value)?);
        }
        Ok(())
    }

    /// Sets a field to JSON that somebody typed.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn set_json(&mut self, name: &str, typed: Option<&str>) -> Result<()> {
        let Some(text) = typed.map(given).transpose()? else { return Ok(()) };
        let value = RawValue::from_string(text.trim().to_string());
        self.0.insert(name.to_string(), value.with_context(|| format!("{name} is one JSON value"))?);
        Ok(())
    }

    /// As it is sent.
    pub(super) fn text(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

/// `crochet listings create`.
pub(super) async fn create(client: &Client, fields: &Fields, secret_to: Option<&Path>) -> Result<Ended> {
    let mut asked = fields.read()?;
    if ["name", "description", "pricing_model"].iter().any(|name| !asked.has(name)) {
        bail!("a listing needs --name, --description and --price at least, or a --file that has them");
    }
    if let Some(file) = secret_to {
        // Before there is a secret that could be lost.
        ensure!(!file.exists(), "{} is there already", file.display());
    }
    let challenge = client.ask("POST", "/api/v1/listings/challenge", Some(&json!({}))).await?;
    asked.set("pow_nonce", Some(work(&challenge, "/data").await?))?;
    let answer = client.ask_with("POST", "/api/v1/listings", Some(asked.text()?)).await?;
    show_with_secret(client, answer, secret_to, "/data/gateway_endpoint/signing_secret", one)
}

/// Shows an answer and the secret that is in it this once.
pub(super) fn show_with_secret(
    client: &Client,
    mut answer: Answer,
    secret_to: Option<&Path>,
    place: &str,
    people: impl FnOnce(&Value) -> String,
) -> Result<Ended> {
    let secret = answer.json.pointer(place).and_then(Value::as_str).map(str::to_string);
    let Some(secret) = secret else { return client.show(&answer, people) };
    if let Some(file) = secret_to {
        write_secret(file, &secret)
            .context("the signing secret is lost: `crochet listings endpoint ID rotate` makes another")?;
        note(&format!("The signing secret is in {}.", file.display()));
        without_secrets(&mut answer, &["signing_secret"]);
        return client.show(&answer, people);
    }
    note("The signing secret is shown this once: the seller needs it to know the gateway's calls from others'.");
    client.show(&answer, |data| format!("signing secret  {secret}\n\n{}", people(data)))
}

/// `crochet listings change`.
pub(super) async fn change(client: &Client, listing: &str, fields: &Fields) -> Result<Ended> {
    let asked = fields.read()?;
    ensure!(!asked.is_empty(), "say what changes: `crochet listings change --help` lists what can");
    let answer = client.ask_with("PATCH", &path("listings", listing, ""), Some(asked.text()?)).await?;
    show_with_secret(client, answer, None, "/data/gateway_endpoint/signing_secret", one)
}

/// `crochet listings remove`.
pub(super) async fn remove(client: &Client, listing: &str) -> Result<Ended> {
    let answer = client.ask("DELETE", &path("listings", listing, ""), None).await?;
    client.show(&answer, |data| {
        let is_gone = data.pointer("/deleted") == Some(&Value::Bool(true));
        let what = if is_gone { "is deleted" } else { "is off sale; `change --status active` brings it back" };
        format!("{} {what}\n", cell(data, "/slug"))
    })
}
