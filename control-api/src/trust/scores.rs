//! `GET /agents/:id/score`.

use actors::{
    refusal::{Code, Refusal},
    scores,
};
use serde::Serialize;
use storage::model::{Components, ProfileId, Sample, Score, UnixMillis};

use crate::{
    extract::Ask,
    reply::{Reply, Shown},
};

#[derive(Serialize)]
struct ScoreView {
    agent_id: Shown<ProfileId>,
    score: u16,
    tier: &'static str,
    is_verified: bool,
    components: Components,
    sample: Sample,
    computed_at: Shown<UnixMillis>,
}

impl From<Score> for ScoreView {
    fn from(score: Score) -> Self {
        Self {
            agent_id: Shown(score.profile),
            score: score.score,
            tier: scores::tier(score.score),
            is_verified: score.is_verified,
            components: score.components,
            sample: score.sample,
            computed_at: Shown(score.computed_at),
        }
    }
}

/// `GET /agents/:id/score`. One that was never put, since nothing has counted yet, is made on the spot.
pub(crate) async fn show(ask: Ask) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let id: ProfileId = ask.id("id", Code::NotFound)?;
    let store = &ask.door.store;
    let profile = store.profile_get(id).await?.ok_or(Code::NotFound)?;
    let score = match store.score_get(id).await? {
        Some(score) => score,
        None => scores::score(&profile, &store.standing_get(id).await?, ask.now),
    };
    Reply::ok(ScoreView::from(score))
}
