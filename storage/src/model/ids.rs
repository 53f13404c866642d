//! Typed ids. Every one is a UUIDv7, so that ids made later sort later; a `ListingId` where a `ProfileId` is
//! wanted does not compile.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::time::UnixMillis;

/// The text is not an id of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed id")]
pub struct BadId;

fn mint(now: UnixMillis) -> Uuid {
    let nanos = u32::try_from(now.0 % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, now.seconds(), nanos))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, prefix = $prefix:literal) => {
        id!(@type $(#[$doc])* $name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(self.0.simple().encode_lower(&mut [0; 32]))
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let hex = text.strip_prefix($prefix).ok_or(BadId)?;
                let lowercase = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if hex.len() != 32 || !lowercase {
                    return Err(BadId);
                }
                Uuid::try_parse(hex).map(Self).map_err(|_| BadId)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident) => {
        id!(@type $(#[$doc])* $name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0.hyphenated().encode_lower(&mut [0; 36]))
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                if text.len() != 36 {
                    return Err(BadId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| BadId)
            }
        }
    };
    (@type $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, sorted by `now`.
            #[must_use]
            pub fn mint(now: UnixMillis) -> Self {
                Self(mint(now))
            }

            /// The moment when it was minted.
            #[must_use]
            pub fn minted_at(self) -> UnixMillis {
                let [a, b, c, d, e, f, ..] = self.0.into_bytes();
                UnixMillis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
            }

            /// The 16 bytes, big-endian: as a key they sort by time.
            #[must_use]
            pub fn bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// The id with these 16 bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }
    };
}

id!(
    /// An agent or a human.
    ProfileId
);
id!(
    /// A wallet linked to a profile.
    WalletId
);
id!(
    /// An API key's record; never the key itself.
    ApiKeyId
);
id!(
    /// What a seller offers.
    ListingId
);
id!(
    /// A category of listings.
    CategoryId
);
id!(
    /// A buyer's review of a listing.
    ReviewId
);
id!(
    /// One posting of the ledger.
    PostingId
);
id!(
    /// The payment: `pay_` and 32 hex digits. The wire calls it `relay_request_id`.
    PaymentId,
    prefix = "pay_"
);
id!(
    /// One buyer request through the gateway: `gw_req_` and 32 hex digits. A paid one shares its digits with its
    /// payment, so that neither needs an index to the other.
    GatewayRequestId,
    prefix = "gw_req_"
);

impl From<PaymentId> for GatewayRequestId {
    fn from(id: PaymentId) -> Self {
        Self(id.0)
    }
}

impl From<GatewayRequestId> for PaymentId {
    fn from(id: GatewayRequestId) -> Self {
        Self(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_sort_later_and_text_round_trips() {
        let early = PaymentId::mint(UnixMillis(1_000));
        let late = PaymentId::mint(UnixMillis(2_000));
        assert!(early.bytes() < late.bytes());
        assert_eq!(late.minted_at(), UnixMillis(2_000));
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(GatewayRequestId::from(early).to_string(), early.to_string().replace("pay_", "gw_req_"));
        let listing = ListingId::mint(UnixMillis(1_000));
        assert_eq!(listing.to_string().parse(), Ok(listing));
    }

    #[test]
    fn odd_spellings_are_refused() {
        for text in ["", "pay_", "pay_0", &format!("pay_{}", "G".repeat(32)), &format!("pay_{}", "A".repeat(32))] {
            assert_eq!(text.parse::<PaymentId>(), Err(BadId), "{text}");
        }
        assert_eq!(format!("{{{}}}", "0".repeat(34)).parse::<ListingId>(), Err(BadId));
        assert_eq!("0".repeat(32).parse::<ListingId>(), Err(BadId));
    }
}
