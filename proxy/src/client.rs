//! The client for buyers and sellers: `crochet register · recover · wallets · keys · listings · call · pay · calls ·
//! reviews · ledger · score`. It speaks to a gateway's public address alone; wallets and keys lie in a folder of its
//! user's (`home`).
//!
//! *Never:* shows a wallet's secret key, sends an API key to another gateway than the one that gave it, pays without
//! having noted the payment before, or takes a secret from the command line, where others can read it.

mod arguments;
mod books;
mod catalog;
mod delivery;
mod endpoint;
mod fault;
mod home;
pub(crate) mod http;
mod identity;
mod keys;
pub(crate) mod pretty;
mod purchase;
mod seller;
mod table;
pub(crate) mod wallet;
mod wallets;

use std::{
    io::{self, Read as _, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

pub use arguments::ClientCommand;
use arguments::{At, KeysCommand, WalletsCommand};
use fault::Refused;
use home::{Account, Home};
use http::{Answer, Request, Server};

/// The longest text that is read from a file or from standard input, bytes: what a listing may take.
const INPUT_MAX: u64 = 16 << 20;
/// API keys begin so.
const KEY_MARK: &str = "am_k_";
/// How much of a key is shown, its mark included.
const KEY_SHOWN: usize = 11;

/// How a command ended that broke nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// What was asked for is done.
    Done,
    /// It is not done: somebody has to decide first.
    Undecided,
}

/// Does it: what was asked for goes to standard output, all that is said about it to standard error. 0 when it was done,
/// 1 when it was not.
pub fn run(command: &ClientCommand) -> ExitCode {
    let at = command.at();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(perform(command, at)));
    match done {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Undecided) => ExitCode::FAILURE,
        // Whoever read along has read enough.
        Err(fault) if is_closed_pipe(&fault) => ExitCode::SUCCESS,
        Err(fault) => {
            if at.json {
                let _ = say(&format!("{}\n", fault::as_json(&fault)));
            }
            note(&format!("crochet: {fault:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn perform(command: &ClientCommand, at: &At) -> Result<Ended> {
    let client = Client::new(at)?;
    match command {
        ClientCommand::Register(order) => identity::register(&client, order).await,
        ClientCommand::Recover(order) => identity::recover(&client, order).await,
        ClientCommand::Wallets(order) => {
            wallets::run(&client, order.what.as_ref().unwrap_or(&WalletsCommand::List)).await
        }
        ClientCommand::Keys(order) => keys::run(&client, order.what.as_ref().unwrap_or(&KeysCommand::List)).await,
        ClientCommand::Listings(order) => catalog::run(&client, order.what.as_ref()).await,
        ClientCommand::Call(order) => purchase::call(&client, order).await,
        ClientCommand::Pay(order) => purchase::pay(&client, order).await,
        ClientCommand::Calls(order) => books::calls(&client, order).await,
        ClientCommand::Reviews(order) => books::reviews(&client, &order.what).await,
        ClientCommand::Ledger(order) => books::ledger(&client, order).await,
        ClientCommand::Score(order) => books::score(&client, order).await,
    }
}

impl ClientCommand {
    fn at(&self) -> &At {
        match self {
            Self::Register(order) => &order.at,
            Self::Recover(order) => &order.at,
            Self::Wallets(order) => &order.at,
            Self::Keys(order) => &order.at,
            Self::Listings(order) => &order.at,
            Self::Call(order) => &order.at,
            Self::Pay(order) => &order.at,
            Self::Calls(order) => &order.at,
            Self::Reviews(order) => &order.at,
            Self::Ledger(order) => &order.at,
            Self::Score(order) => &order.at,
        }
    }
}

/// Who asks, and whom.
struct Client {
    server: Server,
    /// The URL by which the gateway names itself.
    site: String,
    home: Home,
    /// A key of the user's choice.
    key: Option<String>,
    wallet: Option<String>,
    json: bool,
}

impl Client {
    fn new(at: &At) -> Result<Self> {
        let key = at.key_file.as_deref().map(read_key).transpose()?;
        let server = Server::at(&at.url, at.ca.as_deref(), Duration::from_secs(at.timeout))?;
        if server.is_overheard() {
            note(&format!("crochet: {} is in the clear: keys can be read on the way; https hides them", server.site()));
        }
        let home = Home::find(at.home.as_deref())?;
        let site = at.site.as_deref().unwrap_or(server.site()).trim_end_matches('/').to_string();
        Ok(Self { server, site, home, key, wallet: at.wallet.clone(), json: at.json })
    }

    /// Who we are at this gateway.
    fn account(&self) -> Result<Option<Account>> {
        self.home.account(self.server.site())
    }

    /// The key that asks.
    ///
    /// # Errors
    /// When there is none.
    fn key(&self) -> Result<String> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        let account = self.account()?;
        account.map(|account| account.api_key).with_context(|| {
            format!(
                "there is no key for {}: run `crochet register`, or `crochet recover` with a wallet that it knows, or \
                 `crochet keys use FILE`",
                self.server.site()
            )
        })
    }

    /// Whose key it is that asks.
    async fn profile(&self) -> Result<String> {
        if self.key.is_none()
            && let Some(account) = self.account()?
        {
            return Ok(account.profile_id);
        }
        Ok(self.get("/api/v1/me").await?.text("/data/profile/id")?.to_string())
    }

    /// Asks without a key.
    async fn ask_openly(&self, method: &'static str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let body = body.map(Value::to_string);
        let request = Request { method, path: path.to_string(), body, ..Request::default() };
        accepted(self.server.send(&request).await?)
    }

    /// Asks with the key.
    async fn ask(&self, method: &'static str, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.ask_with(method, path, body.map(Value::to_string)).await
    }

    /// Asks with the key, and a body that stays as it was written.
    async fn ask_with(&self, method: &'static str, path: &str, body: Option<String>) -> Result<Answer> {
        let key = self.key()?;
        let request = Request { method, path: path.to_string(), key: Some(&key), body, ..Request::default() };
        accepted(self.server.send(&request).await?)
    }

    async fn get(&self, path: &str) -> Result<Answer> {
        self.ask("GET", path, None).await
    }

    /// Shows an answer: as it is to programs, as `people` says to people.
    fn show(&self, answer: &Answer, people: impl FnOnce(&Value) -> String) -> Result<Ended> {
        if self.json {
            say(&format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end()))?;
        } else {
            say(&people(answer.json.pointer("/data").unwrap_or(&Value::Null)))?;
        }
        Ok(Ended::Done)
    }
}

fn accepted(answer: Answer) -> Result<Answer> {
    if answer.status >= 300 || answer.json.pointer("/success") != Some(&Value::Bool(true)) {
        bail!(Refused(answer));
    }
    Ok(answer)
}

fn rows(data: &Value) -> &[Value] {
    data.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A path below `/api/v1` of which one segment was typed.
fn path(before: &str, typed: &str, after: &str) -> String {
    format!("/api/v1/{before}/{}{after}", escaped(typed))
}

/// A path with those parameters that were given.
fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_ref()?))));
    let given: Vec<_> = given.collect();
    if given.is_empty() { path.to_string() } else { format!("{path}?{}", given.join("&")) }
}

fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    // Dots alone would be a way up.
    let is_plain = |byte: u8| is_plain(byte) && !(byte == b'.' && text.bytes().all(|byte| byte == b'.'));
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A text that was typed, or that stands in the file behind an `@`, or comes from standard input after `@-`.
fn given(typed: &str) -> Result<String> {
    match typed.strip_prefix('@') {
        Some(file) => read_input(Path::new(file)),
        None => Ok(typed.to_string()),
    }
}

/// A whole file; `-` is standard input.
fn read_input(file: &Path) -> Result<String> {
    let told = || {
        format!(
            "{} cannot be read",
            if file == Path::new("-") { "standard input".into() } else { file.display().to_string() }
        )
    };
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(INPUT_MAX + 1).read_to_string(&mut text).with_context(told)?;
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(INPUT_MAX + 1).read_to_string(&mut text))
            .with_context(told)?;
    }
    ensure!(text.len() as u64 <= INPUT_MAX, "{} holds more than {INPUT_MAX} bytes", file.display());
    Ok(text)
}

fn read_key(file: &Path) -> Result<String> {
    let text = read_input(file)?;
    let key = text.trim();
    let is_key = key.starts_with(KEY_MARK) && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    ensure!(is_key, "{} holds no API key: one begins with {KEY_MARK}", file.display());
    Ok(key.to_string())
}

/// A key's beginning, which tells it from others and opens nothing.
fn shown_key(key: &str) -> String {
    format!("{}\u{2026}", key.chars().take(KEY_SHOWN).collect::<String>())
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Said about what is done, not part of it. Nothing is left to be done when nobody listens.
fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn is_closed_pipe(fault: &anyhow::Error) -> bool {
    fault.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_stays_in_its_place() {
        assert_eq!(path("listings", "a/../b?c#d e", "/endpoint"), "/api/v1/listings/a%2F..%2Fb%3Fc%23d%20e/endpoint");
        assert_eq!(path("listings", "..", ""), "/api/v1/listings/%2E%2E");
        let asked = query("/a", &[("q", Some("ü&b=c".into())), ("none", None), ("n", Some("1".into()))]);
        assert_eq!(asked, "/a?q=%C3%BC%26b%3Dc&n=1");
        assert_eq!(query("/a", &[("q", None)]), "/a");
    }

    #[test]
    fn a_text_comes_from_the_line_or_from_a_file() {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let file = directory.path().join("body");
        std::fs::write(&file, "{\"a\": 1}\n").expect("written");
        assert_eq!(given("{}").expect("typed"), "{}");
        assert_eq!(given(&format!("@{}", file.display())).expect("read"), "{\"a\": 1}\n");
        assert!(given("@/nowhere/at/all").is_err());
        assert!(read_key(&file).is_err(), "that is no key");
    }
}
