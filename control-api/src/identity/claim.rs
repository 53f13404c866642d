//! `POST /agents/:id/claim`: a human takes an agent's profile, by the agent's wallet. Never changes score or mark.

use actors::refusal::{Code, Refusal};
use storage::{
    AgentClaimed, Change,
    model::{AccountType, ProfileId},
};

use super::{
    challenge::Purpose,
    me::ProfileView,
    proof::{WalletProof, not_proven, spokesman},
    sessions::SignedIn,
};
use crate::{extract::Ask, reply::Reply};

/// `POST /agents/:id/claim`.
pub(crate) async fn claim(ask: Ask, signed_in: SignedIn) -> Result<Reply, Refusal> {
    let agent: ProfileId = ask.id("id", Code::NotFound)?;
    let proof = ask.fields(WalletProof::read)?;
    let store = ask.door.store.as_ref();
    let profile = store.profile_get(agent).await?.ok_or(Code::NotFound)?;
    match profile.account_type {
        AccountType::Agent => {}
        AccountType::HumanClaimedAgent => return Err(Code::AlreadyClaimed.into()),
        AccountType::Human => return Err(Code::NotFound.into()),
    }
    let human = signed_in.profile.id;
    let most = ask.door.config.identity.agents_max;
    if store.agents_claimed_by(human).await?.len() >= most {
        return Err(Refusal::from(Code::Conflict).message(format!("You have {most} agents, which is the most.")));
    }
    let checked = proof.check(&ask.door, Purpose::ClaimAgent, (Some(agent), None), None, ask.now)?;
    let proven = checked.redeem(&ask.door).await?.verify()?;
    let wallet = spokesman(&ask, &proven, agent).await?;
    if profile.is_suspended {
        return Err(Code::ProfileSuspended.into());
    }
    match store.agent_claim(agent, wallet.id, human).await? {
        AgentClaimed::Done(profile) => {
            ask.door.changed(Change::Profile(agent)).await?;
            Reply::ok(ProfileView::from(&profile))
        }
        AgentClaimed::Already => Err(Code::AlreadyClaimed.into()),
        AgentClaimed::NotProven => Err(not_proven()),
        AgentClaimed::NotFound => Err(Code::NotFound.into()),
    }
}
