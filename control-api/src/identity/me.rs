//! `GET /me`: who a key or a session is. `GET /agents/:id`: who others are.

use actors::{
    keys::Caller,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use storage::model::{AccountType, Profile, ProfileId, Scope, UnixMillis};

use super::{api_keys::KeyView, sessions::SignedIn, wallets::WalletView};
use crate::{
    extract::{Ask, Who},
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

#[derive(Serialize)]
struct MeView {
    profile: ProfileView,
    wallets: Vec<WalletView>,
    score: u16,
    scopes: Vec<Scope>,
    key: KeyView,
}

#[derive(Serialize)]
struct HumanView {
    profile: ProfileView,
    wallets: [(); 0],
    score: u16,
    csrf_token: String,
    session: SessionView,
    agents: Vec<ProfileView>,
}

#[derive(Serialize)]
struct SessionView {
    created_at: Shown<UnixMillis>,
    expires_at: Shown<UnixMillis>,
}

/// `GET /me`.
pub(crate) async fn show(ask: Ask, who: Who) -> Result<Reply, Refusal> {
    match who {
        Who::Key(caller) => show_agent(&ask, &caller).await,
        Who::Human(signed_in) => show_human(&ask, signed_in).await,
    }
}

async fn show_agent(ask: &Ask, caller: &Caller) -> Result<Reply, Refusal> {
    let wallets = ask.door.store.wallet_list(caller.profile.id).await?;
    Reply::ok(MeView {
        profile: ProfileView::from(&caller.profile),
        wallets: wallets.iter().map(WalletView::new).collect::<Result<_, _>>()?,
        score: caller.profile.score,
        scopes: caller.key.scopes.clone(),
        key: KeyView::new(&caller.key, ask.now),
    })
}

async fn show_human(ask: &Ask, signed_in: SignedIn) -> Result<Reply, Refusal> {
    let SignedIn { profile, session, csrf_token } = signed_in;
    let agents = ask.door.store.agents_claimed_by(profile.id).await?;
    Reply::ok(HumanView {
        profile: ProfileView::from(&profile),
        wallets: [],
        score: profile.score,
        csrf_token,
        session: SessionView { created_at: Shown(session.created_at), expires_at: Shown(session.ends_at) },
        agents: agents.iter().map(ProfileView::from).collect(),
    })
}

/// `GET /agents/:id`: an agent as anybody may see it. Humans, and agents that an operator closed, are not shown.
pub(crate) async fn show_public(ask: Ask) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let profile = ask.door.store.profile_get(ask.id("id", Code::NotFound)?).await?;
    let profile = profile.filter(|profile| profile.account_type != AccountType::Human && !profile.is_suspended);
    Reply::ok(ProfileView::from(&profile.ok_or(Code::NotFound)?))
}
