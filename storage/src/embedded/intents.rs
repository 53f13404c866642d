//! What buyers signed and nobody has moved yet, as far as is known here.

use fjall::Slice;

use super::{draft::Draft, keys, steps};
use crate::{
    error::StoreResult,
    model::{Intent, Payment, PaymentId},
    store::Intended,
};

/// What damage is reported of.
pub(crate) const WHAT: &str = "what was signed for a payment";

/// Records what was signed, its proof, the buyer's name for it, and that the payment is pending.
pub(crate) fn intend(draft: &mut Draft<'_>, id: PaymentId, intent: &Intent) -> StoreResult<Intended> {
    let Some(before) = draft.payment(id)? else { return Ok(Intended::NotFound) };
    if let Some(standing) = draft.read(WHAT, &keys::intent(id))? {
        return Ok(Intended::Standing(Box::new(standing), before));
    }
    let names = [Some(&intent.proof_key), intent.identifier.as_ref()];
    let names: Vec<_> = names.into_iter().flatten().map(|name| keys::proof(name)).collect();
    for name in &names {
        match draft.payment_id_at(name)? {
            Some(other) if other != id => return Ok(Intended::Used(other)),
            _ => {}
        }
    }
    let mut after = Payment::clone(&before);
    if !after.intend() {
        return Ok(Intended::Late(before));
    }
    for name in names {
        draft.put(name, Slice::from(&id.bytes()));
    }
    draft.write(keys::intent(id), intent)?;
    Ok(Intended::Recorded(steps::save(draft, &before, after)?))
}

/// A payment that was never paid is deleted: so is what was signed for it, and the names that led to it.
pub(crate) fn forget(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<()> {
    let Some(intent) = draft.read::<Intent>(WHAT, &keys::intent(id))? else { return Ok(()) };
    for name in [Some(intent.proof_key), intent.identifier].into_iter().flatten() {
        draft.remove(keys::proof(&name));
    }
    draft.remove(keys::intent(id));
    Ok(())
}
