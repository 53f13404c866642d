//! `crochet listings endpoint`: the seller's own server, as the gateway knows it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Client, Ended, given,
    identity::set,
    path, read_input,
    seller::{Object, show_with_secret},
    table::{cell, facts, moment, plain_lines},
};

/// What is done with an endpoint.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// Shows it; of its URL scheme and host only
    Show,
    /// Sets what is given, and leaves the rest
    Put(Box<Put>),
    /// Has the gateway call it once, as it calls it for buyers
    Test {
        /// What to send: JSON, or @FILE
        #[arg(long, value_name = "JSON")]
        body: Option<String>,
    },
    /// Makes a new signing secret, and shows it this once
    Rotate {
        /// How long the old one signs along; 0: not at all
        #[arg(long, value_name = "SECONDS")]
        overlap_seconds: Option<u64>,
        /// Write the secret into this new file (mode 0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        secret_to: Option<PathBuf>,
    },
}

/// What is set. Those given by name replace those of the file.
#[derive(Debug, Args)]
pub struct Put {
    /// A JSON object with any of the API's fields; - for standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where the gateway reaches the seller; @FILE keeps it off the command line
    #[arg(long = "endpoint", value_name = "URL")]
    pub endpoint: Option<String>,
    /// A header that the gateway sends along, with the value of --auth-value-file
    #[arg(long, value_name = "NAME", requires = "auth_value_file")]
    pub auth_header: Option<String>,
    /// The file with its value; - for standard input
    #[arg(long, value_name = "FILE", requires = "auth_header")]
    pub auth_value_file: Option<PathBuf>,
    /// How long an answer may take
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Calls a second, over all buyers
    #[arg(long, value_name = "N")]
    pub requests_per_second: Option<u64>,
    /// Calls a second of one buyer
    #[arg(long, value_name = "N")]
    pub requests_per_second_per_buyer: Option<u64>,
    /// Calls that may come at once before the rate counts
    #[arg(long, value_name = "N")]
    pub burst: Option<u64>,
    /// Calls at the same time
    #[arg(long, value_name = "N")]
    pub max_concurrency: Option<u64>,
    /// active or paused
    #[arg(long, value_name = "WORD")]
    pub status: Option<String>,
    /// Write the secret of a new endpoint into this new file (mode 0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    pub secret_to: Option<PathBuf>,
}

impl Put {
    fn read(&self) -> Result<Object> {
        let mut fields = self.file.as_deref().map(Object::read).transpose()?.unwrap_or_default();
        let url = self.endpoint.as_deref().map(given).transpose()?;
        fields.set("private_endpoint_url", url.map(|url| url.trim().to_string()))?;
        if let (Some(header), Some(file)) = (&self.auth_header, &self.auth_value_file) {
            let value = read_input(file)?;
            let auth = json!({"header": header, "value": value.trim_end_matches(['\r', '\n'])});
            fields.set("upstream_auth", Some(auth))?;
        }
        fields.set("timeout_ms", self.timeout_ms)?;
        let limits = fields.get("limits").map(|limits| serde_json::from_str(limits.get()));
        let mut limits: Object = limits.transpose().context("limits is a JSON object")?.unwrap_or_default();
        limits.set("requests_per_second", self.requests_per_second)?;
        limits.set("requests_per_second_per_buyer", self.requests_per_second_per_buyer)?;
        limits.set("burst", self.burst)?;
        limits.set("max_concurrency", self.max_concurrency)?;
        fields.set("limits", (!limits.is_empty()).then_some(limits))?;
        fields.set("status", self.status.as_deref())?;
        ensure!(!fields.is_empty(), "say what to set: `crochet listings endpoint ID put --help` lists what can be");
        Ok(fields)
    }
}

/// Does it.
pub(super) async fn run(client: &Client, listing: &str, what: Option<&EndpointCommand>) -> Result<Ended> {
    let place = |after: &str| path("listings", listing, &format!("/endpoint{after}"));
    match what {
        None | Some(EndpointCommand::Show) => client.show(&client.get(&place("")).await?, one),
        Some(EndpointCommand::Put(put)) => {
            let answer = client.ask_with("PUT", &place(""), Some(put.read()?.text()?)).await?;
            show_with_secret(client, answer, put.secret_to.as_deref(), "/data/signing_secret", one)
        }
        Some(EndpointCommand::Test { body }) => {
            let mut asked = Object::default();
            asked.set_json("body", body.as_deref())?;
            client.show(&client.ask_with("POST", &place("/test"), Some(asked.text()?)).await?, tested)
        }
        Some(EndpointCommand::Rotate { overlap_seconds, secret_to }) => {
            if let Some(file) = secret_to {
                ensure!(!file.exists(), "{} is there already", file.display());
            }
            let mut asked = json!({});
            set(&mut asked, "overlap_seconds", *overlap_seconds);
            let answer = client.ask("POST", &place("/rotate-secret"), Some(&asked)).await?;
            show_with_secret(client, answer, secret_to.as_deref(), "/data/signing_secret", one)
        }
    }
}

fn one(data: &Value) -> String {
    let mut shown = vec![
        ("host", cell(data, "/host")),
        ("status", cell(data, "/status")),
        ("circuit", cell(data, "/health/circuit")),
        ("auth header", cell(data, "/auth_header")),
        ("secret", format!("{}\u{2026} since {}", cell(data, "/secret/prefix"), moment(data, "/secret/created_at"))),
        ("old secret until", moment(data, "/secret/previous_expires_at")),
        ("time-out", format!("{} ms", cell(data, "/timeout_ms"))),
        ("calls a second", cell(data, "/limits/requests_per_second")),
        ("of one buyer", cell(data, "/limits/requests_per_second_per_buyer")),
        ("burst", cell(data, "/limits/burst")),
        ("calls at a time", cell(data, "/limits/max_concurrency")),
        ("request bytes", cell(data, "/limits/max_request_bytes")),
        ("answer bytes", cell(data, "/limits/max_response_bytes")),
    ];
    if data.get("last_test").is_some_and(|test| !test.is_null()) {
        let status = cell(data, "/last_test/seller_status_code");
        shown.push(("last test", format!("{status} at {}", moment(data, "/last_test/at"))));
    }
    shown.retain(|(_, value)| value != "-");
    facts(&shown)
}

fn tested(data: &Value) -> String {
    let mut shown = vec![
        ("seller answered", format!("{} {}", cell(data, "/seller_status_code"), cell(data, "/seller_content_type"))),
        ("counts as handled", cell(data, "/handled")),
        ("buyers would see", cell(data, "/error_code")),
        ("time", format!("{} ms", cell(data, "/latency_ms"))),
        ("tls", cell(data, "/tls")),
    ];
    shown.retain(|(_, value)| value != "-");
    let preview = data.pointer("/response_preview").and_then(Value::as_str).unwrap_or_default();
    format!("{}\n{}\n", facts(&shown), plain_lines(preview))
}
