//! Sessions of humans: a cookie whose text is kept nowhere, and a token that proves that a change was meant.

use actix_web::http::{Method, header, header::HeaderMap};
use actors::refusal::{Code, Refusal};
use sha2::{Digest, Sha256};
use storage::{
    Store,
    model::{Profile, ProfileId, Session, UnixMillis},
};

use super::nonce::{Seal, equal};

const CSRF_TOKEN: &str = "x-csrf-token";
/// More than any browser sends; what is longer is not looked through.
const COOKIES_MAX: usize = 64;

/// A human who is signed in.
pub(crate) struct SignedIn {
    pub(crate) profile: Profile,
    pub(crate) session: Session,
    /// What a change must carry.
    pub(crate) csrf_token: String,
}

/// A session that was just made: the only moment its text exists here.
pub(crate) struct NewSession {
    pub(crate) session: Session,
    pub(crate) csrf_token: String,
    /// The whole `Set-Cookie`.
    pub(crate) cookie: String,
}

/// Makes sessions, finds them, and checks what a change by session must carry.
pub(crate) struct Sessions {
    seal: Seal,
    knobs: config::Identity,
    is_dev: bool,
    is_https: bool,
    origin: String,
}

impl Sessions {
    /// Sessions under the server's secret, for the public URL `site`; `None` never, for a secret of 32 bytes.
    pub(crate) fn new(secret: &[u8; 32], knobs: &config::Identity, site: &str, is_dev: bool) -> Option<Self> {
        let (scheme, rest) = site.split_once("://")?;
        let origin = format!("{scheme}://{}", rest.split('/').next().unwrap_or_default());
        let is_https = scheme == "https";
        Some(Self { seal: Seal::new(secret)?, knobs: knobs.clone(), is_dev, is_https, origin })
    }

    /// A new session of this human.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub(crate) fn begin(&self, profile: ProfileId, now: UnixMillis) -> Result<NewSession, Refusal> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| Code::Internal)?;
        let text = hex::encode(random);
        let session = Session {
            id_sha256: Sha256::digest(&text).into(),
            profile,
            created_at: now,
            seen_at: now,
            ends_at: now.plus(self.knobs.session_max),
        };
        let csrf_token = self.csrf_token(&text);
        let cookie = self.cookie(&text, self.knobs.session_max.as_secs());
        Ok(NewSession { session, csrf_token, cookie })
    }

    /// The `Set-Cookie` that takes the cookie away.
    pub(crate) fn end_cookie(&self) -> String {
        self.cookie("", 0)
    }

    fn cookie(&self, text: &str, seconds: u64) -> String {
        let secure = if self.is_plain() { "" } else { "; Secure" };
        format!("{}={text}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}", self.name())
    }

    /// Browsers take no `Secure` cookie over http; only dev mode has that.
    fn is_plain(&self) -> bool {
        self.is_dev && !self.is_https
    }

    fn name(&self) -> &'static str {
        if self.is_plain() { "crochet_session" } else { "__Host-crochet_session" }
    }

    /// Whether the request brings a cookie of ours.
    pub(crate) fn is_given(&self, headers: &HeaderMap) -> bool {
        self.text(headers).is_some()
    }

    /// Who is signed in. Notes the use, seldom.
    ///
    /// # Errors
    /// `SessionRequired` when there is no cookie, more than one, or one whose session has ended; `StoreUnavailable`.
    pub(crate) async fn find(
        &self,
        store: &dyn Store,
        headers: &HeaderMap,
        now: UnixMillis,
    ) -> Result<SignedIn, Refusal> {
        let text = self.text(headers).ok_or(Code::SessionRequired)?;
        let session = store.session_find(&Sha256::digest(text).into()).await?.ok_or(Code::SessionRequired)?;
        if now >= session.ends_at || now.since(session.seen_at) >= self.knobs.session_idle {
            return Err(Code::SessionRequired.into());
        }
        let profile = store.profile_get(session.profile).await?.ok_or(Code::SessionRequired)?;
        if now.since(session.seen_at) >= self.knobs.session_noted_every
            && let Err(error) = store.session_seen(session.id_sha256, now).await
        {
            tracing::warn!(%error, "the use of a session could not be noted");
        }
        Ok(SignedIn { profile, session, csrf_token: self.csrf_token(text) })
    }

    /// Our cookie's text, when there is exactly one.
    fn text<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let lines = headers.get_all(header::COOKIE).filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).take(COOKIES_MAX).filter_map(|pair| pair.split_once('='));
        let mut ours = pairs.filter(|(name, _)| name.trim() == self.name()).map(|(_, value)| value.trim());
        let first = ours.next().filter(|text| !text.is_empty())?;
        if ours.next().is_none() { Some(first) } else { None }
    }

    fn csrf_token(&self, text: &str) -> String {
        hex::encode(self.seal.mac("csrf 1", &[text.as_bytes()]))
    }

    /// Demands of a change by session that it comes from our own pages and carries the session's token.
    ///
    /// # Errors
    /// `CsrfRequired`.
    pub(crate) fn check_change(
        &self,
        method: &Method,
        headers: &HeaderMap,
        signed_in: &SignedIn,
    ) -> Result<(), Refusal> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        let token = only(headers, CSRF_TOKEN).unwrap_or_default();
        let is_ours = only(headers, header::ORIGIN.as_str()).is_some_and(|origin| self.is_ours(origin, headers));
        if is_ours && equal(token.as_bytes(), signed_in.csrf_token.as_bytes()) {
            return Ok(());
        }
        Err(Code::CsrfRequired.into())
    }

    /// Demands of who signs in or up that no foreign page made its browser do so. Programs send no `Origin`.
    ///
    /// # Errors
    /// `CsrfRequired`.
    pub(crate) fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let is_ours = only(headers, header::ORIGIN.as_str()).is_some_and(|origin| self.is_ours(origin, headers));
        if is_ours { Ok(()) } else { Err(Code::CsrfRequired.into()) }
    }

    /// The public URL's origin; in dev mode also that of whichever loopback name the browser used.
    fn is_ours(&self, origin: &str, headers: &HeaderMap) -> bool {
        let asked = || only(headers, header::HOST.as_str()).map(|host| format!("http://{host}"));
        origin == self.origin || (self.is_plain() && asked().is_some_and(|asked| asked == origin))
    }
}

/// The value of a header field that came once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut given = headers.get_all(name);
    let first = given.next()?.to_str().ok();
    if given.next().is_none() { first } else { None }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn sessions(site: &str, is_dev: bool) -> Sessions {
        let knobs = config::Config::from_parts(None, []).expect("defaults").identity;
        Sessions::new(&[1; 32], &knobs, site, is_dev).expect("good")
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = fields.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a field's value"))
        });
        pairs.fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
    }

    #[test]
    fn e16_the_cookie_is_http_only_lax_and_secure_but_in_dev() {
        let human = ProfileId::from_bytes([1; 16]);
        let cookie = |site, is_dev| sessions(site, is_dev).begin(human, UnixMillis(0)).expect("randomness").cookie;
        for (site, is_dev) in [("https://x.example", false), ("https://x.example", true), ("http://x.example", false)] {
            let cookie = cookie(site, is_dev);
            assert!(cookie.starts_with("__Host-crochet_session="), "{cookie}");
            assert!(cookie.ends_with("; Path=/; Max-Age=5184000; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        }
        let plain = cookie("http://127.0.0.1:8080", true);
        assert!(plain.starts_with("crochet_session=") && !plain.contains("Secure"), "{plain}");
    }

    #[test]
    fn one_cookie_counts_and_two_are_none() {
        let sessions = sessions("https://x.example", false);
        let text = |fields: &[(&'static str, &str)]| sessions.text(&headers(fields)).map(str::to_string);
        assert_eq!(text(&[("cookie", "a=b; __Host-crochet_session=abc; c=d")]), Some("abc".into()));
        assert_eq!(text(&[("cookie", "a=b"), ("cookie", "__Host-crochet_session=abc")]), Some("abc".into()));
        assert_eq!(text(&[("cookie", "__Host-crochet_session=abc; __Host-crochet_session=xyz")]), None);
        for other in ["", "crochet_session=abc", "__Host-crochet_session=", "x__Host-crochet_session=abc"] {
            assert_eq!(text(&[("cookie", other)]), None, "{other}");
        }
    }

    #[test]
    fn e16_a_change_needs_our_origin_and_the_token() {
        let sessions = sessions("https://x.example/base", false);
        let new = sessions.begin(ProfileId::from_bytes([1; 16]), UnixMillis(0)).expect("randomness");
        let profile = Profile {
            id: new.session.profile,
            account_type: storage::model::AccountType::Human,
            display_name: "Human".into(),
            avatar_url: None,
            claimed_by: None,
            is_verified: false,
            score: 0,
            is_suspended: false,
            created_at: UnixMillis(0),
            version: 0,
        };
        let token = new.csrf_token.clone();
        let signed_in = SignedIn { profile, session: new.session, csrf_token: new.csrf_token };
        let check = |fields: &[(&'static str, &str)]| {
            sessions.check_change(&Method::POST, &headers(fields), &signed_in).is_ok()
        };
        assert!(check(&[("origin", "https://x.example"), ("x-csrf-token", &token)]));
        assert!(!check(&[("origin", "https://x.example")]));
        assert!(!check(&[("x-csrf-token", &token)]));
        assert!(!check(&[("origin", "https://x.example"), ("x-csrf-token", &token[1..])]));
        for origin in ["null", "http://x.example", "https://x.example.evil", "https://x.example:444"] {
            assert!(!check(&[("origin", origin), ("x-csrf-token", &token), ("host", "x.example:444")]), "{origin}");
        }
        assert!(sessions.check_change(&Method::GET, &headers(&[]), &signed_in).is_ok());
    }
}
