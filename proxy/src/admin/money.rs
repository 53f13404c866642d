//! Operators' money: the proof of the books, what waits, and transfers out by a file.

mod file;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use storage::{
    BooksPage,
    model::{PayoutStage, WaitReason},
};

use super::{
    Hand, OTHER_VERSION, Said, Signed,
    bar::Bar,
    order::{Done, Order, Transfer, TransferKind, TransferStep},
};
use crate::cli::ConfigFile;

/// A look that changes nothing.
#[derive(Debug, Args)]
pub struct Look {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the configuration is.
    #[command(flatten)]
    pub file: ConfigFile,
}

/// The steps of transfers out.
#[derive(Debug, Subcommand)]
pub enum TransferCommand {
    /// Writes down the intent, and prints the file of transfers to send: CSV, or JSON
    Begin {
        /// One refund's payment, one payout's seller; all that is due when none is given
        #[arg(long, visible_aliases = ["payment", "seller"], value_name = "ID")]
        of: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// By whom and why.
        #[command(flatten)]
        signed: Signed,
    },
    /// Tells that the transfers were sent: the file again, with their references
    Sent(Told),
    /// Tells that the rail's own record shows the transfers; the ledger then does
    Confirm(Told),
}

/// What was done to the transfers of a file.
#[derive(Debug, Args)]
pub struct Told {
    /// The file, CSV or JSON
    pub transfers: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// By whom and why.
    #[command(flatten)]
    pub signed: Signed,
}

impl TransferCommand {
    pub(super) fn signed(&self) -> &Signed {
        match self {
            Self::Begin { signed, .. } => signed,
            Self::Sent(told) | Self::Confirm(told) => &told.signed,
        }
    }
}

impl Hand {
    /// The whole proof, one bounded part after the other.
    async fn books(&self) -> Result<BooksPage> {
        let (mut all, mut after, mut bar) = (BooksPage::default(), None, Bar::new("rows of the books"));
        loop {
            let Done::Books(page) = self.ask(Order::Books { after }).await? else {
                bail!(OTHER_VERSION);
            };
            all.totals.add(&page.totals);
            all.pointers += page.pointers;
            all.faults.extend(page.faults);
            all.waiting.extend(page.waiting);
            all.payouts.extend(page.payouts);
            // How many there are is known when all were looked at.
            bar.advance(page.totals.payments + page.pointers, None);
            after = page.next;
            if after.is_none() {
                bar.end();
                return Ok(all);
            }
        }
    }

    pub(super) async fn audit(&self, as_json: bool) -> Result<Said> {
        let books = self.books().await?;
        let add_up = books.totals.add_up();
        let count = books.faults.len() + usize::from(!add_up);
        let named = |payment: Option<storage::model::PaymentId>| payment.map_or("-".into(), |id| id.to_string());
        let text = if as_json {
            let faults = books.faults.iter();
            let faults: Vec<_> =
                faults.map(|fault| json!({"payment": named(fault.payment), "what": fault.what})).collect();
            let report = json!({
                "proven": count == 0, "payments": books.totals.payments, "postings": books.totals.postings,
                "rows": books.pointers, "accounts": books.totals.accounts, "moved": books.totals.moved,
                "adds_up": add_up, "discrepancies": faults,
            });
            format!("{report}\n")
        } else {
            let mut text = format!(
                "{} payments, {} postings, {} rows of histories\n",
                books.totals.payments, books.totals.postings, books.pointers
            );
            for (what, sums) in [("account", &books.totals.accounts), ("moved", &books.totals.moved)] {
                for (name, micros) in sums {
                    text.push_str(&format!("{what:8} {name:18} {micros:>20} micros\n"));
                }
            }
            for fault in &books.faults {
                text.push_str(&format!("WRONG {} {}\n", named(fault.payment), fault.what));
            }
            text.push_str(if add_up {
                "settled = completed + in suspense + owed + refunded + taken back\n"
            } else {
                "WRONG the sums over all payments do not add up\n"
            });
            text
        };
        let fault = (count > 0).then(|| format!("{count} discrepancies: the books are not proven"));
        Ok(Said { text, fault })
    }

    pub(super) async fn stuck(&self, as_json: bool) -> Result<String> {
        let books = self.books().await?;
        let payments = books.waiting.iter().map(|row| Stuck {
            since: row.since.to_string(),
            what: "payment",
            id: row.payment.to_string(),
            micros: row.amount.0,
            reason: row.reason,
            next: row.reason.advice().to_string(),
        });
        let payouts = books.payouts.iter().map(|payout| {
            let (reason, next) = match payout.stage {
                PayoutStage::Counting => (WaitReason::Payout, WaitReason::Payout.advice()),
                PayoutStage::Intended => (WaitReason::Transfer, "send the transfer, then: crochet admin payout sent"),
                PayoutStage::Sent { .. } | PayoutStage::Confirmed { .. } => {
                    (WaitReason::Confirmation, "check the rail's record, then: crochet admin payout confirm")
                }
            };
            Stuck {
                since: payout.intended_at.to_string(),
                what: "seller",
                id: payout.seller.to_string(),
                micros: payout.amount().0,
                reason,
                next: next.to_string(),
            }
        });
        let mut rows: Vec<_> = payments.chain(payouts).collect();
        rows.sort_by(|a, b| a.since.cmp(&b.since));
        if as_json {
            return Ok(format!("{}\n", Value::from(rows.iter().map(Stuck::json).collect::<Vec<_>>())));
        }
        let lines = rows
            .iter()
            .map(|Stuck { since, id, micros, next, .. }| format!("{since} {id} {micros:>14} micros: {next}\n"));
        let text: String = lines.collect();
        Ok(if text.is_empty() { "no money waits\n".into() } else { text })
    }

    pub(super) async fn transfer(&self, kind: TransferKind, command: &TransferCommand) -> Result<String> {
        match command {
            TransferCommand::Begin { of, json, .. } => self.begin(kind, of.as_deref(), *json).await,
            TransferCommand::Sent(told) => {
                let step = |row: &Transfer| TransferStep::Sent { number: row.number, reference: row.reference.clone() };
                self.tell(kind, told, "sent", step).await
            }
            TransferCommand::Confirm(told) => {
                self.tell(kind, told, "confirmed", |row| TransferStep::Confirm { number: row.number }).await
            }
        }
    }

    async fn begin(&self, kind: TransferKind, of: Option<&str>, as_json: bool) -> Result<String> {
        let due = match (of, kind) {
            (Some(id), _) => vec![id.to_string()],
            (None, TransferKind::Refund) => self.owed().await?,
            (None, TransferKind::Payout) => self.payable().await?,
        };
        let mut transfers = Vec::new();
        for id in due {
            let order = Order::Transfer { kind, of: id.clone(), step: TransferStep::Begin };
            match self.ask(order).await {
                // One that was sent stands in a file already; asked for by name it is shown all the same.
                Ok(Done::Transfer(found)) => {
                    transfers.extend(found.filter(|row| of.is_some() || row.reference.is_empty()));
                }
                Ok(_) => bail!(OTHER_VERSION),
                // One that cannot be paid must not hold up all others.
                Err(error) if of.is_none() => tracing::warn!(id, error = format!("{error:#}"), "left out of the file"),
                Err(error) => return Err(error),
            }
        }
        if as_json { Ok(format!("{}\n", serde_json::to_string(&transfers)?)) } else { Ok(file::csv(&transfers)) }
    }

    /// Payments of which something is owed, and those whose refund stands in a file and was not sent: a lost file is no
    /// lost refund.
    async fn owed(&self) -> Result<Vec<String>> {
        let waiting = self.books().await?.waiting.into_iter();
        let due = waiting.filter(|row| matches!(row.reason, WaitReason::Refund | WaitReason::Transfer));
        let mut due: Vec<_> = due.map(|row| row.payment.to_string()).collect();
        due.dedup();
        Ok(due)
    }

    /// Sellers who have earned more than was paid out.
    async fn payable(&self) -> Result<Vec<String>> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let Done::Payable { sellers, next } = self.ask(Order::Payable { after }).await? else {
                bail!(OTHER_VERSION);
            };
            all.extend(sellers);
            after = next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    async fn tell(
        &self,
        kind: TransferKind,
        told: &Told,
        done: &str,
        step: impl Fn(&Transfer) -> TransferStep,
    ) -> Result<String> {
        let transfers = read(&told.transfers)?;
        let name = kind.name();
        if let Some(other) = transfers.iter().find(|row| row.kind != kind) {
            bail!("{} is a {}, and this is about {name}s; nothing was told", other.of, other.kind.name());
        }
        for (count, row) in transfers.iter().enumerate() {
            let order = Order::Transfer { kind, of: row.of.clone(), step: step(row) };
            let said = self.ask(order).await;
            said.with_context(|| format!("{count} {name}s are {done}; mend the file and run it again to go on"))?;
        }
        let count = transfers.len();
        Ok(match told.json {
            true => format!("{}\n", json!({ "kind": kind, "step": done, "transfers": count })),
            false => format!("{count} {name}s are {done}\n"),
        })
    }
}

fn read(path: &Path) -> Result<Vec<Transfer>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let transfers = file::transfers(&text)?;
    let mut seen = BTreeMap::new();
    for row in &transfers {
        if let Some(before) = seen.insert((&row.of, row.number), row) {
            bail!("{} number {} stands in the file twice; nothing was told", before.of, before.number);
        }
    }
    Ok(transfers)
}

/// Something that waits.
struct Stuck {
    since: String,
    what: &'static str,
    id: String,
    micros: i64,
    reason: WaitReason,
    next: String,
}

impl Stuck {
    fn json(&self) -> Value {
        let Self { since, what, id, micros, reason, next } = self;
        json!({ *what: id, "amount_micros": micros, "waits_for": reason, "since": since, "next": next })
    }
}
