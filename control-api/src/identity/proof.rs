//! A wallet's proof: it signed a challenge that was made for this. The way of all that change what a wallet guards.

use actors::refusal::{Code, Refusal};
use storage::model::{ProfileId, UnixMillis, Wallet, WalletCapability};

use super::{
    address::Address,
    challenge::{Challenge, Purpose, wallet_address},
    nonce::Subject,
    signature::Signature,
};
use crate::{
    door::Door,
    extract::Ask,
    fields::{Fields, Given, exact},
};

/// What a client says of a wallet: not believed yet.
pub(crate) struct WalletProof {
    pub(crate) wallet: Address,
    nonce: String,
    signature: String,
}

impl WalletProof {
    /// Reads `wallet_address`, `nonce` and `signature`.
    pub(crate) fn read(f: &mut Fields) -> Option<Self> {
        let wallet = f.required("wallet_address", wallet_address);
        let nonce = f.required("nonce", exact(1..=128));
        let signature = f.required("signature", exact(1..=4096));
        Some(Self { wallet: wallet?, nonce: nonce?, signature: signature? })
    }

    /// As [`WalletProof::read`], from an object inside the body.
    pub(crate) fn read_inner(f: &mut Fields, name: &str) -> Option<Self> {
        f.require(&[name]);
        match f.object(name, Self::read) {
            Given::Value(proof) => Some(proof),
            Given::Absent | Given::Null => None,
        }
    }

    /// Checks all that can be checked without the store: the signature's form, the challenge's MAC, time and work.
    ///
    /// # Errors
    /// `SignatureInvalid`, `ContractWalletUnsupported`, `ChallengeInvalid`, `ChallengeExpired`, `PowInvalid`.
    pub(crate) fn check(
        self,
        door: &Door,
        purpose: Purpose,
        (profile, other): (Option<ProfileId>, Option<Address>),
        pow_nonce: Option<&str>,
        now: UnixMillis,
    ) -> Result<Checked, Refusal> {
        let signature = Signature::parse(self.wallet.family(), &self.signature)?;
        let subject = Subject { purpose, wallet: self.wallet, profile, other };
        let challenge = door.challenges.check(&subject, &self.nonce, pow_nonce, now)?;
        Ok(Checked { wallet: subject.wallet, signature, challenge })
    }
}

/// A proof whose challenge is good and not used up yet.
pub(crate) struct Checked {
    wallet: Address,
    signature: Signature,
    challenge: Challenge,
}

impl Checked {
    /// Uses the challenge up, whatever the signature turns out to be.
    ///
    /// # Errors
    /// `ChallengeAlreadyUsed`, `StoreUnavailable`.
    pub(crate) async fn redeem(self, door: &Door) -> Result<Redeemed, Refusal> {
        self.challenge.redeem(door.store.as_ref()).await?;
        Ok(Redeemed(self))
    }
}

/// A proof whose challenge is gone: only now the signature counts.
pub(crate) struct Redeemed(Checked);

impl Redeemed {
    /// The wallet, proven.
    ///
    /// # Errors
    /// `SignatureInvalid`.
    pub(crate) fn verify(self) -> Result<Address, Refusal> {
        let Checked { wallet, signature, challenge } = self.0;
        signature.verify(&wallet, challenge.message())?;
        Ok(wallet)
    }
}

/// The wallet with this address, proven, when it may speak for `profile`. The store looks again in the step that acts
/// upon it.
///
/// # Errors
/// `Forbidden`; `StoreUnavailable`.
pub(crate) async fn spokesman(ask: &Ask, address: &Address, profile: ProfileId) -> Result<Wallet, Refusal> {
    let wallet = ask.door.store.wallet_find(address.family(), address.bytes()).await?;
    let may = |wallet: &Wallet| wallet.profile == profile && wallet.may(WalletCapability::Recovery);
    wallet.filter(may).ok_or_else(not_proven)
}

/// The wallet that gave the proof may not speak for the profile.
pub(crate) fn not_proven() -> Refusal {
    Refusal::from(Code::Forbidden).message("The wallet is not an active recovery wallet of the profile.")
}
