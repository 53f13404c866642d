//! Money: integer micro-units, checked. What must add up is built by a constructor that cannot do otherwise.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An amount in micro-units of its currency: 1 USD = 1 000 000. Never negative where a price is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Micros(pub i64);

impl Micros {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The lowest price of a paid listing: 0.000001.
    pub const PRICE_MIN: Self = Self(1);
    /// The highest price of a listing: 10 000.
    pub const PRICE_MAX: Self = Self(10_000 * 1_000_000);

    /// The sum, or `None` past the range of `i64`.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` past the range of `i64`.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Whole cents for the eye, half-up.
    #[must_use]
    pub fn cents(self) -> i64 {
        self.0.saturating_add(5_000).div_euclid(10_000)
    }

    /// Reads a decimal number of currency units, at most 6 decimals and never through a float. `None` for anything
    /// else: signs, exponents, spaces, a seventh decimal that is not zero.
    #[must_use]
    pub fn parse_units(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').map_or((text, ""), |(w, f)| (w, f));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 12 || !digits(whole) || !digits(fraction) {
            return None;
        }
        if text.contains('.') && fraction.is_empty() {
            return None;
        }
        let kept = fraction.trim_end_matches('0');
        if kept.len() > 6 {
            return None;
        }
        let micros: i64 = format!("{kept:0<6}").parse().ok()?;
        whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(micros).map(Self)
    }

    /// The amount as a decimal number of currency units without trailing zeros: `0.05`, `1`, `12.000001`.
    #[must_use]
    pub fn units(self) -> String {
        let (whole, fraction) = (self.0 / 1_000_000, (self.0 % 1_000_000).unsigned_abs());
        let sign = if self.0 < 0 && whole == 0 { "-" } else { "" };
        if fraction == 0 {
            return format!("{sign}{whole}");
        }
        let digits = format!("{fraction:06}");
        format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The marketplace's share, in millionths of the charged amount: 0.049 is 49 000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeeRate(pub u32);

impl FeeRate {
    /// Splits a charge. The fee is half-up; the seller receives the rest, so the parts always add up.
    #[must_use]
    pub fn split(self, charged: Micros) -> Split {
        let product = i128::from(charged.0) * i128::from(self.0.min(1_000_000));
        let fee = i64::try_from((product + 500_000).div_euclid(1_000_000)).unwrap_or(charged.0);
        let fee = Micros(fee.min(charged.0.max(0)));
        Split { charged, fee, seller: Micros(charged.0 - fee.0) }
    }

    /// The rate as a decimal number, as the wire shows it: `0.049`.
    #[must_use]
    pub fn decimal(self) -> String {
        Micros(i64::from(self.0)).units()
    }
}

impl FromStr for FeeRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let micros = Micros::parse_units(text).ok_or("a decimal number with at most 6 decimals")?;
        u32::try_from(micros.0).ok().filter(|ppm| *ppm < 1_000_000).map(Self).ok_or("from 0 to below 1")
    }
}

/// A charge and its two parts; `fee + seller = charged`, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// What the buyer pays.
    pub charged: Micros,
    /// What the marketplace keeps.
    pub fee: Micros,
    /// What the seller receives.
    pub seller: Micros,
}

impl Split {
    /// The seller's cents for the eye: charged cents less fee cents, so that the cents shown add up too.
    #[must_use]
    pub fn seller_cents(&self) -> i64 {
        self.charged.cents() - self.fee.cents()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_reference_case() {
        let split = FeeRate(49_000).split(Micros(1_000_000));
        assert_eq!((split.charged.cents(), split.fee.cents(), split.seller_cents()), (100, 5, 95));
        assert_eq!((split.fee, split.seller), (Micros(49_000), Micros(951_000)));
        assert_eq!(FeeRate(49_000).decimal(), "0.049");
        assert_eq!("0.049".parse(), Ok(FeeRate(49_000)));
    }

    #[test]
    fn decimal_text_only() {
        assert_eq!(Micros::parse_units("1.00"), Some(Micros(1_000_000)));
        assert_eq!(Micros::parse_units("0.000001"), Some(Micros(1)));
        assert_eq!(Micros::parse_units("1.0000010000"), Some(Micros(1_000_001)));
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1.0000001", " 1", "0x1", "9999999999999", "NaN", "１"] {
            assert_eq!(Micros::parse_units(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn f10_fee_and_seller_add_up_for_all_amounts(charged in 0i64..=i64::MAX, ppm in 0u32..1_000_000) {
            let split = FeeRate(ppm).split(Micros(charged));
            prop_assert_eq!(i128::from(split.fee.0) + i128::from(split.seller.0), i128::from(charged));
            prop_assert!(split.fee.0 >= 0 && split.seller.0 >= 0);
        }

        #[test]
        fn units_round_trip(micros in 0i64..=Micros::PRICE_MAX.0) {
            prop_assert_eq!(Micros::parse_units(&Micros(micros).units()), Some(Micros(micros)));
        }
    }
}
