//! Human accounts: `POST /auth/signup`, `/auth/login`, `/auth/logout`.

use actors::{
    limiter::{ControlKind, ControlSubject},
    refusal::{Code, Refusal},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use storage::{
    HumanCreated,
    model::{AccountType, Human, Profile, ProfileId, UnixMillis},
};

use super::{
    me::ProfileView,
    sessions::{NewSession, SignedIn},
};
use crate::{
    extract::Ask,
    fields::{Fields, Lines, Read, exact, parsed, text},
    reply::{Reply, Shown},
};

/// The longest e-mail address that mail can have.
const EMAIL_MAX: usize = 254;

#[derive(Serialize)]
struct SignedInView {
    profile: ProfileView,
    csrf_token: String,
    expires_at: Shown<UnixMillis>,
}

#[derive(Serialize)]
struct SignedOutView {
    signed_out: bool,
}

/// `POST /auth/signup`: an account, signed in at once.
pub(crate) async fn sign_up(ask: Ask) -> Result<Reply, Refusal> {
    ask.door.sessions.check_origin(ask.headers())?;
    let (email, password, display_name) = ask.fields(|f| {
        let email = f.required("email", parsed(read_email));
        let password = f.required("password", exact(10..=128));
        let display_name = f.optional("display_name", text(1..=80, Lines::One));
        Some((email?, password?, display_name))
    })?;
    let password = ask.door.passwords.hash(password).await?;
    let profile = new_profile(display_name.unwrap_or_else(|| "Human".into()), ask.now);
    let human = Human { profile: profile.id, email, password, sessions_from: ask.now, created_at: ask.now, version: 0 };
    match ask.door.store.human_create(profile.clone(), human).await? {
        HumanCreated::Created => {}
        HumanCreated::EmailKnown => {
            return Err(Refusal::from(Code::Conflict).message("The e-mail address has an account; log in instead."));
        }
    }
    let new = begin(&ask, profile.id).await?;
    Ok(Reply::created(view(&profile, &new))?.with_cookie(new.cookie))
}

/// `POST /auth/login`. An unknown account and a wrong password get the same answer in the same time.
pub(crate) async fn log_in(ask: Ask) -> Result<Reply, Refusal> {
    ask.door.sessions.check_origin(ask.headers())?;
    let (email, password) = ask.fields(read_login)?;
    let account = ControlSubject::Account(Sha256::digest(&email).into());
    ask.door.actors.limits().check_control(account, ControlKind::Login)?;
    let human = ask.door.store.human_find(&email).await?;
    let kept = human.as_ref().map(|human| human.password.clone());
    let is_right = ask.door.passwords.is_right(password, kept).await?;
    let human = human.filter(|_| is_right).ok_or(Code::LoginFailed)?;
    let profile = ask.door.store.profile_get(human.profile).await?.ok_or(Code::LoginFailed)?;
    if profile.is_suspended {
        return Err(Code::ProfileSuspended.into());
    }
    let new = begin(&ask, profile.id).await?;
    Ok(Reply::ok(view(&profile, &new))?.with_cookie(new.cookie))
}

/// `POST /auth/logout`.
pub(crate) async fn log_out(ask: Ask, signed_in: SignedIn) -> Result<Reply, Refusal> {
    ask.fields(|_| Some(()))?;
    ask.door.store.session_end(signed_in.session.id_sha256).await?;
    Ok(Reply::ok(SignedOutView { signed_out: true })?.with_cookie(ask.door.sessions.end_cookie()))
}

/// What is too long or too short for a password is wrong like any other: nothing is told of what accounts have.
fn read_login(f: &mut Fields) -> Option<(String, String)> {
    let email = f.required("email", parsed(read_email));
    let password = f.required("password", exact(1..=128));
    Some((email?, password?))
}

/// An address as mail has it, in lower case: one `@` with something on both sides, and nothing that cannot be seen.
fn read_email(text: &str) -> Read<String> {
    let (name, domain) = text.split_once('@').unwrap_or_default();
    let is_seen = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@');
    if text.len() <= EMAIL_MAX && is_seen(name) && is_seen(domain) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("must be an e-mail address of at most {EMAIL_MAX} characters"))
}

fn new_profile(display_name: String, now: UnixMillis) -> Profile {
    Profile {
        id: ProfileId::mint(now),
        account_type: AccountType::Human,
        display_name,
        avatar_url: None,
        claimed_by: None,
        is_verified: false,
        score: 0,
        is_suspended: false,
        created_at: now,
        version: 0,
    }
}

/// Begun at the moment the request came: a password that was reset meanwhile ends this session too.
async fn begin(ask: &Ask, profile: ProfileId) -> Result<NewSession, Refusal> {
    let new = ask.door.sessions.begin(profile, ask.now)?;
    ask.door.store.session_create(new.session.clone()).await?;
    Ok(new)
}

fn view(profile: &Profile, new: &NewSession) -> SignedInView {
    SignedInView {
        profile: ProfileView::from(profile),
        csrf_token: new.csrf_token.clone(),
        expires_at: Shown(new.session.ends_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_one_spelling() {
        assert_eq!(read_email("Ann.B+x@Example.ORG"), Ok("ann.b+x@example.org".into()));
        let long = format!("{}@example.org", "a".repeat(EMAIL_MAX));
        for text in ["", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "ä@b", "a", &long] {
            assert!(read_email(text).is_err(), "{text}");
        }
    }
}
