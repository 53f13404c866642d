//! The endpoint of a listing, for its owner.

use std::{sync::Arc, time::Duration};

use actors::{
    keys::Caller,
    refusal::{Code, Refusal},
    seller::new_secret_key,
};
use storage::model::{Endpoint, PreviousSecret, SigningSecret, UnixMillis};

use super::{
    endpoint_input::{EndpointEdit, EndpointInput, read_overlap},
    owned::{self, Edit},
    view::EndpointView,
};
use crate::{extract::Ask, reply::Reply};

/// `GET /listings/:id/endpoint`.
pub(crate) async fn show(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let offer = owned::find_own(&ask.door, &caller, ask.segment("id")).await?;
    let endpoint = offer.endpoint.ok_or(Code::NotFound)?;
    Reply::ok(EndpointView::new(&ask.door, &endpoint, ask.now))
}

/// `PUT /listings/:id/endpoint`.
pub(crate) async fn put(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let door = &ask.door;
    let input = ask.fields(|f| Some(EndpointInput::read_with_status(f, door)))?;
    let edit = owned::change(door, &caller, ask.segment("id"), |offer| {
        let edit = input.apply(offer.listing.id, offer.endpoint, ask.now)?;
        let written = match &edit {
            EndpointEdit::None => return Err(Code::NotFound.into()),
            EndpointEdit::Same(_) => Edit::Nothing,
            EndpointEdit::Changed(endpoint) => Edit::Endpoint(Box::new(endpoint.clone())),
            EndpointEdit::Made(endpoint) => {
                let mut listing = offer.listing;
                listing.updated_at = ask.now;
                Edit::Listing(Box::new(listing), Some(Box::new(endpoint.clone())))
            }
        };
        Ok((written, edit))
    })
    .await?;
    let endpoint = edit.endpoint().ok_or(Code::NotFound)?;
    let view = EndpointView::new(door, endpoint, ask.now);
    Reply::ok(if matches!(edit, EndpointEdit::Made(_)) { view.with_secret(endpoint) } else { view })
}

/// `POST /listings/:id/endpoint/rotate-secret`.
pub(crate) async fn rotate_secret(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let door = &ask.door;
    let overlap = Duration::from_secs(ask.fields(read_overlap)?);
    let key = new_secret_key().map_err(|_| Code::Internal)?;
    let endpoint = owned::change(door, &caller, ask.segment("id"), |offer| {
        let endpoint = rotated(offer.endpoint.ok_or(Code::NotFound)?, key, overlap, ask.now);
        Ok((Edit::Endpoint(Box::new(endpoint.clone())), endpoint))
    })
    .await?;
    Reply::ok(EndpointView::new(door, &endpoint, ask.now).with_secret(&endpoint))
}

/// The new secret signs from now on, the last one along with it for the overlap; one before that is dropped.
fn rotated(mut endpoint: Endpoint, key: [u8; 32], overlap: Duration, now: UnixMillis) -> Endpoint {
    let old = std::mem::replace(&mut endpoint.secret, SigningSecret { key, created_at: now });
    let signs_along = !overlap.is_zero();
    endpoint.previous_secret = signs_along.then(|| PreviousSecret { secret: old, expires_at: now.plus(overlap) });
    endpoint
}
