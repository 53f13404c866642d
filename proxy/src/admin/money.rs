//! Operators' money: the proof of the books, what waits, and refunds by a file of transfers.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use storage::{BooksPage, model::WaitReason};

use super::{
    Hand, OTHER_VERSION, Said, Signed,
    order::{Done, Order, RefundStep, Transfer},
};
use crate::cli::ConfigFile;

/// The first line of a file of transfers.
const COLUMNS: &str = "payment,number,rail,amount_micros,buyer,came_in_as,reference";

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

/// The steps of refunds.
#[derive(Debug, Subcommand)]
pub enum RefundCommand {
    /// Writes down the intent to refund, and prints the file of transfers to send: CSV, or JSON
    Begin {
        /// The payment; all that is owed when none is given
        #[arg(long, value_name = "ID")]
        payment: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// By whom and why.
        #[command(flatten)]
        signed: Signed,
    },
    /// Tells that the transfers were sent: the file again, with their references
    Sent {
        /// The file, CSV or JSON
        transfers: PathBuf,
        /// By whom and why.
        #[command(flatten)]
        signed: Signed,
    },
    /// Tells that the rail's own record shows the transfers; the ledger then does
    Confirm {
        /// The file, CSV or JSON
        transfers: PathBuf,
        /// By whom and why.
        #[command(flatten)]
        signed: Signed,
    },
}

impl RefundCommand {
    pub(super) fn signed(&self) -> &Signed {
        match self {
            Self::Begin { signed, .. } | Self::Sent { signed, .. } | Self::Confirm { signed, .. } => signed,
        }
    }
}

impl Hand {
    /// The whole proof, one bounded part after the other.
    async fn books(&self) -> Result<BooksPage> {
        let (mut all, mut after) = (BooksPage::default(), None);
        loop {
            let Done::Books(page) = self.ask(Order::Books { after }).await? else {
                bail!(OTHER_VERSION);
            };
            all.totals.add(&page.totals);
            all.pointers += page.pointers;
            all.faults.extend(page.faults);
            all.waiting.extend(page.waiting);
            after = page.next;
            if after.is_none() {
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
        let mut waiting = self.books().await?.waiting;
        waiting.sort_by_key(|row| row.since);
        let rows: Vec<Value> = waiting
            .iter()
            .map(|row| {
                json!({
                    "payment": row.payment.to_string(), "amount_micros": row.amount.0, "waits_for": row.reason,
                    "since": row.since.to_string(), "next": row.reason.advice(),
                })
            })
            .collect();
        if as_json {
            return Ok(format!("{}\n", Value::from(rows)));
        }
        let lines = waiting.iter().map(|row| {
            let (id, since, next) = (row.payment, row.since.to_string(), row.reason.advice());
            format!("{since} {id} {:>14} micros: {next}\n", row.amount.0)
        });
        let text: String = lines.collect();
        Ok(if text.is_empty() { "no money waits\n".into() } else { text })
    }

    pub(super) async fn refund(&self, command: &RefundCommand) -> Result<String> {
        match command {
            RefundCommand::Begin { payment, json, .. } => self.begin(payment.as_deref(), *json).await,
            RefundCommand::Sent { transfers, .. } => {
                self.tell(transfers, "sent", |row| RefundStep::Sent {
                    number: row.number,
                    reference: row.reference.clone(),
                })
                .await
            }
            RefundCommand::Confirm { transfers, .. } => {
                self.tell(transfers, "confirmed", |row| RefundStep::Confirm { number: row.number }).await
            }
        }
    }

    async fn begin(&self, payment: Option<&str>, as_json: bool) -> Result<String> {
        let payments = match payment {
            Some(id) => vec![id.to_string()],
            None => {
                let waiting = self.books().await?.waiting.into_iter();
                // Those begun before and not yet sent stand in the file again: a lost file is no lost refund.
                let due = waiting.filter(|row| matches!(row.reason, WaitReason::Refund | WaitReason::Transfer));
                let mut due: Vec<_> = due.map(|row| row.payment.to_string()).collect();
                due.dedup();
                due
            }
        };
        let mut transfers = Vec::new();
        for payment in payments {
            let order = Order::Refund { payment, step: RefundStep::Begin };
            match self.ask(order).await.context("broken off; what was begun stays so: run it again to go on")? {
                Done::Refund(transfer) => transfers.extend(transfer),
                _ => bail!(OTHER_VERSION),
            }
        }
        if as_json { Ok(format!("{}\n", serde_json::to_string(&transfers)?)) } else { Ok(csv(&transfers)) }
    }

    async fn tell(&self, path: &std::path::Path, done: &str, step: impl Fn(&Transfer) -> RefundStep) -> Result<String> {
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let transfers = transfers(&text)?;
        for (told, row) in transfers.iter().enumerate() {
            let order = Order::Refund { payment: row.payment.clone(), step: step(row) };
            let said = self.ask(order).await;
            said.with_context(|| format!("{told} refunds are {done}; mend the file and run it again to go on"))?;
        }
        Ok(format!("{} refunds are {done}\n", transfers.len()))
    }
}

fn csv(transfers: &[Transfer]) -> String {
    let rows = transfers.iter().map(|row| {
        // A rail's reference is its own text: what would end a field is left out of it.
        let came_in = row.came_in_as.join(" ").replace([',', '\n', '\r', '"'], "");
        let Transfer { payment, number, rail, amount_micros, buyer, reference, .. } = row;
        format!("{payment},{number},{rail},{amount_micros},{buyer},{came_in},{reference}\n")
    });
    format!("{COLUMNS}\n{}", rows.collect::<String>())
}

/// The rows of a file of transfers: JSON, or CSV as it was printed with the last column filled in.
fn transfers(text: &str) -> Result<Vec<Transfer>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).context("the file of transfers is no JSON of ours");
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines.next() != Some(COLUMNS) {
        bail!("the first line of a file of transfers is {COLUMNS}");
    }
    lines
        .enumerate()
        .map(|(n, line)| {
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            let [payment, number, rail, amount, buyer, came_in, reference] = fields[..] else {
                bail!("row {}: 7 columns are needed, {} are there", n + 1, fields.len());
            };
            Ok(Transfer {
                payment: payment.into(),
                number: number.parse().with_context(|| format!("row {}: number", n + 1))?,
                rail: rail.into(),
                amount_micros: amount.parse().with_context(|| format!("row {}: amount_micros", n + 1))?,
                buyer: buyer.into(),
                came_in_as: came_in.split(' ').map(str::to_string).collect(),
                reference: reference.into(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_transfers_comes_back_as_it_went() {
        let row = Transfer {
            payment: "pay_1".into(),
            number: 1,
            rail: "sandbox".into(),
            amount_micros: 5,
            buyer: "b".into(),
            came_in_as: vec!["x".into(), "y".into()],
            reference: "0xa".into(),
        };
        let rows = vec![row.clone(), Transfer { reference: String::new(), ..row }];
        assert_eq!(transfers(&csv(&rows)).expect("read"), rows);
        assert_eq!(transfers(&serde_json::to_string(&rows).expect("written")).expect("read"), rows);
        for bad in ["", "payment\n", &format!("{COLUMNS}\na,b"), &format!("{COLUMNS}\na,x,c,1,e,f,g"), "[{}]"] {
            assert!(transfers(bad).is_err(), "{bad:?}");
        }
    }
}
