//! `POST /auth/challenge`: a text to sign, stateless until it is used. The server rebuilds it from the nonce and the
//! request and never parses what the client says.

use std::sync::atomic::{AtomicU64, Ordering};

use actors::refusal::{Code, Refusal};
use serde::Serialize;
use storage::{
    NonceUsed, Store,
    model::{ChainFamily, ProfileId, UnixMillis},
};

use super::{
    address::Address,
    nonce::{Nonce, Seal, Subject},
    pow::{Slots, Work},
};
use crate::{
    extract::Ask,
    fields::{self, Fields, choice, exact},
    reply::{Reply, Shown},
};

/// What a signature is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Register,
    Recover,
    ClaimAgent,
    LinkWallet,
    UpdateWallet,
}

const PURPOSES: &[(&str, Purpose)] = &[
    ("register", Purpose::Register),
    ("recover", Purpose::Recover),
    ("claim_agent", Purpose::ClaimAgent),
    ("link_wallet", Purpose::LinkWallet),
    ("update_wallet", Purpose::UpdateWallet),
];

impl Purpose {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        PURPOSES.iter().find(|(_, purpose)| *purpose == self).map_or("", |(name, _)| name)
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Register => "Register this wallet as a new agent.",
            Self::Recover => "Recover the agent profile of this wallet.",
            Self::ClaimAgent => "Let a human account claim this wallet's agent profile.",
            Self::LinkWallet => "Link two wallets to one agent profile.",
            Self::UpdateWallet => "Change a wallet of this agent profile.",
        }
    }

    /// Bound to a profile that exists.
    fn needs_profile(self) -> bool {
        matches!(self, Self::ClaimAgent | Self::LinkWallet | Self::UpdateWallet)
    }

    /// Anybody can ask for it, so that it must cost work.
    fn needs_work(self) -> bool {
        matches!(self, Self::Register | Self::Recover)
    }
}

/// Issues challenges and redeems them.
pub(crate) struct Challenges {
    seal: Seal,
    knobs: config::Identity,
    site: String,
    domain: String,
    load: Load,
}

/// A challenge that was issued here and is good for what it is wanted for; it may have been used before.
#[derive(Debug)]
pub(crate) struct Challenge {
    nonce: Nonce,
    message: String,
}

impl Challenge {
    /// What the wallet had to sign.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Uses it up. What it proves may be acted on only after this.
    ///
    /// # Errors
    /// `ChallengeAlreadyUsed`, `StoreUnavailable`.
    pub(crate) async fn redeem(&self, store: &dyn Store) -> Result<(), Refusal> {
        match store.nonce_use(self.nonce.sha256(), self.nonce.expires_at()).await? {
            NonceUsed::Fresh => Ok(()),
            NonceUsed::Again => Err(Code::ChallengeAlreadyUsed.into()),
        }
    }
}

/// Counts the challenges of a minute on this node: under load each asks for more work. Roughly: two that come at once
/// when the minute turns may both begin it.
#[derive(Default)]
struct Load {
    minute: AtomicU64,
    count: AtomicU64,
}

impl Load {
    /// Counts one, and tells how many the minute has had.
    fn count(&self, now: UnixMillis) -> u64 {
        let minute = now.seconds() / 60;
        if self.minute.swap(minute, Ordering::Relaxed) != minute {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[derive(Serialize)]
struct ChallengeView {
    message: String,
    nonce: String,
    purpose: &'static str,
    chain: ChainFamily,
    #[serde(skip_serializing_if = "Option::is_none")]
    pow: Option<Work>,
    expires_at: Shown<UnixMillis>,
    expires_in: u64,
}

/// `POST /auth/challenge`.
pub(crate) async fn issue(ask: Ask) -> Result<Reply, Refusal> {
    let subject = ask.fields(read_subject)?;
    let challenges = &ask.door.challenges;
    let nonce = challenges.issue(&subject, ask.now)?;
    Reply::ok(ChallengeView {
        message: challenges.message(&subject, &nonce),
        nonce: nonce.text().to_string(),
        purpose: subject.purpose.name(),
        chain: subject.wallet.family(),
        pow: challenges.work(&subject, &nonce)?,
        expires_at: Shown(nonce.expires_at()),
        expires_in: nonce.expires_at().since(ask.now).as_secs(),
    })
}

fn read_subject(f: &mut Fields) -> Option<Subject> {
    let wallet = f.required("wallet_address", wallet_address);
    let purpose = f.optional("purpose", choice(PURPOSES)).unwrap_or(Purpose::Register);
    let profile = f.optional("profile_id", fields::parsed(|text| text.parse().map_err(|_| "must be an id".into())));
    let other = f.optional("other_wallet_address", wallet_address);
    if purpose.needs_profile() && profile.is_none() {
        f.wrong("profile_id", format!("is required for {}", purpose.name()));
    }
    if !purpose.needs_profile() && profile.is_some() {
        f.wrong("profile_id", format!("does not go with {}", purpose.name()));
    }
    match (purpose, &other) {
        (Purpose::LinkWallet, None) => f.wrong("other_wallet_address", "is required for link_wallet"),
        (Purpose::LinkWallet, Some(_)) if other == wallet => {
            f.wrong("other_wallet_address", "must be another wallet's");
        }
        (Purpose::LinkWallet, Some(_)) | (_, None) => {}
        (_, Some(_)) => f.wrong("other_wallet_address", format!("does not go with {}", purpose.name())),
    }
    Some(Subject { purpose, wallet: wallet?, profile, other })
}

/// Reads a wallet's address.
///
/// # Errors
/// Why it is none.
pub(crate) fn wallet_address(value: &serde_json::value::RawValue) -> fields::Read<Address> {
    Address::parse(&exact(1..=128)(value)?)
}

impl Challenges {
    /// Challenges under the server's secret, for the public URL `site`; `None` never, for a secret of 32 bytes.
    pub(crate) fn new(secret: &[u8; 32], knobs: &config::Identity, site: &str) -> Option<Self> {
        let domain = site.split_once("://").map_or(site, |(_, rest)| rest);
        let domain = domain.split('/').next().unwrap_or_default().to_string();
        let (knobs, load) = (knobs.clone(), Load::default());
        Some(Self { seal: Seal::new(secret)?, knobs, site: site.to_string(), domain, load })
    }

    fn issue(&self, subject: &Subject, now: UnixMillis) -> Result<Nonce, Refusal> {
        let more = match subject.purpose {
            Purpose::Register => self.knobs.pow_more.register,
            Purpose::Recover => self.knobs.pow_more.recover,
            Purpose::ClaimAgent | Purpose::LinkWallet | Purpose::UpdateWallet => 0,
        };
        let difficulty = self.difficulty(more, now);
        Nonce::issue(&self.seal, subject, difficulty, self.knobs.challenge_ttl, now)
    }

    /// How many zeros to ask for: `more` than usual, and one more under load.
    fn difficulty(&self, more: u8, now: UnixMillis) -> u8 {
        let is_busy = self.load.count(now) > u64::from(self.knobs.pow_busy_per_minute);
        self.knobs.pow_difficulty + more + u8::from(is_busy)
    }

    /// Checks a challenge's MAC (and with it purpose and subject), time and proof of work, in that order. The store is
    /// not asked.
    ///
    /// # Errors
    /// `ChallengeInvalid`, `ChallengeExpired`, `PowInvalid`.
    pub(crate) fn check(
        &self,
        subject: &Subject,
        nonce: &str,
        pow_nonce: Option<&str>,
        now: UnixMillis,
    ) -> Result<Challenge, Refusal> {
        let nonce = Nonce::check(&self.seal, subject, self.knobs.challenge_ttl, nonce, now)?;
        if let Some(work) = self.work(subject, &nonce)? {
            work.check(pow_nonce.unwrap_or_default())?;
        }
        let message = self.message(subject, &nonce);
        Ok(Challenge { nonce, message })
    }

    /// The proof of work that goes with a nonce; rebuilt, never sent back.
    fn work(&self, subject: &Subject, nonce: &Nonce) -> Result<Option<Work>, Refusal> {
        if !subject.purpose.needs_work() {
            return Ok(None);
        }
        let slots = Slots {
            purpose: subject.purpose.name(),
            subject: &subject.wallet.shown(),
            difficulty: nonce.difficulty(),
            expires_at: nonce.expires_at(),
            random: nonce.text(),
        };
        Work::new(&self.seal, slots).map(Some)
    }

    /// A new proof of work for a seller who wants to create a listing.
    ///
    /// # Errors
    /// `InternalError` when the system has no randomness.
    pub(crate) fn listing_work(&self, seller: ProfileId, now: UnixMillis) -> Result<(Work, UnixMillis), Refusal> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Code::Internal)?;
        let expires_at = now.plus(self.knobs.challenge_ttl);
        let slots = Slots {
            purpose: "listing",
            subject: &seller.to_string(),
            difficulty: self.difficulty(self.knobs.pow_more.listing, now),
            expires_at,
            random: &hex::encode(random),
        };
        Ok((Work::new(&self.seal, slots)?, expires_at))
    }

    /// The text to sign: EIP-4361, or the same for the other family. It begins with the domain, so that it can never
    /// be taken for a transaction.
    fn message(&self, subject: &Subject, nonce: &Nonce) -> String {
        let account = match subject.wallet.family() {
            ChainFamily::Evm => "Ethereum",
            ChainFamily::Solana => "Solana",
        };
        let chain = match subject.wallet.family() {
            ChainFamily::Evm => "1",
            ChainFamily::Solana => "mainnet",
        };
        let mut statement = subject.purpose.in_words().to_string();
        if let Some(profile) = subject.profile {
            statement.push_str(&format!(" Profile: {profile}."));
        }
        if let Some(other) = &subject.other {
            statement.push_str(&format!(" Other wallet: {}.", other.shown()));
        }
        format!(
            "{domain} wants you to sign in with your {account} account:\n{address}\n\n{statement}\n\nURI: {site}\n\
             Version: 1\nChain ID: {chain}\nNonce: {nonce}\nIssued At: {issued}\nExpiration Time: {expires}",
            domain = self.domain,
            address = subject.wallet.shown(),
            site = self.site,
            nonce = nonce.text(),
            issued = nonce.issued_at(),
            expires = nonce.expires_at(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_grows_by_purpose_and_under_load() {
        let knobs = config::Config::from_parts(None, []).expect("defaults").identity;
        let knobs = config::Identity {
            pow_busy_per_minute: 2,
            pow_more: config::PowMore { recover: 2, ..knobs.pow_more.clone() },
            ..knobs
        };
        let challenges = Challenges::new(&[1; 32], &knobs, "https://x.example").expect("32 bytes");
        let zeros = |purpose, now| {
            let subject = Subject { purpose, wallet: Address::Evm([1; 20]), profile: None, other: None };
            challenges.issue(&subject, UnixMillis(now)).expect("randomness").difficulty()
        };
        assert_eq!((zeros(Purpose::Register, 0), zeros(Purpose::Recover, 1)), (4, 6));
        assert_eq!((zeros(Purpose::Register, 2), zeros(Purpose::Recover, 3)), (5, 7), "more than two in this minute");
        assert_eq!(zeros(Purpose::Register, 60_000), 4, "another minute");
    }
}
