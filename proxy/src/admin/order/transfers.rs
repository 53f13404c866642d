//! Transfers out: refunds of what buyers are owed, payouts of what sellers earned. The intent is durable before the
//! operator's file has a row for it; a reference comes back, and then the word that the rail's own record shows it.

use actors::wallets;
use serde::{Deserialize, Serialize};
use storage::{
    PayoutOpened, RefundBegun, StepOutcome, TransferTold,
    model::{
        ChainFamily, Payment, PaymentId, Payout, ProfileId, REFERENCE_MAX, Rail, Refund, Wallet, WalletCapability,
    },
};

use super::{Desk, Done, Failed, parsed};

/// Sellers that are looked up at a time.
const PAYABLE_PAGE: usize = 256;

/// Which way money goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    /// Back to the payer of a payment.
    Refund,
    /// To a seller.
    Payout,
}

impl TransferKind {
    /// The word in files and in commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refund => "refund",
            Self::Payout => "payout",
        }
    }
}

/// A step of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferStep {
    /// The intent; told again it is the same one.
    Begin,
    /// It was sent.
    Sent {
        /// Which of them.
        number: u32,
        /// The rail's reference of the transfer.
        reference: String,
    },
    /// The rail's own record shows it.
    Confirm {
        /// Which of them.
        number: u32,
    },
}

/// A transfer that the operator is to make: a row of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Which way.
    pub kind: TransferKind,
    /// The payment of a refund, the seller of a payout.
    pub of: String,
    /// Which refund or payout of it.
    pub number: u32,
    /// The rails that hold the money, and how much of it each when there are several.
    pub rail: String,
    /// How much.
    pub amount_micros: i64,
    /// The profile that gets it.
    pub party: String,
    /// That profile's wallet for it; empty where the rail's record of what came in names the payer.
    pub to: String,
    /// A refund: the rail's references of the money that came in.
    pub came_in_as: Vec<String>,
    /// The rail's reference of the transfer; empty until it was sent.
    #[serde(default)]
    pub reference: String,
}

impl Transfer {
    fn of_refund(refund: &Refund, payment: &Payment, to: String) -> Self {
        let shown = payment.progress.evidence.iter();
        let shown = shown.filter(|shown| shown.rail == refund.rail && shown.amount.0 > 0);
        Self {
            kind: TransferKind::Refund,
            of: refund.payment.to_string(),
            number: refund.number,
            rail: refund.rail.name().to_string(),
            amount_micros: refund.amount.0,
            party: refund.buyer.to_string(),
            to,
            came_in_as: shown.map(|shown| shown.reference.clone()).collect(),
            reference: refund.reference().unwrap_or_default().to_string(),
        }
    }

    fn of_payout(payout: &Payout) -> Self {
        let rail = match payout.parts.as_slice() {
            [(rail, _)] => rail.name().to_string(),
            parts => parts.iter().map(|(rail, part)| format!("{}={part}", rail.name())).collect::<Vec<_>>().join(" "),
        };
        Self {
            kind: TransferKind::Payout,
            of: payout.seller.to_string(),
            number: payout.number,
            rail,
            amount_micros: payout.amount().0,
            party: payout.seller.to_string(),
            to: payout.to.clone(),
            came_in_as: Vec::new(),
            reference: payout.reference().unwrap_or_default().to_string(),
        }
    }
}

impl Desk {
    pub(super) async fn transfer(&self, kind: TransferKind, of: &str, step: &TransferStep) -> Result<Done, Failed> {
        if let TransferStep::Sent { reference, .. } = step
            && !is_reference(reference)
        {
            return Err(Failed::Bad(format!("a reference is 1 to {REFERENCE_MAX} visible characters: {of}")));
        }
        match kind {
            TransferKind::Refund => self.refund(parsed(of)?, step).await,
            TransferKind::Payout => self.payout(parsed(of)?, step).await,
        }
    }

    async fn refund(&self, id: PaymentId, step: &TransferStep) -> Result<Done, Failed> {
        let told = match step {
            TransferStep::Begin => return self.refund_begin(id).await,
            TransferStep::Sent { number, reference } => self.store.refund_sent(id, *number, reference.clone()).await?,
            TransferStep::Confirm { number } => self.store.refund_confirm(id, *number).await?,
        };
        match told {
            StepOutcome::NotFound => Err(Failed::NotFound(format!("there is no payment {id}"))),
            StepOutcome::Step(told, _) => answered(told, &format!("refund of {id}")),
        }
    }

    async fn refund_begin(&self, id: PaymentId) -> Result<Done, Failed> {
        match self.store.refund_begin(id).await? {
            StepOutcome::NotFound => Err(Failed::NotFound(format!("there is no payment {id}"))),
            StepOutcome::Step((RefundBegun::NothingOwed, _), _) | StepOutcome::Step((_, None), _) => {
                Ok(Done::Transfer(None))
            }
            StepOutcome::Step((_, Some(refund)), payment) => {
                let to = self.refunded_to(&refund).await?;
                Ok(Done::Transfer(Some(Transfer::of_refund(&refund, &payment, to))))
            }
        }
    }

    /// Relay pays from chain to chain and settles on an EVM chain: what it brought goes back to the buyer's wallet
    /// there. Elsewhere the payer is who paid.
    async fn refunded_to(&self, refund: &Refund) -> Result<String, Failed> {
        if refund.rail != Rail::Relay {
            return Ok(String::new());
        }
        let wallets = self.store.wallet_list(refund.buyer).await?;
        let is_evm = |wallet: &Wallet| wallet.family == ChainFamily::Evm;
        let wallet = wallets::preferred(&wallets, WalletCapability::Payment, is_evm);
        Ok(wallet.map(wallets::address).unwrap_or_default())
    }

    async fn payout(&self, seller: ProfileId, step: &TransferStep) -> Result<Done, Failed> {
        let told = match step {
            TransferStep::Begin => return self.payout_begin(seller).await,
            TransferStep::Sent { number, reference } => {
                self.store.payout_sent(seller, *number, reference.clone()).await?
            }
            TransferStep::Confirm { number } => self.store.payout_confirm(seller, *number).await?,
        };
        answered(told, &format!("payout of {seller}"))
    }

    async fn payout_begin(&self, seller: ProfileId) -> Result<Done, Failed> {
        let wallets = self.store.wallet_list(seller).await?;
        let Some(wallet) = wallets::preferred(&wallets, WalletCapability::Payout, |_| true) else {
            return Err(Failed::Bad(format!(
                "{seller} has no active wallet that may be paid out to; ask it to link one"
            )));
        };
        Ok(Done::Transfer(match self.store.payout_open(seller, wallets::address(wallet)).await? {
            PayoutOpened::Opened(payout) | PayoutOpened::Open(payout) => Some(Transfer::of_payout(&payout)),
            PayoutOpened::NothingEarned => None,
        }))
    }

    /// Sellers to whom something is due, from one on.
    pub(super) async fn payable(&self, after: Option<&str>) -> Result<Done, Failed> {
        let after = after.map(parsed).transpose()?;
        // What happened until now counts.
        while self.store.roll_up().await?.more {}
        let page = self.store.payable_list(after, PAYABLE_PAGE).await?;
        let sellers = page.rows.into_iter().map(|(seller, _)| seller.to_string()).collect();
        Ok(Done::Payable { sellers, next: page.next.map(|next| next.to_string()) })
    }
}

fn answered(told: TransferTold, what: &str) -> Result<Done, Failed> {
    match told {
        TransferTold::Done => Ok(Done::Transfer(None)),
        TransferTold::NoTransfer => Err(Failed::NotFound(format!("there is no such {what}"))),
        TransferTold::NotSent => Err(Failed::Bad(format!("the {what} was not sent yet: tell its reference first"))),
        TransferTold::OtherReference => {
            Err(Failed::Bad(format!("the {what} went out under another reference; was it sent twice?")))
        }
    }
}

fn is_reference(text: &str) -> bool {
    (1..=REFERENCE_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
