//! `crochet demo`: a seller and a buyer meet at a gateway that is serving, over real sockets, and every request and
//! answer is shown. Here is the stage; what is played is in `market` (how they come together) and `purchase` (what
//! is bought and where the money went).
//!
//! *Never:* calls into the gateway past its public address, or believes an answer that it did not check.

mod market;
mod paste;
mod purchase;
mod seller;
mod show;

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use anyhow::{Context as _, Result, ensure};
use seller::Seller;
use serde_json::Value;
use show::Show;
use storage::model::Clock;

use crate::client::http::{Answer, Request, Server};

/// [`run`] on standard output, on a thread that has nothing else to do: the sample seller lives as long as the process.
/// A failure is written to standard error, and the gateway goes on.
pub fn play(public: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failure = match &runtime {
        Ok(runtime) => runtime.block_on(run(public, io::stdout())).err(),
        Err(error) => Some(anyhow::anyhow!("the demo cannot start: {error}")),
    };
    if let Some(failure) = failure {
        // Nothing is left to be done when standard error is closed, too.
        let _ = writeln!(io::stderr(), "{failure:#}");
    }
    if let Ok(runtime) = runtime {
        runtime.block_on(std::future::pending::<()>());
    }
}

/// Plays a purchase against the gateway at `public`, from the seller's registration to the buyer's receipt, writing it to
/// `show`. The gateway must be serving in dev mode with the sandbox rail on. At the end it writes commands that a reader
/// can paste into a shell; for these, the sample seller goes on serving for as long as the runtime lives.
///
/// # Errors
/// What went otherwise than it should, and in which step; also when `show` cannot be written.
pub async fn run(public: SocketAddr, show: impl Write) -> Result<()> {
    let mut play = Play { public, show: Show::new(show) };
    let played = play.perform().await;
    played.with_context(|| play.show.place())
}

/// The stage: where the gateway is, and who watches.
struct Play<W> {
    public: SocketAddr,
    show: Show<W>,
}

/// A program with a profile and a key.
struct Agent {
    key: String,
    profile: String,
}

/// What is offered.
struct Listing {
    id: String,
}

impl<W: Write> Play<W> {
    async fn perform(&mut self) -> Result<()> {
        self.show.step("A sample seller starts its own server")?;
        let seller = Seller::start(Clock::system()).await.context("the sample seller cannot listen")?;
        let place = format!("It takes work at {}", seller.url());
        self.show.note(&[&place, "and refuses whatever the gateway did not sign within the last five minutes."])?;

        self.show.step("The seller's agent registers with a wallet")?;
        let owner = self.register("Demo seller").await?;
        self.show.step("It lists a service at 1.00 USD a call")?;
        let paid = self.list(&owner, &seller, &market::PAID).await?;
        self.show.step("It lists a free one, too")?;
        let free = self.list(&owner, &seller, &market::FREE).await?;

        self.show.step("A buyer's agent registers with a wallet of its own")?;
        let buyer = self.register("Demo buyer").await?;
        self.purchase(&buyer, &owner, &seller, &paid).await?;
        self.call_free(&buyer, &free).await?;

        self.show.step("Your turn")?;
        self.show.note(&[
            "The gateway and the sample seller keep running. These commands can be pasted into bash; the key",
            "is the demo buyer's, and worth nothing outside this gateway.",
        ])?;
        self.show.verbatim(&paste::commands(self.public, &buyer.key, &free.id, &paid.id))?;
        Ok(())
    }

    /// Asks, and shows both sides.
    async fn ask(&mut self, request: Request<'_>, status: u16) -> Result<Answer> {
        self.show.request(&request)?;
        let answer = Server::plain(self.public).send(&request).await?;
        self.show.answer(&answer)?;
        ensure!(answer.status == status, "the gateway answered {} where {status} was due", answer.status);
        Ok(answer)
    }

    async fn get(&mut self, path: &str, key: Option<&str>) -> Result<Answer> {
        self.ask(Request { method: "GET", path: path.to_string(), key, ..Request::default() }, 200).await
    }

    async fn post(&mut self, path: &str, key: Option<&str>, body: &Value, status: u16) -> Result<Answer> {
        let body = Some(body.to_string());
        self.ask(Request { method: "POST", path: path.to_string(), key, body, ..Request::default() }, status).await
    }
}

impl Answer {
    /// That exactly this is at a place in the answer.
    fn must(&self, place: &str, wanted: impl Into<Value>) -> Result<()> {
        let (found, wanted) = (self.json.pointer(place).unwrap_or(&Value::Null), wanted.into());
        ensure!(*found == wanted, "the answer has {found} at {place}, where {wanted} was due");
        Ok(())
    }
}
