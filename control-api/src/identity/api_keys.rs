//! `/api-keys`: a profile's keys. A key's text exists in one answer only.

use std::time::Duration;

use actors::{
    keys,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use storage::{
    Change,
    model::{ApiKey, ApiKeyId, Micros, ProfileId, Scope, UnixMillis},
};

use crate::{
    extract::{Ask, Who},
    fields::{Fields, Lines, choice, list, number, parsed, small, text},
    reply::{Reply, Shown},
};

/// The list is not paged, so that it must end somewhere.
pub(crate) const ACTIVE_KEYS_MAX: usize = 100;
const DAY: Duration = Duration::from_secs(86_400);
const SCOPES: &[(&str, Scope)] = &[("gateway", Scope::Gateway), ("read", Scope::Read), ("write", Scope::Write)];

/// A key as its owner sees it: everything but the key.
#[derive(Debug, Serialize)]
pub(crate) struct KeyView {
    id: Shown<ApiKeyId>,
    name: String,
    key_prefix: String,
    scopes: Vec<Scope>,
    max_price_micros: Option<i64>,
    daily_spend_micros: Option<i64>,
    created_at: Shown<UnixMillis>,
    last_used_at: Option<Shown<UnixMillis>>,
    expires_at: Option<Shown<UnixMillis>>,
    revoked_at: Option<Shown<UnixMillis>>,
    status: &'static str,
}

impl KeyView {
    pub(crate) fn new(key: &ApiKey, now: UnixMillis) -> Self {
        let status = match key.revoked_at {
            Some(_) => "revoked",
            None if key.is_active(now) => "active",
            None => "expired",
        };
        Self {
            id: Shown(key.id),
            name: key.name.clone(),
            key_prefix: key.key_prefix.clone(),
            scopes: key.scopes.clone(),
            max_price_micros: key.max_price.map(|price| price.0),
            daily_spend_micros: key.daily_spend.map(|spend| spend.0),
            created_at: Shown(key.created_at),
            last_used_at: key.last_used_at.map(Shown),
            expires_at: key.expires_at.map(Shown),
            revoked_at: key.revoked_at.map(Shown),
            status,
        }
    }
}

#[derive(Serialize)]
struct NewKeyView {
    #[serde(flatten)]
    key: KeyView,
    api_key: String,
    authorization_header: String,
}

/// How many of these keys work now.
pub(crate) fn count_active(keys: &[ApiKey], now: UnixMillis) -> usize {
    keys.iter().filter(|key| key.is_active(now)).count()
}

/// Whose keys: the caller's own, or those of the agent that a human names and has claimed.
async fn owner(ask: &Ask, who: &Who, named: Option<ProfileId>) -> Result<ProfileId, Refusal> {
    let field = |reason| Refusal::from(Code::ValidationFailed).field("profile_id", reason);
    let human = match (who, named) {
        (Who::Key(caller), None) => return Ok(caller.profile.id),
        (Who::Key(_), Some(_)) => return Err(field("goes with a session only; a key has its own profile")),
        (Who::Human(human), _) => human.profile.id,
    };
    let agent = named.ok_or_else(|| field("is required with a session: an agent that you have claimed"))?;
    let profile = ask.door.store.profile_get(agent).await?;
    let profile = profile.filter(|profile| profile.claimed_by == Some(human)).ok_or(Code::NotFound)?;
    if profile.is_suspended { Err(Code::ProfileSuspended.into()) } else { Ok(agent) }
}

fn named_in_query(ask: &Ask) -> Result<Option<ProfileId>, Refusal> {
    ask.query(|query| query.parsed("profile_id", "an id"))
}

/// `GET /api-keys`.
pub(crate) async fn list_all(ask: Ask, who: Who) -> Result<Reply, Refusal> {
    let owner = owner(&ask, &who, named_in_query(&ask)?).await?;
    let keys = ask.door.store.api_key_list(owner).await?;
    Reply::ok(keys.iter().map(|key| KeyView::new(key, ask.now)).collect::<Vec<_>>())
}

/// `POST /api-keys`.
pub(crate) async fn create(ask: Ask, who: Who) -> Result<Reply, Refusal> {
    let (wanted, named) = ask.fields(|f| {
        let named = f.optional("profile_id", parsed(|text| text.parse().map_err(|_| "must be an id".into())));
        Some((read_wanted(f, &Rights::of(&who), ask.now)?, named))
    })?;
    let owner = owner(&ask, &who, named).await?;
    if count_active(&ask.door.store.api_key_list(owner).await?, ask.now) >= ACTIVE_KEYS_MAX {
        let refusal = Refusal::from(Code::Conflict).next_action("fix_request");
        return Err(refusal.message(format!("The profile has {ACTIVE_KEYS_MAX} active keys; revoke one first.")));
    }
    let new = keys::generate().map_err(|_| Code::Internal)?;
    let key = ApiKey {
        id: ApiKeyId::mint(ask.now),
        profile: owner,
        key_sha256: new.sha256,
        name: wanted.name,
        key_prefix: new.prefix,
        scopes: wanted.scopes,
        created_at: ask.now,
        expires_at: wanted.expires_at,
        revoked_at: None,
        last_used_at: None,
        max_price: wanted.max_price,
        daily_spend: wanted.daily_spend,
        version: 0,
    };
    ask.door.store.api_key_create(key.clone()).await?;
    Reply::created(NewKeyView {
        key: KeyView::new(&key, ask.now),
        authorization_header: format!("Bearer {}", new.text),
        api_key: new.text,
    })
}

/// `DELETE /api-keys/:id`.
pub(crate) async fn revoke(ask: Ask, who: Who) -> Result<Reply, Refusal> {
    let owner = owner(&ask, &who, named_in_query(&ask)?).await?;
    let id = ask.id("id", Code::NotFound)?;
    let revoked = ask.door.store.api_key_revoke(owner, id, ask.now).await?;
    let key = revoked.ok_or(Code::NotFound)?;
    ask.door.changed(Change::ApiKey(key.key_sha256)).await?;
    Reply::ok(KeyView::new(&key, ask.now))
}

struct Wanted {
    name: String,
    scopes: Vec<Scope>,
    expires_at: Option<UnixMillis>,
    max_price: Option<Micros>,
    daily_spend: Option<Micros>,
}

/// What a new key may have at most.
struct Rights {
    scopes: Vec<Scope>,
    expires_at: Option<UnixMillis>,
    max_price: Option<Micros>,
    daily_spend: Option<Micros>,
}

impl Rights {
    /// A key's own; all that there are for a human, who could recover the agent.
    fn of(who: &Who) -> Self {
        match who {
            Who::Key(caller) => Self {
                scopes: caller.key.scopes.clone(),
                expires_at: caller.key.expires_at,
                max_price: caller.key.max_price,
                daily_spend: caller.key.daily_spend,
            },
            Who::Human(_) => Self {
                scopes: SCOPES.iter().map(|(_, scope)| *scope).collect(),
                expires_at: None,
                max_price: None,
                daily_spend: None,
            },
        }
    }
}

/// A key makes keys that may do no more, spend no more and live no longer than itself.
fn read_wanted(f: &mut Fields, own: &Rights, now: UnixMillis) -> Option<Wanted> {
    let name = f.required("name", text(1..=80, Lines::One));
    let scopes = f.optional("scopes", list(1..=SCOPES.len(), choice(SCOPES)));
    if scopes.iter().flatten().any(|scope| !own.scopes.contains(scope)) {
        f.wrong("scopes", "must be among the scopes of the key that asks");
    }
    let days = f.optional("expires_in_days", small(1..=3650));
    let expires_at = days.map(|days| now.plus(DAY.saturating_mul(days)));
    if let (Some(wanted), Some(end)) = (expires_at, own.expires_at)
        && wanted > end
    {
        f.wrong("expires_in_days", "must not outlive the key that asks");
    }
    let max_price = read_cap(f, "max_price_micros", own.max_price);
    let daily_spend = read_cap(f, "daily_spend_micros", own.daily_spend);
    Some(Wanted {
        name: name?,
        scopes: scopes.unwrap_or_else(|| own.scopes.clone()),
        expires_at: expires_at.or(own.expires_at),
        max_price,
        daily_spend,
    })
}

fn read_cap(f: &mut Fields, name: &str, own: Option<Micros>) -> Option<Micros> {
    const HIGHEST: u64 = 1_000_000_000_000_000;
    let wanted = f.optional(name, number(0..=HIGHEST)).and_then(|cap| i64::try_from(cap).ok()).map(Micros);
    if let (Some(wanted), Some(own)) = (wanted, own)
        && wanted > own
    {
        f.wrong(name, "must not be above the cap of the key that asks");
    }
    wanted.or(own)
}
