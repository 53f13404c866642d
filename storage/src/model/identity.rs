//! Who calls: profiles, their wallets and their keys.

use serde::{Deserialize, Serialize};

use super::{
    ids::{ApiKeyId, ProfileId, WalletId},
    money::Micros,
    time::UnixMillis,
};

/// What kind of account a profile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountType {
    /// A program with a wallet.
    Agent,
    /// A human.
    Human,
    /// An agent that a human has claimed.
    HumanClaimedAgent,
}

/// An agent or a human.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its id.
    pub id: ProfileId,
    /// What it is.
    pub account_type: AccountType,
    /// 1 to 80 characters.
    pub display_name: String,
    /// A picture, if it gave one.
    pub avatar_url: Option<String>,
    /// The human who claimed it.
    pub claimed_by: Option<ProfileId>,
    /// Its score reached the mark.
    pub is_verified: bool,
    /// 0 to 1000.
    pub score: u16,
    /// An operator closed it.
    pub is_suspended: bool,
    /// When it registered.
    pub created_at: UnixMillis,
    /// Counts the changes.
    pub version: u64,
}

/// A family of chains: one form of address, one kind of signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainFamily {
    /// Ethereum and its kin: 20 bytes.
    Evm,
    /// Solana: 32 bytes.
    Solana,
}

/// What a wallet may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletCapability {
    /// Signing in.
    Auth,
    /// Recovering the profile.
    Recovery,
    /// Paying.
    Payment,
    /// Being paid.
    Payout,
}

/// Whether a wallet is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletStatus {
    /// In use.
    Active,
    /// Kept, and not in use.
    Disabled,
}

/// A wallet linked to a profile; unique by family and address bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wallet {
    /// Its id.
    pub id: WalletId,
    /// Whose it is.
    pub profile: ProfileId,
    /// Its family.
    pub family: ChainFamily,
    /// The address's bytes: 20 or 32.
    pub address: Vec<u8>,
    /// The owner's name for it.
    pub label: Option<String>,
    /// In use or not.
    pub status: WalletStatus,
    /// What it may be used for.
    pub capabilities: Vec<WalletCapability>,
    /// Paid from by default.
    pub default_payment: bool,
    /// Paid out to by default.
    pub default_payout: bool,
    /// When it was linked.
    pub created_at: UnixMillis,
    /// Counts the changes.
    pub version: u64,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Call listings through the gateway.
    Gateway,
    /// Read own data.
    Read,
    /// Change own data.
    Write,
}

/// An API key's record. The key itself is shown once and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub profile: ProfileId,
    /// SHA-256 of the key.
    pub key_sha256: [u8; 32],
    /// The owner's name for it.
    pub name: String,
    /// The first characters of the key, to tell it from others.
    pub key_prefix: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
    /// When it was last used, within some minutes.
    pub last_used_at: Option<UnixMillis>,
    /// The highest price it may agree to.
    pub max_price: Option<Micros>,
    /// What it may spend a day.
    pub daily_spend: Option<Micros>,
    /// Counts the changes.
    pub version: u64,
}

impl ApiKey {
    /// Not revoked, not expired.
    #[must_use]
    pub fn is_active(&self, now: UnixMillis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl Wallet {
    /// Whether it is in use and may be used for this.
    #[must_use]
    pub fn may(&self, capability: WalletCapability) -> bool {
        self.status == WalletStatus::Active && self.capabilities.contains(&capability)
    }

    /// A default must be in use and able to do what it is the default for.
    fn drop_impossible_defaults(&mut self) {
        self.default_payment &= self.may(WalletCapability::Payment);
        self.default_payout &= self.may(WalletCapability::Payout);
    }
}

/// What to change of a wallet; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalletChange {
    /// The owner's name for it; `Some(None)` takes it away.
    pub label: Option<Option<String>>,
    /// What it may be used for.
    pub capabilities: Option<Vec<WalletCapability>>,
    /// In use or not.
    pub status: Option<WalletStatus>,
    /// Paid from by default; `true` takes it from the wallet that was.
    pub default_payment: Option<bool>,
    /// Paid out to by default; `true` takes it from the wallet that was.
    pub default_payout: Option<bool>,
}

/// Why a profile's wallets may not become what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalletRefused {
    /// The profile has no such wallet.
    NotFound,
    /// The wallet whose proof was given is not, or no longer, an active recovery wallet of the profile.
    NotProven,
    /// No active recovery wallet would be left.
    WouldStrand,
    /// A default would be one that is disabled or cannot do it.
    DefaultImpossible,
    /// The profile has as many wallets as it may have.
    Full,
}

/// A profile's wallets, decided about as a whole: one partition, one version, one winner.
///
/// At most one wallet is the default for paying and one for being paid, each in use and able to; at least one active
/// wallet can recover the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletSet(Vec<Wallet>);

impl WalletSet {
    /// The wallets of one profile, oldest first.
    #[must_use]
    pub fn new(wallets: Vec<Wallet>) -> Self {
        Self(wallets)
    }

    /// Changes wallet `id` for whoever proved `proven_by`. Returns every wallet that is to be written, each with its
    /// version counted up, the changed one first.
    ///
    /// # Errors
    /// Why it must stay as it is.
    pub fn change(
        &self,
        id: WalletId,
        proven_by: WalletId,
        change: &WalletChange,
    ) -> Result<Vec<Wallet>, WalletRefused> {
        self.check_proof(proven_by)?;
        let mut changed = self.get(id).ok_or(WalletRefused::NotFound)?.clone();
        if let Some(label) = &change.label {
            changed.label.clone_from(label);
        }
        if let Some(capabilities) = &change.capabilities {
            changed.capabilities.clone_from(capabilities);
        }
        changed.status = change.status.unwrap_or(changed.status);
        changed.default_payment = change.default_payment.unwrap_or(changed.default_payment);
        changed.default_payout = change.default_payout.unwrap_or(changed.default_payout);
        let (payment, payout) = (changed.default_payment, changed.default_payout);
        changed.drop_impossible_defaults();
        let was_asked_for = |asked: Option<bool>, was: bool, is: bool| asked == Some(true) && was && !is;
        if was_asked_for(change.default_payment, payment, changed.default_payment)
            || was_asked_for(change.default_payout, payout, changed.default_payout)
        {
            return Err(WalletRefused::DefaultImpossible);
        }
        changed.version += 1;
        let others = self.0.iter().filter(|wallet| wallet.id != id);
        if !changed.may(WalletCapability::Recovery)
            && !others.clone().any(|other| other.may(WalletCapability::Recovery))
        {
            return Err(WalletRefused::WouldStrand);
        }
        Ok(Self::with_defaults_of(changed, others))
    }

    /// Adds a wallet for whoever proved `proven_by`; it becomes a default where there is none. At most `most` wallets.
    ///
    /// # Errors
    /// `NotProven`, `Full`.
    pub fn link(&self, proven_by: WalletId, mut wallet: Wallet, most: usize) -> Result<Wallet, WalletRefused> {
        self.check_proof(proven_by)?;
        if self.0.len() >= most {
            return Err(WalletRefused::Full);
        }
        wallet.default_payment = !self.0.iter().any(|other| other.default_payment);
        wallet.default_payout = !self.0.iter().any(|other| other.default_payout);
        wallet.drop_impossible_defaults();
        Ok(wallet)
    }

    /// Whether this wallet speaks for the profile: active, and able to recover it.
    ///
    /// # Errors
    /// `NotProven`.
    pub fn check_proof(&self, id: WalletId) -> Result<(), WalletRefused> {
        let is_proof = self.get(id).is_some_and(|wallet| wallet.may(WalletCapability::Recovery));
        if is_proof { Ok(()) } else { Err(WalletRefused::NotProven) }
    }

    fn get(&self, id: WalletId) -> Option<&Wallet> {
        self.0.iter().find(|wallet| wallet.id == id)
    }

    /// The changed wallet, and the others that lose a default to it.
    fn with_defaults_of<'a>(changed: Wallet, others: impl Iterator<Item = &'a Wallet>) -> Vec<Wallet> {
        let losers = others.filter(|other| {
            (changed.default_payment && other.default_payment) || (changed.default_payout && other.default_payout)
        });
        let losers: Vec<Wallet> = losers
            .map(|other| Wallet {
                default_payment: other.default_payment && !changed.default_payment,
                default_payout: other.default_payout && !changed.default_payout,
                version: other.version + 1,
                ..other.clone()
            })
            .collect();
        std::iter::once(changed).chain(losers).collect()
    }
}

/// A human's account: how it signs in. Its name and standing are its profile's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Human {
    /// The human's profile.
    pub profile: ProfileId,
    /// What it signs in with, in lower case; unique.
    pub email: String,
    /// The password's hash in PHC form; never the password.
    pub password: String,
    /// Sessions that began before this moment have ended.
    pub sessions_from: UnixMillis,
    /// When it signed up.
    pub created_at: UnixMillis,
    /// Counts the changes.
    pub version: u64,
}

/// A human who is signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// SHA-256 of what the cookie holds.
    pub id_sha256: [u8; 32],
    /// Who.
    pub profile: ProfileId,
    /// Since when.
    pub created_at: UnixMillis,
    /// When it was last used, within an hour or so.
    pub seen_at: UnixMillis,
    /// When it ends, however much it is used.
    pub ends_at: UnixMillis,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_500_000_000);

    fn wallet(n: u8) -> Wallet {
        use WalletCapability::{Auth, Payment, Payout, Recovery};
        Wallet {
            id: WalletId::from_bytes([n; 16]),
            profile: ProfileId::from_bytes([9; 16]),
            family: ChainFamily::Evm,
            address: vec![n; 20],
            label: None,
            status: WalletStatus::Active,
            capabilities: vec![Auth, Recovery, Payment, Payout],
            default_payment: false,
            default_payout: false,
            created_at: NOW,
            version: 0,
        }
    }

    fn id(n: u8) -> WalletId {
        WalletId::from_bytes([n; 16])
    }

    fn apply(set: &mut [Wallet], written: Vec<Wallet>) {
        for wallet in written {
            let place = set.iter_mut().find(|known| known.id == wallet.id).expect("known");
            *place = wallet;
        }
    }

    #[test]
    fn the_last_recovery_wallet_stays() {
        let set = WalletSet::new(vec![wallet(1)]);
        let disable = WalletChange { status: Some(WalletStatus::Disabled), ..WalletChange::default() };
        assert_eq!(set.change(id(1), id(1), &disable), Err(WalletRefused::WouldStrand));
        let weaken = WalletChange { capabilities: Some(vec![WalletCapability::Payment]), ..WalletChange::default() };
        assert_eq!(set.change(id(1), id(1), &weaken), Err(WalletRefused::WouldStrand));
        assert_eq!(set.change(id(2), id(1), &weaken), Err(WalletRefused::NotFound));
        let two = WalletSet::new(vec![wallet(1), wallet(2)]);
        let mut after = two.0.clone();
        apply(&mut after, two.change(id(1), id(2), &disable).expect("another is left"));
        assert_eq!(WalletSet::new(after).change(id(2), id(2), &disable), Err(WalletRefused::WouldStrand));
    }

    #[test]
    fn a_wallet_that_cannot_recover_proves_nothing() {
        let mut weak = wallet(2);
        weak.capabilities = vec![WalletCapability::Payment];
        let set = WalletSet::new(vec![wallet(1), weak.clone()]);
        let rename = WalletChange { label: Some(Some("x".into())), ..WalletChange::default() };
        assert_eq!(set.change(id(1), id(2), &rename), Err(WalletRefused::NotProven));
        assert_eq!(set.change(id(1), id(3), &rename), Err(WalletRefused::NotProven));
        assert_eq!(set.link(id(2), wallet(3), 9), Err(WalletRefused::NotProven));
        assert_eq!(set.link(id(1), wallet(3), 2), Err(WalletRefused::Full));
    }

    #[test]
    fn a_default_moves_and_goes_with_what_it_needs() {
        let first = Wallet { default_payment: true, default_payout: true, ..wallet(1) };
        let set = WalletSet::new(vec![first, wallet(2)]);
        let take = WalletChange { default_payout: Some(true), ..WalletChange::default() };
        let written = set.change(id(2), id(1), &take).expect("may");
        let [new, old] = written.as_slice() else { panic!("{written:?}") };
        assert_eq!((new.default_payment, new.default_payout), (false, true));
        assert_eq!((old.id, old.default_payment, old.default_payout), (id(1), true, false));
        let weaken = WalletChange { capabilities: Some(vec![WalletCapability::Recovery]), ..WalletChange::default() };
        let written = set.change(id(1), id(1), &weaken).expect("may");
        assert_eq!((written[0].default_payment, written[0].default_payout), (false, false));
        let impossible = WalletChange { default_payment: Some(true), ..weaken };
        assert_eq!(set.change(id(2), id(1), &impossible), Err(WalletRefused::DefaultImpossible));
    }

    proptest! {
        #[test]
        fn no_sequence_of_changes_strands_or_doubles_a_default(
            steps in proptest::collection::vec((0u8..4, 0u8..4, 0u8..16, any::<[Option<bool>; 3]>()), 1..40)
        ) {
            let mut set = vec![Wallet { default_payment: true, default_payout: true, ..wallet(0) }];
            set.extend((1..4).map(wallet));
            for (target, proof, bits, [active, payment, payout]) in steps {
                use WalletCapability::{Auth, Payment, Payout, Recovery};
                let all = [Auth, Recovery, Payment, Payout];
                let chosen = all.into_iter().enumerate().filter(|(place, _)| bits & (1 << place) != 0);
                let change = WalletChange {
                    capabilities: (bits != 0).then(|| chosen.map(|(_, capability)| capability).collect()),
                    status: active.map(|is| if is { WalletStatus::Active } else { WalletStatus::Disabled }),
                    default_payment: payment,
                    default_payout: payout,
                    label: None,
                };
                if let Ok(written) = WalletSet::new(set.clone()).change(id(target), id(proof), &change) {
                    apply(&mut set, written);
                }
                prop_assert!(set.iter().any(|wallet| wallet.may(Recovery)));
                prop_assert!(set.iter().filter(|wallet| wallet.default_payment).count() <= 1);
                prop_assert!(set.iter().filter(|wallet| wallet.default_payout).count() <= 1);
                prop_assert!(set.iter().all(|wallet| !wallet.default_payment || wallet.may(Payment)));
                prop_assert!(set.iter().all(|wallet| !wallet.default_payout || wallet.may(Payout)));
            }
        }
    }
}
