//! A signed transfer (ERC-3009 `TransferWithAuthorization`), checked here before any facilitator is asked: amount,
//! payee, moment and signature need no chain. Source: ERC-3009, EIP-712.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};
use storage::model::UnixMillis;

/// An account on an EVM chain.
pub type Account = [u8; 20];

const TRANSFER_TYPE: &str = "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,\
                             uint256 validBefore,bytes32 nonce)";
const DOMAIN_TYPE: &str = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

/// The token and its chain, as its signatures name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The token's EIP-712 name: "USD Coin" on Base, "USDC" on Base Sepolia.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The chain.
    pub chain_id: u64,
    /// The token's contract.
    pub contract: Account,
}

/// As it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExactEvm {
    /// `0x` and 65 bytes.
    pub signature: String,
    /// What was signed.
    pub authorization: Authorization,
}

/// What was signed, as it travels: addresses and the nonce in hexadecimal, numbers in decimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// Who pays.
    pub from: String,
    /// Who is paid.
    pub to: String,
    /// How much, in the token's smallest unit.
    pub value: String,
    /// Not good before, Unix seconds.
    pub valid_after: String,
    /// Not good from then on, Unix seconds.
    pub valid_before: String,
    /// 32 bytes; a payer uses each once.
    pub nonce: String,
}

/// A transfer whose signature is its payer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Who pays.
    pub from: Account,
    /// How much, in the token's smallest unit.
    pub value: u64,
    /// Names the transfer among its payer's.
    pub nonce: [u8; 32],
    /// Not good from then on, Unix seconds.
    pub valid_before: u64,
}

/// What a transfer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The token.
    pub domain: Domain,
    /// Who must be paid.
    pub payee: Account,
    /// How much exactly, in the token's smallest unit.
    pub value: u64,
    /// How long it must still be good, seconds: a settlement takes its time.
    pub margin_seconds: u64,
}

/// Why a transfer is not what was asked for. The names are x402's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A field is not in its form.
    #[error("invalid_payload")]
    Malformed,
    /// It pays somebody else.
    #[error("invalid_exact_evm_payload_recipient_mismatch")]
    Payee,
    /// It pays another amount.
    #[error("invalid_exact_evm_payload_authorization_value_mismatch")]
    Value,
    /// It is not good yet.
    #[error("invalid_exact_evm_payload_authorization_valid_after")]
    Early,
    /// It is not good any more, or not for long enough.
    #[error("invalid_exact_evm_payload_authorization_valid_before")]
    Late,
    /// The payer did not sign it.
    #[error("invalid_exact_evm_payload_signature")]
    Signature,
}

impl ExactEvm {
    /// Names the transfer among all of its token's: payer and nonce, in the one form that their bytes have.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn name(&self) -> Result<String, Fault> {
        let (from, nonce) = (account(&self.authorization.from)?, bytes::<32>(&self.authorization.nonce)?);
        Ok(format!("0x{}:0x{}", hex::encode(from), hex::encode(nonce)))
    }

    /// Checks a transfer against what was asked for. Says nothing about the payer's balance, nor whether the nonce was
    /// used: only the chain knows.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, wanted: &Wanted, now: UnixMillis) -> Result<Transfer, Fault> {
        let authorization = &self.authorization;
        let (from, to) = (account(&authorization.from)?, account(&authorization.to)?);
        let value = number(&authorization.value)?;
        let (after, before) = (number(&authorization.valid_after)?, number(&authorization.valid_before)?);
        let nonce: [u8; 32] = bytes(&authorization.nonce)?;
        if to != wanted.payee {
            return Err(Fault::Payee);
        }
        if value != wanted.value {
            return Err(Fault::Value);
        }
        let seconds = now.0 / 1000;
        if after > seconds {
            return Err(Fault::Early);
        }
        if before < seconds.saturating_add(wanted.margin_seconds) {
            return Err(Fault::Late);
        }
        let digest = digest(&wanted.domain, &[word(&from), word(&to), uint(value), uint(after), uint(before), nonce]);
        if signer(&digest, &self.signature)? != from {
            return Err(Fault::Signature);
        }
        Ok(Transfer { from, value, nonce, valid_before: before })
    }
}

/// What the payer's key signs.
fn digest(domain: &Domain, fields: &[[u8; 32]; 6]) -> [u8; 32] {
    let transfer =
        fields.iter().fold(Keccak256::new_with_prefix(keccak(TRANSFER_TYPE.as_bytes())), Keccak256::chain_update);
    let mut hash = Keccak256::new_with_prefix(b"\x19\x01");
    hash.update(domain.separator());
    hash.update(transfer.finalize());
    hash.finalize().into()
}

impl Domain {
    /// EIP-712's domain separator.
    fn separator(&self) -> [u8; 32] {
        let mut hash = Keccak256::new_with_prefix(keccak(DOMAIN_TYPE.as_bytes()));
        hash.update(keccak(self.name.as_bytes()));
        hash.update(keccak(self.version.as_bytes()));
        hash.update(uint(self.chain_id));
        hash.update(word(&self.contract));
        hash.finalize().into()
    }
}

fn signer(digest: &[u8; 32], signature: &str) -> Result<Account, Fault> {
    let [scalars @ .., v]: [u8; 65] = bytes(signature)?;
    let recovery = match v {
        0 | 27 => RecoveryId::new(false, false),
        1 | 28 => RecoveryId::new(true, false),
        _ => return Err(Fault::Signature),
    };
    let signature = Signature::from_slice(&scalars).map_err(|_| Fault::Signature)?;
    // Recovery works from the high-s twin too, which the token's contract refuses.
    if signature.normalize_s() != signature {
        return Err(Fault::Signature);
    }
    let key = VerifyingKey::recover_from_prehash(digest, &signature, recovery).map_err(|_| Fault::Signature)?;
    let point = key.to_sec1_point(false);
    let hash = Keccak256::digest(point.as_bytes().get(1..).ok_or(Fault::Signature)?);
    hash.get(12..).and_then(|tail| tail.try_into().ok()).ok_or(Fault::Signature)
}

fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// An address in the lower 20 bytes of a word.
pub(super) fn word(account: &Account) -> [u8; 32] {
    let mut word = [0; 32];
    let (_, lower) = word.split_at_mut(12);
    lower.copy_from_slice(account);
    word
}

/// A number in the lower 8 bytes of a word.
pub(super) fn uint(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    let (_, lower) = word.split_at_mut(24);
    lower.copy_from_slice(&number.to_be_bytes());
    word
}

/// An address, in either case: what is compared is bytes.
///
/// # Errors
/// `Malformed`.
pub fn account(text: &str) -> Result<Account, Fault> {
    bytes(text)
}

/// Payer and nonce in a transfer's name, as [`ExactEvm::name`] makes it; `None` when it is none.
pub(super) fn transfer_named(name: &str) -> Option<(Account, [u8; 32])> {
    let (from, nonce) = name.split_once(':')?;
    Some((account(from).ok()?, bytes(nonce).ok()?))
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    let digits = text.strip_prefix("0x").ok_or(Fault::Malformed)?;
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| Fault::Malformed)?;
    Ok(bytes)
}

/// Decimal digits without a sign or a leading zero. More than 64 bits are no amount and no moment of ours.
fn number(text: &str) -> Result<u64, Fault> {
    let canonical =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().map_err(|_| Fault::Malformed) } else { Err(Fault::Malformed) }
}

#[cfg(test)]
mod tests {
    use k256::ecdsa::SigningKey;
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_500_000_000);

    fn wanted() -> Wanted {
        Wanted {
            domain: Domain {
                name: "USDC".into(),
                version: "2".into(),
                chain_id: 84532,
                contract: account("0x036CbD53842c5426634e7929541eC2318f3dCF7e").expect("address"),
            },
            payee: account("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC").expect("address"),
            value: 10_000,
            margin_seconds: 6,
        }
    }

    /// Signed by an outside client for a real chain.
    fn signed_elsewhere() -> ExactEvm {
        ExactEvm {
            signature: "0x655d813f188190b95b6668299f8f5e0e8bafdea01f372f9661eaa49fb9fe1c330c4e65e38ee39f9a357d9b282e88\
                        222ff9115793b4469af3989486cd4c17d27e1c"
                .into(),
            authorization: Authorization {
                from: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into(),
                to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
                value: "10000".into(),
                valid_after: "1795499963".into(),
                valid_before: "1795500623".into(),
                nonce: "0x4717fe6a73f215d2e015255464d43557fa705e0255650130f45753a7b6c8722a".into(),
            },
        }
    }

    #[test]
    fn the_known_hashes_come_out() {
        assert_eq!(
            hex::encode(keccak(TRANSFER_TYPE.as_bytes())),
            "7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267"
        );
        assert_eq!(
            hex::encode(wanted().domain.separator()),
            "71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818"
        );
    }

    #[test]
    fn a_transfer_that_somebody_else_signed_is_good() {
        let transfer = signed_elsewhere().check(&wanted(), NOW).expect("good");
        assert_eq!(hex::encode(transfer.from), "70997970c51812dc3a010c7d01b50e0d17dc79c8");
        assert_eq!((transfer.value, transfer.valid_before), (10_000, 1_795_500_623));
        let mut lower = signed_elsewhere();
        lower.authorization.to = lower.authorization.to.to_lowercase();
        assert!(lower.check(&wanted(), NOW).is_ok(), "an address is its bytes, not its letters");
    }

    #[test]
    fn whatever_is_changed_it_is_refused_for_its_own_reason() {
        let change = |edit: &dyn Fn(&mut ExactEvm)| {
            let mut changed = signed_elsewhere();
            edit(&mut changed);
            changed.check(&wanted(), NOW)
        };
        assert_eq!(change(&|t| t.authorization.to = t.authorization.from.clone()), Err(Fault::Payee));
        assert_eq!(change(&|t| t.authorization.value = "9999".into()), Err(Fault::Value));
        assert_eq!(change(&|t| t.authorization.value = "10001".into()), Err(Fault::Value));
        assert_eq!(change(&|t| t.authorization.value = "010000".into()), Err(Fault::Malformed));
        assert_eq!(change(&|t| t.authorization.value = "-1".into()), Err(Fault::Malformed));
        assert_eq!(change(&|t| t.authorization.from = t.authorization.to.clone()), Err(Fault::Signature));
        assert_eq!(change(&|t| t.authorization.valid_after = "1795499962".into()), Err(Fault::Signature));
        assert_eq!(change(&|t| t.authorization.nonce = format!("0x{}", "00".repeat(32))), Err(Fault::Signature));
        assert_eq!(change(&|t| t.authorization.nonce = "0x00".into()), Err(Fault::Malformed));
        assert_eq!(change(&|t| t.signature = t.signature.replace("1c330c", "1c330d")), Err(Fault::Signature));
        assert_eq!(change(&|t| t.signature.truncate(130)), Err(Fault::Malformed));
        let good = signed_elsewhere();
        let early = UnixMillis(1_795_499_962_999);
        assert_eq!(good.check(&wanted(), early), Err(Fault::Early));
        let late = UnixMillis(1_795_500_618_000);
        assert_eq!(good.check(&wanted(), late), Err(Fault::Late));
        let mut elsewhere = wanted();
        elsewhere.domain.chain_id = 8453;
        assert_eq!(good.check(&elsewhere, NOW), Err(Fault::Signature), "signed for another chain");
    }

    proptest! {
        #[test]
        fn one_bit_of_the_signature_decides(place in 0usize..64, bit in 0u8..8) {
            let mut changed = signed_elsewhere();
            let mut raw = hex::decode(&changed.signature[2..]).expect("hex");
            raw[place] ^= 1 << bit;
            changed.signature = format!("0x{}", hex::encode(raw));
            prop_assert_eq!(changed.check(&wanted(), NOW), Err(Fault::Signature));
        }

        #[test]
        fn the_high_twin_is_refused(seed in 1u8..255) {
            let key = SigningKey::from_slice(&[seed; 32]).expect("key");
            let (signature, recovery) = key.sign_prehash_recoverable(&[7; 32]);
            let mut raw = signature.to_bytes().to_vec();
            raw.push(27 + u8::from(recovery.is_y_odd()));
            let low = format!("0x{}", hex::encode(&raw));
            prop_assert!(signer(&[7; 32], &low).is_ok());
            let high = k256::ecdsa::Signature::from_scalars(*signature.r(), -*signature.s()).expect("twin");
            let mut raw = high.to_bytes().to_vec();
            raw.push(27 + u8::from(!recovery.is_y_odd()));
            prop_assert_eq!(signer(&[7; 32], &format!("0x{}", hex::encode(&raw))), Err(Fault::Signature));
        }
    }
}
