//! `/me/wallets`: a profile's wallets. Whoever holds a key may look; to change something takes a wallet's proof.

use std::sync::Arc;

use actors::{
    keys::Caller,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use storage::{
    Change, WalletLinked,
    model::{ChainFamily, UnixMillis, Wallet, WalletCapability, WalletChange, WalletId, WalletRefused, WalletStatus},
};

use super::{
    address::Address,
    challenge::Purpose,
    proof::{WalletProof, not_proven, spokesman},
};
use crate::{
    extract::Ask,
    fields::{Fields, Given, Lines, choice, flag, list, text},
    reply::{Reply, Shown},
};

const CAPABILITIES: &[(&str, WalletCapability)] = &[
    ("auth", WalletCapability::Auth),
    ("recovery", WalletCapability::Recovery),
    ("payment", WalletCapability::Payment),
    ("payout", WalletCapability::Payout),
];
const STATUSES: &[(&str, WalletStatus)] = &[("active", WalletStatus::Active), ("disabled", WalletStatus::Disabled)];
const CHANGES: [&str; 5] = ["label", "capabilities", "status", "default_payment", "default_payout"];

/// A wallet as its owner sees it.
#[derive(Debug, Serialize)]
pub(crate) struct WalletView {
    id: Shown<WalletId>,
    address: String,
    chain: ChainFamily,
    label: Option<String>,
    status: WalletStatus,
    capabilities: Vec<WalletCapability>,
    default_payment: bool,
    default_payout: bool,
    created_at: Shown<UnixMillis>,
}

impl WalletView {
    pub(crate) fn new(wallet: &Wallet) -> Result<Self, Refusal> {
        Ok(Self {
            id: Shown(wallet.id),
            address: Address::stored(wallet.family, &wallet.address).ok_or(Code::Internal)?.shown(),
            chain: wallet.family,
            label: wallet.label.clone(),
            status: wallet.status,
            capabilities: wallet.capabilities.clone(),
            default_payment: wallet.default_payment,
            default_payout: wallet.default_payout,
            created_at: Shown(wallet.created_at),
        })
    }
}

/// `GET /me/wallets`.
pub(crate) async fn list_all(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let wallets = ask.door.store.wallet_list(caller.profile.id).await?;
    Reply::ok(wallets.iter().map(WalletView::new).collect::<Result<Vec<_>, _>>()?)
}

/// `GET /me/wallets/:id`.
pub(crate) async fn show(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let id: WalletId = ask.id("id", Code::NotFound)?;
    let wallets = ask.door.store.wallet_list(caller.profile.id).await?;
    Reply::ok(WalletView::new(wallets.iter().find(|wallet| wallet.id == id).ok_or(Code::NotFound)?)?)
}

struct Link {
    existing: WalletProof,
    new: WalletProof,
    label: Option<String>,
    capabilities: Vec<WalletCapability>,
}

/// `POST /me/wallets`: links one more wallet. Each of the two proofs names both addresses and the profile.
pub(crate) async fn link(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let Link { existing, new, label, capabilities } = ask.fields(read_link)?;
    let profile = caller.profile.id;
    let (old_address, new_address) = (existing.wallet.clone(), new.wallet.clone());
    // Both are looked at before either is used up.
    let existing = existing.check(&ask.door, Purpose::LinkWallet, (Some(profile), Some(new_address)), None, ask.now)?;
    let new = new.check(&ask.door, Purpose::LinkWallet, (Some(profile), Some(old_address)), None, ask.now)?;
    let existing = existing.redeem(&ask.door).await?;
    let new = new.redeem(&ask.door).await?;
    let (existing, new) = (existing.verify()?, new.verify()?);
    let proven_by = spokesman(&ask, &existing, profile).await?;
    let wallet = Wallet {
        id: WalletId::mint(ask.now),
        profile,
        family: new.family(),
        address: new.bytes().to_vec(),
        label,
        status: WalletStatus::Active,
        capabilities,
        default_payment: false,
        default_payout: false,
        created_at: ask.now,
        version: 0,
    };
    let most = ask.door.config.identity.wallets_max;
    match ask.door.store.wallet_link(proven_by.id, wallet, most).await? {
        WalletLinked::Linked(wallet) => {
            ask.door.changed(Change::Profile(profile)).await?;
            Reply::created(WalletView::new(&wallet)?)
        }
        WalletLinked::Known(_) => Err(Code::WalletAlreadyLinked.into()),
        WalletLinked::Refused(refused) => Err(refusal(refused)),
    }
}

fn read_link(f: &mut Fields) -> Option<Link> {
    let existing = WalletProof::read_inner(f, "existing_wallet");
    let new = WalletProof::read_inner(f, "new_wallet");
    if let (Some(existing), Some(new)) = (&existing, &new)
        && existing.wallet == new.wallet
    {
        f.wrong("new_wallet.wallet_address", "must be another wallet's");
    }
    let label = f.optional("label", text(1..=80, Lines::One));
    let capabilities = f.optional("capabilities", list(1..=CAPABILITIES.len(), choice(CAPABILITIES)));
    let capabilities = capabilities.unwrap_or_else(|| CAPABILITIES.iter().map(|(_, capability)| *capability).collect());
    Some(Link { existing: existing?, new: new?, label, capabilities })
}

/// `PATCH /me/wallets/:id`.
pub(crate) async fn change(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let (proof, change) = ask.fields(read_change)?;
    apply(ask, &caller, proof, change).await
}

/// `DELETE /me/wallets/:id`: out of use, without its defaults. The row stays, for payments and payouts may name it, and
/// nobody else can take it.
pub(crate) async fn remove(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let proof = ask.fields(|f| WalletProof::read_inner(f, "proof"))?;
    apply(ask, &caller, proof, WalletChange { status: Some(WalletStatus::Disabled), ..WalletChange::default() }).await
}

async fn apply(ask: Ask, caller: &Caller, proof: WalletProof, change: WalletChange) -> Result<Reply, Refusal> {
    let id: WalletId = ask.id("id", Code::NotFound)?;
    let profile = caller.profile.id;
    let checked = proof.check(&ask.door, Purpose::UpdateWallet, (Some(profile), None), None, ask.now)?;
    let proven = checked.redeem(&ask.door).await?.verify()?;
    let proven_by = spokesman(&ask, &proven, profile).await?;
    let updated = ask.door.store.wallet_update(profile, id, proven_by.id, change).await?;
    let wallet = updated.map_err(refusal)?;
    ask.door.changed(Change::Profile(profile)).await?;
    Reply::ok(WalletView::new(&wallet)?)
}

fn read_change(f: &mut Fields) -> Option<(WalletProof, WalletChange)> {
    let proof = WalletProof::read_inner(f, "proof");
    if !CHANGES.iter().any(|name| f.has(name)) {
        f.wrong(CHANGES[0], format!("one of {} is required", CHANGES.join(", ")));
    }
    let label = match f.given("label", text(1..=80, Lines::One)) {
        Given::Absent => None,
        Given::Null => Some(None),
        Given::Value(label) => Some(Some(label)),
    };
    let change = WalletChange {
        label,
        capabilities: f.optional("capabilities", list(1..=CAPABILITIES.len(), choice(CAPABILITIES))),
        status: f.optional("status", choice(STATUSES)),
        default_payment: f.optional("default_payment", flag),
        default_payout: f.optional("default_payout", flag),
    };
    Some((proof?, change))
}

fn refusal(refused: WalletRefused) -> Refusal {
    match refused {
        WalletRefused::NotFound => Code::NotFound.into(),
        WalletRefused::NotProven => not_proven(),
        WalletRefused::WouldStrand => Code::WalletWouldStrandProfile.into(),
        WalletRefused::DefaultImpossible => Refusal::from(Code::Conflict)
            .message("Only an active wallet with the capability can be the default for it."),
        WalletRefused::Full => Refusal::from(Code::Conflict).message("The profile has as many wallets as it may have."),
    }
}
