//! The ledger: double entry in micros, append-only. A posting sums to zero because it cannot be built otherwise.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    ids::{GatewayRequestId, ListingId, PaymentId, PostingId, ProfileId},
    money::Micros,
    payment::Payment,
    quote::Rail,
    time::UnixMillis,
};

/// Whose money an entry moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Account {
    /// What a rail holds for us: must equal what the rail's own records say.
    Rail(Rail),
    /// Verified money of a payment whose call has not been handled yet.
    Suspense(PaymentId),
    /// Money that is the buyer's again and waits for a refund.
    Owed(ProfileId),
    /// What a seller has earned and has not been paid out.
    Seller(ProfileId),
    /// The marketplace's fees.
    Marketplace,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rail(rail) => write!(f, "rail:{}", rail.name()),
            Self::Suspense(payment) => write!(f, "suspense:{payment}"),
            Self::Owed(buyer) => write!(f, "owed:{buyer}"),
            Self::Seller(seller) => write!(f, "seller:{seller}"),
            Self::Marketplace => f.write_str("marketplace"),
        }
    }
}

/// Which side of an account an entry stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Left.
    Debit,
    /// Right.
    Credit,
}

/// One line of a posting; `amount` is above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose money.
    pub account: Account,
    /// Which side.
    pub direction: Direction,
    /// How much, above zero.
    pub amount: Micros,
}

/// Why money moved. With the payment and `n` it is unique: one posting each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PostingKind {
    /// The rail's own record says paid.
    Settled,
    /// The seller handled the call.
    Completed,
    /// The money is the buyer's again.
    Owed,
    /// It went back to the payer.
    Refunded,
    /// The seller was paid.
    PaidOut,
    /// The rail took it back.
    TakenBack,
}

/// The entries of one movement of money; they sum to zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    id: PostingId,
    kind: PostingKind,
    at: UnixMillis,
    entries: Vec<Entry>,
}

/// The entries given do not sum to zero, or one of them is not above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a posting whose entries do not sum to zero")]
pub struct Unbalanced;

impl Posting {
    /// A posting of these debits and credits. Parts of zero are left out.
    ///
    /// # Errors
    /// `Unbalanced` when debits and credits differ, a part is negative, or nothing moves.
    pub fn new(
        id: PostingId,
        kind: PostingKind,
        at: UnixMillis,
        debits: &[(Account, Micros)],
        credits: &[(Account, Micros)],
    ) -> Result<Self, Unbalanced> {
        let sum = |side: &[(Account, Micros)]| {
            side.iter().try_fold(0i64, |sum, (_, part)| if part.0 < 0 { None } else { sum.checked_add(part.0) })
        };
        let total = sum(debits).ok_or(Unbalanced)?;
        if total == 0 || sum(credits) != Some(total) {
            return Err(Unbalanced);
        }
        let lines = |side: &[(Account, Micros)], direction| {
            side.iter()
                .filter(|(_, part)| part.0 > 0)
                .map(|(account, amount)| Entry { account: *account, direction, amount: *amount })
                .collect::<Vec<_>>()
        };
        let mut entries = lines(debits, Direction::Debit);
        entries.extend(lines(credits, Direction::Credit));
        Ok(Self { id, kind, at, entries })
    }

    /// Its id; ledger rows are ordered by it.
    #[must_use]
    pub fn id(&self) -> PostingId {
        self.id
    }

    /// Why money moved.
    #[must_use]
    pub fn kind(&self) -> PostingKind {
        self.kind
    }

    /// When it was written.
    #[must_use]
    pub fn at(&self) -> UnixMillis {
        self.at
    }

    /// Its lines, debits first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The parties to whom `GET /ledger` shows something of this posting: at most one buyer and one seller.
    #[must_use]
    pub fn parties(&self, payment: &Payment) -> Vec<ProfileId> {
        let mut parties = vec![payment.quote.buyer, payment.quote.seller];
        parties.retain(|party| !ledger_rows(payment, self, *party).is_empty());
        parties.dedup();
        parties
    }
}

/// What a ledger row says happened, in the reference's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    /// The buyer paid.
    GatewayPayment,
    /// The seller earned, net of the fee.
    SellerCredit,
    /// The marketplace's fee; shown to the operator only.
    MarketplaceFee,
    /// Anything that corrects: a surplus, a debt to the buyer, a refund, a reversal.
    Adjustment,
    /// The seller was paid.
    Payout,
}

/// One row of a party's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The posting's id.
    pub id: PostingId,
    /// The call it belongs to; `None` for a payout.
    pub gateway_request_id: Option<GatewayRequestId>,
    /// The payment it belongs to; `None` for a payout.
    pub payment: Option<PaymentId>,
    /// The listing called; `None` for a payout.
    pub listing: Option<ListingId>,
    /// Whose money moved.
    pub account: Account,
    /// What happened.
    pub entry_type: EntryType,
    /// Seen from the party: a debit is money it gave.
    pub direction: Direction,
    /// How much.
    pub amount: Micros,
    /// The rail's reference of a transfer to the party: a refund's, a payout's.
    pub reference: Option<String>,
    /// When.
    pub created_at: UnixMillis,
}

/// The rows that `party` sees of one posting, by the table of the product's ledger rules. Empty: it is not concerned.
#[must_use]
pub fn ledger_rows(payment: &Payment, posting: &Posting, party: ProfileId) -> Vec<LedgerRow> {
    let row = |account, entry_type, direction, amount| LedgerRow {
        id: posting.id,
        gateway_request_id: Some(payment.quote.id.into()),
        payment: Some(payment.quote.id),
        listing: Some(payment.quote.listing),
        account,
        entry_type,
        direction,
        amount,
        reference: None,
        created_at: posting.at,
    };
    let is_buyer = party == payment.quote.buyer;
    let mut rows = Vec::new();
    for entry in &posting.entries {
        match (posting.kind, entry.account, entry.direction) {
            // The buyer gave all that reached the rail; what exceeds the price comes back as an adjustment below.
            (PostingKind::Settled, Account::Rail(_), Direction::Debit) if is_buyer => {
                rows.push(row(entry.account, EntryType::GatewayPayment, Direction::Debit, entry.amount));
            }
            (_, Account::Seller(seller), Direction::Credit) if seller == party => {
                rows.push(row(entry.account, EntryType::SellerCredit, Direction::Credit, entry.amount));
            }
            (PostingKind::PaidOut, Account::Seller(seller), Direction::Debit) if seller == party => {
                rows.push(row(entry.account, EntryType::Payout, Direction::Debit, entry.amount));
            }
            (_, Account::Seller(owner) | Account::Owed(owner), direction) if owner == party => {
                rows.push(row(entry.account, EntryType::Adjustment, direction, entry.amount));
            }
            // As the buyer gave all that reached the rail, so it has back all that the rail took.
            (PostingKind::TakenBack, Account::Rail(_), Direction::Credit) if is_buyer => {
                rows.push(row(entry.account, EntryType::Adjustment, Direction::Credit, entry.amount));
            }
            _ => {}
        }
    }
    rows
}
