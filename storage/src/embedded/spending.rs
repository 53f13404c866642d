//! What capped keys may still agree to: a sum for each key and day, and for each quote what it took of which days. A
//! quote that expires unpaid gives back; only the settlement of an expired quote looks whether it must take again, so
//! that no payment in time is dearer for it.

use super::{draft::Draft, keys};
use crate::{
    error::StoreResult,
    model::{Day, Micros, PaymentId, PaymentState, Quote, Reservation, SpendCap, UnixMillis},
};

/// Days whose sums are kept after their end: a quote made at midnight gives back on the next day.
const DAYS_KEPT: u32 = 2;

/// What came of asking for a price.
pub(crate) enum Reserved {
    /// It is taken, or was before.
    Yes,
    /// It is above what is left.
    OverCap(Micros),
}

/// Takes a quote's price from the key's day, once.
pub(crate) fn reserve(draft: &mut Draft<'_>, quote: &Quote, cap: SpendCap) -> StoreResult<Reserved> {
    let place = keys::reservation(quote.id);
    let mut taken: Vec<Reservation> = draft.read(WHAT, &place)?.unwrap_or_default();
    if taken.iter().any(|known| known.key == cap.key && !known.given_back) {
        return Ok(Reserved::Yes);
    }
    let day = Day::of(draft.now);
    let spent = spent(draft, day, cap)?;
    match spent.checked_add(quote.price) {
        Some(sum) if sum <= cap.max => draft.write(keys::spend(day, cap.key), &sum)?,
        _ => return Ok(Reserved::OverCap(spent)),
    }
    taken.retain(|known| known.key != cap.key);
    taken.push(Reservation { key: cap.key, day, price: quote.price, given_back: false });
    draft.write(place, &taken)?;
    draft.put(keys::reservation_end(quote.expires_at, quote.id), fjall::Slice::from(&[] as &[u8]));
    Ok(Reserved::Yes)
}

const WHAT: &str = "reservations of a quote";

fn spent(draft: &Draft<'_>, day: Day, cap: SpendCap) -> StoreResult<Micros> {
    Ok(draft.read("spending of a day", &keys::spend(day, cap.key))?.unwrap_or(Micros::ZERO))
}

/// A quote's time is over: unpaid, it gives back; paid, it counts for good.
pub(crate) fn expire(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<()> {
    let place = keys::reservation(id);
    let Some(mut taken) = draft.read::<Vec<Reservation>>(WHAT, &place)? else { return Ok(()) };
    let unpaid = match draft.payment(id)? {
        None => true,
        Some(payment) => {
            matches!(payment.progress.state, PaymentState::Quoted | PaymentState::Failed)
                && payment.progress.evidence.is_empty()
        }
    };
    if !unpaid {
        draft.remove(place);
        return Ok(());
    }
    for reservation in taken.iter_mut().filter(|reservation| !reservation.given_back) {
        add(draft, reservation.day, *reservation, Micros(-reservation.price.0))?;
        reservation.given_back = true;
    }
    draft.write(place, &taken)
}

/// An expired quote was paid after all: what it gave back is taken again, from the day when the money came.
pub(crate) fn take_again(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<()> {
    let place = keys::reservation(id);
    let Some(taken) = draft.read::<Vec<Reservation>>(WHAT, &place)? else { return Ok(()) };
    let today = Day::of(draft.now);
    for reservation in taken.iter().filter(|reservation| reservation.given_back) {
        add(draft, today, *reservation, reservation.price)?;
    }
    draft.remove(place);
    Ok(())
}

/// Changes a day's sum, which never goes below nothing.
fn add(draft: &mut Draft<'_>, day: Day, of: Reservation, amount: Micros) -> StoreResult<()> {
    let cap = SpendCap { key: of.key, max: Micros::ZERO };
    let sum = spent(draft, day, cap)?.0.saturating_add(amount.0).max(0);
    draft.write(keys::spend(day, of.key), &Micros(sum))
}

/// Days before this one are over for good.
pub(crate) fn days_kept(now: UnixMillis) -> Day {
    Day(Day::of(now).0.saturating_sub(DAYS_KEPT))
}
