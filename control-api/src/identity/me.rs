//! `GET /me`: who a key is.

use std::sync::Arc;

use actors::{keys::Caller, refusal::Refusal};
use serde::Serialize;
use storage::model::{
    AccountType, ChainFamily, Profile, ProfileId, Scope, UnixMillis, Wallet, WalletCapability, WalletId, WalletStatus,
};

use super::{address::Address, api_keys::KeyView};
use crate::{
    extract::Ask,
    reply::{Reply, Shown},
};

/// A profile as anybody may see it.
#[derive(Debug, Serialize)]
pub(crate) struct ProfileView {
    id: Shown<ProfileId>,
    account_type: AccountType,
    display_name: String,
    avatar_url: Option<String>,
    claimed_by: Option<Shown<ProfileId>>,
    is_verified: bool,
    score: u16,
    created_at: Shown<UnixMillis>,
}

impl From<&Profile> for ProfileView {
    fn from(profile: &Profile) -> Self {
        Self {
            id: Shown(profile.id),
            account_type: profile.account_type,
            display_name: profile.display_name.clone(),
            avatar_url: profile.avatar_url.clone(),
            claimed_by: profile.claimed_by.map(Shown),
            is_verified: profile.is_verified,
            score: profile.score,
            created_at: Shown(profile.created_at),
        }
    }
}

/// A wallet as its owner sees it.
#[derive(Debug, Serialize)]
struct WalletView {
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
    fn new(wallet: &Wallet) -> Option<Self> {
        Some(Self {
            id: Shown(wallet.id),
            address: Address::stored(wallet.family, &wallet.address)?.shown(),
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

#[derive(Serialize)]
struct MeView {
    profile: ProfileView,
    wallets: Vec<WalletView>,
    score: u16,
    scopes: Vec<Scope>,
    key: KeyView,
}

/// `GET /me`.
pub(crate) async fn show(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let wallets = ask.door.store.wallet_list(caller.profile.id).await?;
    Reply::ok(MeView {
        profile: ProfileView::from(&caller.profile),
        wallets: wallets.iter().filter_map(WalletView::new).collect(),
        score: caller.profile.score,
        scopes: caller.key.scopes.clone(),
        key: KeyView::new(&caller.key, ask.now),
    })
}
