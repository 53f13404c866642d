//! `crochet admin`: what operators do by hand, and the only way to do it. On a store that nobody serves it is done here;
//! on a running one, which has one owner, by that process, asked through the operations port.
//!
//! A later command is one more variant of `order::Order`, the arm that performs it, and a subcommand here.

pub(crate) mod bar;
pub(crate) mod channel;
mod export;
mod money;
pub(crate) mod order;
mod record;

use std::{
    path::{Path, absolute},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use config::Config;
use storage::model::Clock;

use crate::cli::ConfigFile;
use bar::Bar;
use channel::Operator;
pub use export::export;
use order::{Desk, Done, Errand, Kind, Order, Subject, TransferKind};

/// Why something is done is said in so many characters at most.
const WHY_MAX: usize = 200;

const OTHER_VERSION: &str = "the gateway answered something else; is it of another version?";
/// Between two looks at a backup.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What operators do.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Seals everything secret with the current master key; ends a rotation. May be broken off and begun again
    Reseal(Signed),
    /// Closes a profile, or takes a listing off sale, at once
    Suspend(Named),
    /// Opens a profile again, or puts a listing back on sale
    Resume(Named),
    /// Proves the books: every payment, posting, proof and row. Exits 1 when something in them cannot be so
    Audit(money::Look),
    /// Lists the money that waits: for what, since when, and what to do
    Stuck(money::Look),
    /// Sends back what buyers are owed: a file of transfers out, then their references in
    #[command(subcommand)]
    Refund(money::TransferCommand),
    /// Pays sellers what they have earned: a file of transfers out, then their references in
    #[command(subcommand)]
    Payout(money::TransferCommand),
}

/// Who does it and why: both stand in the log and in the operators' record.
#[derive(Debug, Args)]
pub struct Signed {
    /// Why it is done
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Who does it; the system's user when it is not given
    #[arg(long, value_name = "NAME", value_parser = reason)]
    pub who: Option<String>,
    /// Where the configuration is.
    #[command(flatten)]
    pub file: ConfigFile,
}

/// To what it is done.
#[derive(Debug, Args)]
pub struct Named {
    /// What it is
    pub kind: KindArgument,
    /// Its id
    pub id: String,
    /// By whom and why.
    #[command(flatten)]
    pub signed: Signed,
}

/// A kind of thing, as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KindArgument {
    /// An agent or a human
    Profile,
    /// What a seller offers
    Listing,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > WHY_MAX {
        return Err(format!("say it in 1 to {WHY_MAX} characters"));
    }
    Ok(text.to_string())
}

impl AdminCommand {
    /// By whom and why it is done; `None` for a look, which changes nothing.
    fn signed(&self) -> Option<&Signed> {
        match self {
            Self::Reseal(signed) => Some(signed),
            Self::Suspend(named) | Self::Resume(named) => Some(&named.signed),
            Self::Refund(command) | Self::Payout(command) => Some(command.signed()),
            Self::Audit(_) | Self::Stuck(_) => None,
        }
    }

    /// Where the configuration is.
    #[must_use]
    pub fn file(&self) -> &ConfigFile {
        match self {
            Self::Audit(look) | Self::Stuck(look) => &look.file,
            Self::Reseal(signed) => &signed.file,
            Self::Suspend(named) | Self::Resume(named) => &named.signed.file,
            Self::Refund(command) | Self::Payout(command) => &command.signed().file,
        }
    }
}

impl Named {
    fn subject(&self) -> Subject {
        let kind = match self.kind {
            KindArgument::Profile => Kind::Profile,
            KindArgument::Listing => Kind::Listing,
        };
        Subject { kind, id: self.id.clone() }
    }
}

/// Does it, and says what was done.
///
/// # Errors
/// Why it was not done. What was done before that stays done.
pub fn run(config: &Config, command: &AdminCommand, user: Option<String>) -> Result<Said> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signed = command.signed();
        let who = signed.and_then(|signed| signed.who.clone()).or(user).unwrap_or_else(|| "unknown".into());
        let why = signed.map_or_else(|| "a look".to_string(), |signed| signed.why.clone());
        let way = Way::find(config)?;
        let hand = Hand { way, who, why };
        let said = hand.work(command).await;
        hand.way.close().await?;
        said
    })
}

/// Copies the store into a new folder, whether it is being served or not, and says what was copied.
///
/// # Errors
/// Why it was not copied; nothing is left then.
pub fn backup(config: &Config, into: &Path, user: Option<String>) -> Result<String> {
    let into = absolute(into)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let who = user.unwrap_or_else(|| "unknown".into());
        let hand = Hand { way: Way::find(config)?, who, why: "backup".into() };
        let said = hand.backup(&into).await;
        hand.way.close().await?;
        said
    })
}

/// Makes a store in the configured folder, which holds nothing, from a backup.
///
/// # Errors
/// Why there is none now.
pub fn restore(config: &Config, from: &Path) -> Result<String> {
    let report = storage::restore(from, &config.storage)?;
    let path = config.storage.path.display();
    Ok(format!("{} entries and {} files are restored into {path}\n", report.entries, report.files))
}

/// What a command has to say.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// For the standard output.
    pub text: String,
    /// Why it is no success all the same; `None`: it is one.
    pub fault: Option<String>,
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self { text, fault: None }
    }
}

/// How the store is reached.
enum Way {
    Here(Box<Desk>),
    There(Operator),
}

impl Way {
    fn find(config: &Config) -> Result<Self> {
        if storage::is_owned_elsewhere(&config.storage)? {
            return Operator::read(&config.storage.path).map(Self::There);
        }
        let clock = Clock::system();
        let store = storage::open(&config.storage, clock.clone())?;
        Ok(Self::Here(Box::new(Desk::new(store, None, clock, &config.storage.path))))
    }

    async fn close(self) -> Result<()> {
        match self {
            Self::Here(desk) => Ok(desk.close().await?),
            Self::There(_) => Ok(()),
        }
    }
}

struct Hand {
    way: Way,
    who: String,
    why: String,
}

impl Hand {
    async fn work(&self, command: &AdminCommand) -> Result<Said> {
        match command {
            AdminCommand::Reseal(_) => Ok(self.reseal().await?.into()),
            AdminCommand::Suspend(named) => Ok(self.change(Order::Suspend(named.subject())).await?.into()),
            AdminCommand::Resume(named) => Ok(self.change(Order::Resume(named.subject())).await?.into()),
            AdminCommand::Audit(look) => self.audit(look.json).await,
            AdminCommand::Stuck(look) => Ok(self.stuck(look.json).await?.into()),
            AdminCommand::Refund(command) => Ok(self.transfer(TransferKind::Refund, command).await?.into()),
            AdminCommand::Payout(command) => Ok(self.transfer(TransferKind::Payout, command).await?.into()),
        }
    }

    async fn ask(&self, order: Order) -> Result<Done> {
        let errand = Errand { who: self.who.clone(), why: self.why.clone(), order };
        match &self.way {
            Way::Here(desk) => Ok(desk.perform(&errand).await?),
            Way::There(operator) => operator.ask(&errand).await,
        }
    }

    async fn change(&self, order: Order) -> Result<String> {
        match self.ask(order).await? {
            Done::Changed { now } => Ok(format!("{now}\n")),
            _ => bail!(OTHER_VERSION),
        }
    }

    /// Orders it, then asks until it is made.
    async fn backup(&self, into: &Path) -> Result<String> {
        let mut is_begun = false;
        loop {
            match self.ask(Order::Backup { into: into.to_path_buf(), is_begun }).await? {
                Done::BackingUp => tokio::time::sleep(LOOK_EVERY).await,
                Done::BackedUp { entries, files, bytes } => {
                    let into = into.display();
                    return Ok(format!("{entries} entries and {files} files, {bytes} bytes, are copied into {into}\n"));
                }
                _ => bail!(OTHER_VERSION),
            }
            is_begun = true;
        }
    }

    /// One bounded step after the other, so that calls go on beside it.
    async fn reseal(&self) -> Result<String> {
        let (mut bar, mut after, mut sum) = (Bar::new("sealed"), None, 0);
        loop {
            let step = self.ask(Order::Reseal { after }).await;
            let step = step.context("broken off; what was sealed stays so: run it again to go on")?;
            let Done::Resealed { rows, resealed, total, next } = step else {
                bail!(OTHER_VERSION);
            };
            sum += resealed;
            bar.advance(rows, total);
            after = next;
            if after.is_none() {
                break;
            }
        }
        bar.end();
        Ok(format!(
            "{sum} rows were sealed anew; no row needs an earlier master key: it may be taken out of the settings\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_demanded_and_bounded() {
        assert_eq!(reason("  spam  "), Ok("spam".into()));
        for text in ["", "   ", &"x".repeat(WHY_MAX + 1)] {
            assert!(reason(text).is_err(), "{text:?}");
        }
    }
}
