//! Keys: binary, big-endian, each with a tag of its kind in front, so that a range is scanned in the order of its
//! parts. Nothing else in the backend puts bytes of a key together.

use fjall::Slice;
use sha2::{Digest, Sha256};

use crate::{
    model::{
        ApiKeyId, CategoryId, ChainFamily, Day, ListingId, Look, PaymentId, ProfileId, ReviewId, UnixMillis, WalletId,
    },
    store::QuoteIdentity,
};

/// Which keyspace a key lives in. Results have keyspaces of their own, one a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    /// Payments, and everything that is written with them.
    Money,
    /// Profiles, keys, listings.
    Market,
    /// The store's own facts.
    Meta,
}

/// A key and where it lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Its keyspace.
    pub(crate) space: Space,
    /// Its bytes.
    pub(crate) bytes: Slice,
}

/// Keys from `from` on, before `to`.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    /// Their keyspace.
    pub(crate) space: Space,
    /// The first.
    pub(crate) from: Vec<u8>,
    /// The first one past the end.
    pub(crate) to: Vec<u8>,
}

macro_rules! tags {
    ($($name:ident = $byte:literal),* $(,)?) => {
        /// The kinds of keys, each with the byte that it begins with. Never reuse one: old stores have them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Tag { $($name = $byte),* }

        impl Tag {
            /// The kind of a key that begins with this byte.
            pub(crate) fn of(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

tags! {
    Payment = 1,
    Delta = 2,
    QuoteIdentity = 3,
    IdempotencyKey = 4,
    Proof = 5,
    Unpaid = 6,
    Forget = 7,
    Pointer = 8,
    Sandbox = 10,
    Intent = 13,
    Note = 20,
    Spend = 24,
    Reservation = 25,
    ReservationEnd = 26,
    Refund = 27,
    Profile = 32,
    Wallet = 33,
    WalletOf = 34,
    ApiKey = 35,
    ApiKeyOf = 36,
    Nonce = 37,
    NonceEnd = 38,
    Secret = 39,
    ClaimedBy = 40,
    Human = 41,
    Email = 42,
    Session = 43,
    SessionEnd = 44,
    Category = 48,
    Listing = 49,
    Endpoint = 50,
    Slug = 51,
    ListingOf = 52,
    Challenge = 53,
    Meta = 64,
    Tally = 80,
    Sums = 81,
    Bought = 82,
    BuyerOf = 83,
    Standing = 84,
    ScoreDue = 85,
    Score = 86,
    Review = 87,
    ReviewOf = 88,
    Ratings = 89,
    Paid = 96,
    Swept = 97,
    PutOff = 98,
    PutOffUntil = 99,
    Payout = 100,
    PaidOutUntil = 101,
    Cut = 102,
}

fn join(tag: Tag, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.push(tag as u8);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

fn key(space: Space, tag: Tag, parts: &[&[u8]]) -> Key {
    Key { space, bytes: Slice::from(join(tag, parts)) }
}

/// All keys that begin with these parts.
fn prefix(space: Space, tag: Tag, parts: &[&[u8]]) -> Range {
    let from = join(tag, parts);
    let to = after(&from);
    Range { space, from, to }
}

/// The first key past all that begin with `bytes`; a tag is never 255, so there is one.
fn after(bytes: &[u8]) -> Vec<u8> {
    let mut end = bytes.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        // A length before each part: no two lists of parts run together to the same bytes.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The 16 bytes of an id, turned around: the newest comes first in a forward scan.
pub(crate) fn newest_first(id: [u8; 16]) -> [u8; 16] {
    id.map(|byte| !byte)
}

/// In which order the keys of one batch become visible: a payment's record before its delta goes, and what others
/// name before those that name it. Results come before all of them.
pub(crate) fn visible_after(key: &Key) -> u8 {
    const PAYMENT: u8 = Tag::Payment as u8;
    const DELTA: u8 = Tag::Delta as u8;
    match key.bytes.first() {
        Some(&PAYMENT) => 1,
        Some(&DELTA) => 2,
        _ => 3,
    }
}

/// A payment's record.
pub(crate) fn payment(id: PaymentId) -> Key {
    key(Space::Money, Tag::Payment, &[&id.bytes()])
}

/// All payments, oldest first.
pub(crate) fn payments() -> Range {
    prefix(Space::Money, Tag::Payment, &[])
}

/// A refund of a payment.
pub(crate) fn refund(id: PaymentId, number: u32) -> Key {
    key(Space::Money, Tag::Refund, &[&id.bytes(), &number.to_be_bytes()])
}

/// The refunds of a payment, oldest first.
pub(crate) fn refunds(id: PaymentId) -> Range {
    prefix(Space::Money, Tag::Refund, &[&id.bytes()])
}

/// A payout to a seller.
pub(crate) fn payout(seller: ProfileId, number: u32) -> Key {
    key(Space::Money, Tag::Payout, &[&seller.bytes(), &number.to_be_bytes()])
}

/// The payouts of a seller, oldest first.
pub(crate) fn payouts(seller: ProfileId) -> Range {
    prefix(Space::Money, Tag::Payout, &[&seller.bytes()])
}

/// The payouts of all sellers.
pub(crate) fn all_payouts() -> Range {
    prefix(Space::Money, Tag::Payout, &[])
}

/// The event up to which a seller's earnings are paid out, or are being.
pub(crate) fn paid_out_until(seller: ProfileId) -> Key {
    key(Space::Money, Tag::PaidOutUntil, &[&seller.bytes()])
}

/// The last of these events over all sellers: nothing is minted at or before it.
pub(crate) fn cut() -> Key {
    key(Space::Money, Tag::Cut, &[])
}

/// What changed of a payment that is under way.
pub(crate) fn delta(id: PaymentId) -> Key {
    key(Space::Money, Tag::Delta, &[&id.bytes()])
}

/// All payments under way, oldest first.
pub(crate) fn deltas() -> Range {
    prefix(Space::Money, Tag::Delta, &[])
}

/// Payments under way whose quotes were made before `end`, oldest first.
pub(crate) fn deltas_before(end: UnixMillis) -> Range {
    Range { space: Space::Money, from: join(Tag::Delta, &[]), to: join(Tag::Delta, &[&first_id_at(end)]) }
}

/// Payments whose money moved, as a roll-up at this moment found them; `n` counts its rows.
pub(crate) fn paid(at: UnixMillis, sequence: u64, n: usize) -> Key {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    key(Space::Money, Tag::Paid, &[&at.0.to_be_bytes(), &sequence.to_be_bytes(), &n.to_be_bytes()])
}

/// Those that roll-ups before `end` found.
pub(crate) fn paid_range(end: UnixMillis) -> Range {
    moments(Space::Money, Tag::Paid, UnixMillis(0), end)
}

/// How far a look at a kind of work has come: the key of the last row that was done. The last of all looks has a
/// place of its own, however many there are before it.
pub(crate) fn swept(kind: u8, look: Look) -> Key {
    let look = if look.is_last { u8::MAX } else { look.number };
    key(Space::Money, Tag::Swept, &[&[kind, look]])
}

/// A payment that was put off, by the moment until which.
pub(crate) fn put_off(due: UnixMillis, id: PaymentId) -> Key {
    key(Space::Money, Tag::PutOff, &[&due.0.to_be_bytes(), &id.bytes()])
}

/// Payments that were put off until before `end`.
pub(crate) fn put_off_range(end: UnixMillis) -> Range {
    moments(Space::Money, Tag::PutOff, UnixMillis(0), end)
}

/// Until when a payment was put off.
pub(crate) fn put_off_until(id: PaymentId) -> Key {
    key(Space::Money, Tag::PutOffUntil, &[&id.bytes()])
}

/// The open quote of a question asked without a key.
pub(crate) fn quote_identity(identity: &QuoteIdentity) -> Key {
    let digest = hash(&[
        &identity.buyer.bytes(),
        &identity.listing.bytes(),
        &identity.body_sha256,
        identity.currency.name().as_bytes(),
    ]);
    key(Space::Money, Tag::QuoteIdentity, &[&digest])
}

/// The purchase that a buyer's idempotency key names.
pub(crate) fn idempotency_key(buyer: ProfileId, text: &str) -> Key {
    key(Space::Money, Tag::IdempotencyKey, &[&hash(&[&buyer.bytes(), text.as_bytes()])])
}

/// Which payment a piece of money was recorded for.
pub(crate) fn proof(proof_key: &str) -> Key {
    key(Space::Money, Tag::Proof, &[&hash(&[proof_key.as_bytes()])])
}

/// What was signed for a payment.
pub(crate) fn intent(id: PaymentId) -> Key {
    key(Space::Money, Tag::Intent, &[&id.bytes()])
}

/// An unpaid quote, by its expiry.
pub(crate) fn unpaid(expires_at: UnixMillis, id: PaymentId) -> Key {
    key(Space::Money, Tag::Unpaid, &[&expires_at.0.to_be_bytes(), &id.bytes()])
}

/// Unpaid quotes that expire from `from` on, before `to`.
pub(crate) fn unpaid_range(from: UnixMillis, to: UnixMillis) -> Range {
    moments(Space::Money, Tag::Unpaid, from, to)
}

/// A key whose purchase ended, by the moment when it is forgotten.
pub(crate) fn forget(due: UnixMillis, id: PaymentId) -> Key {
    key(Space::Money, Tag::Forget, &[&due.0.to_be_bytes(), &id.bytes()])
}

/// Keys to forget before `to`.
pub(crate) fn forget_range(to: UnixMillis) -> Range {
    moments(Space::Money, Tag::Forget, UnixMillis(0), to)
}

/// What a capped key has agreed to on a day; by day, so that days that are over are dropped as a range.
pub(crate) fn spend(day: Day, key_id: ApiKeyId) -> Key {
    key(Space::Money, Tag::Spend, &[&day.0.to_be_bytes(), &key_id.bytes()])
}

/// What capped keys agreed to on days before `end`.
pub(crate) fn spend_range(end: Day) -> Range {
    Range { space: Space::Money, from: join(Tag::Spend, &[]), to: join(Tag::Spend, &[&end.0.to_be_bytes()]) }
}

/// What a quote takes of the days of capped keys.
pub(crate) fn reservation(id: PaymentId) -> Key {
    key(Space::Money, Tag::Reservation, &[&id.bytes()])
}

/// A quote that takes of a capped key's day, by its expiry.
pub(crate) fn reservation_end(expires_at: UnixMillis, id: PaymentId) -> Key {
    key(Space::Money, Tag::ReservationEnd, &[&expires_at.0.to_be_bytes(), &id.bytes()])
}

/// Those that expire before `to`.
pub(crate) fn reservation_end_range(to: UnixMillis) -> Range {
    moments(Space::Money, Tag::ReservationEnd, UnixMillis(0), to)
}

fn moments(space: Space, tag: Tag, from: UnixMillis, to: UnixMillis) -> Range {
    Range { space, from: join(tag, &[&from.0.to_be_bytes()]), to: join(tag, &[&to.0.to_be_bytes()]) }
}

/// The moment and the 16 bytes in the key of [`unpaid`] or [`forget`].
pub(crate) fn moment_and_id(bytes: &[u8]) -> Option<(UnixMillis, [u8; 16])> {
    let moment = bytes.get(1..9)?.try_into().ok()?;
    Some((UnixMillis(u64::from_be_bytes(moment)), bytes.get(9..)?.try_into().ok()?))
}

/// A row of a party's history, newest first.
pub(crate) fn pointer(party: ProfileId, event: [u8; 16]) -> Key {
    key(Space::Money, Tag::Pointer, &[&party.bytes(), &newest_first(event)])
}

/// The rows of all parties' histories.
pub(crate) fn all_pointers() -> Range {
    prefix(Space::Money, Tag::Pointer, &[])
}

/// The event's id in the key of [`pointer`].
pub(crate) fn event_of_pointer(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.get(17..)?.try_into().ok().map(newest_first)
}

/// A party's rows, newest first: from `newest` (all when `None`) down to the moment `from`, before the moment `to`.
pub(crate) fn pointers(
    party: ProfileId,
    newest: Option<[u8; 16]>,
    from: Option<UnixMillis>,
    to: Option<UnixMillis>,
) -> Range {
    let party = party.bytes();
    let mut range = prefix(Space::Money, Tag::Pointer, &[&party]);
    // An event's id begins with 48 bits of its moment; `to` leaves out the whole millisecond that it names.
    if let Some(to) = to {
        range.from = join(Tag::Pointer, &[&party, &newest_first(first_id_at(to))]);
    }
    if let Some(event) = newest {
        range.from = range.from.max(join(Tag::Pointer, &[&party, &newest_first(event)]));
    }
    if let Some(from) = from {
        range.to = after(&join(Tag::Pointer, &[&party, &newest_first(first_id_at(from))]));
    }
    if range.to < range.from {
        range.to = range.from.clone();
    }
    range
}

fn first_id_at(moment: UnixMillis) -> [u8; 16] {
    // Past 48 bits (the year 10889) there are no ids: the largest stands in.
    ((u128::from(moment.0.min((1 << 48) - 1))) << 80).to_be_bytes()
}

/// The sandbox's record of a payment.
pub(crate) fn sandbox(id: PaymentId) -> Key {
    key(Space::Money, Tag::Sandbox, &[&id.bytes()])
}

/// A profile.
pub(crate) fn profile(id: ProfileId) -> Key {
    key(Space::Market, Tag::Profile, &[&id.bytes()])
}

/// A wallet, by what makes it unique.
pub(crate) fn wallet(family: ChainFamily, address: &[u8]) -> Key {
    let family = match family {
        ChainFamily::Evm => 1u8,
        ChainFamily::Solana => 2,
    };
    key(Space::Market, Tag::Wallet, &[&[family], address])
}

/// A profile's wallet; its value is the wallet's own key.
pub(crate) fn wallet_of(profile: ProfileId, id: WalletId) -> Key {
    key(Space::Market, Tag::WalletOf, &[&profile.bytes(), &id.bytes()])
}

/// A profile's wallets, oldest first.
pub(crate) fn wallets_of(profile: ProfileId) -> Range {
    prefix(Space::Market, Tag::WalletOf, &[&profile.bytes()])
}

/// An API key's record, by the key's SHA-256.
pub(crate) fn api_key(sha256: &[u8; 32]) -> Key {
    key(Space::Market, Tag::ApiKey, &[sha256])
}

/// A profile's API key; its value is the record's own key.
pub(crate) fn api_key_of(profile: ProfileId, id: ApiKeyId) -> Key {
    key(Space::Market, Tag::ApiKeyOf, &[&profile.bytes(), &id.bytes()])
}

/// A profile's API keys, oldest first.
pub(crate) fn api_keys_of(profile: ProfileId) -> Range {
    prefix(Space::Market, Tag::ApiKeyOf, &[&profile.bytes()])
}

/// A key that was kept as a value.
pub(crate) fn stored(bytes: Slice) -> Key {
    Key { space: Space::Market, bytes }
}

/// A used nonce.
pub(crate) fn nonce(sha256: &[u8; 32]) -> Key {
    key(Space::Market, Tag::Nonce, &[sha256])
}

/// A used nonce, by its end.
pub(crate) fn nonce_end(until: UnixMillis, sha256: &[u8; 32]) -> Key {
    key(Space::Market, Tag::NonceEnd, &[&until.0.to_be_bytes(), sha256])
}

/// Nonces that end before `to`.
pub(crate) fn nonce_end_range(to: UnixMillis) -> Range {
    moments(Space::Market, Tag::NonceEnd, UnixMillis(0), to)
}

/// The moment and the SHA-256 in the key of [`nonce_end`] or [`session_end`].
pub(crate) fn moment_and_nonce(bytes: &[u8]) -> Option<(UnixMillis, [u8; 32])> {
    let moment = bytes.get(1..9)?.try_into().ok()?;
    Some((UnixMillis(u64::from_be_bytes(moment)), bytes.get(9..)?.try_into().ok()?))
}

/// An agent that a human claimed.
pub(crate) fn claimed_by(human: ProfileId, agent: ProfileId) -> Key {
    key(Space::Market, Tag::ClaimedBy, &[&human.bytes(), &agent.bytes()])
}

/// A human's agents, oldest first; their values are the profiles' own keys.
pub(crate) fn agents_of(human: ProfileId) -> Range {
    prefix(Space::Market, Tag::ClaimedBy, &[&human.bytes()])
}

/// A human's account.
pub(crate) fn human(profile: ProfileId) -> Key {
    key(Space::Market, Tag::Human, &[&profile.bytes()])
}

/// An e-mail address; its value is the account's own key.
pub(crate) fn email(text: &str) -> Key {
    key(Space::Market, Tag::Email, &[text.as_bytes()])
}

/// A session.
pub(crate) fn session(id_sha256: &[u8; 32]) -> Key {
    key(Space::Market, Tag::Session, &[id_sha256])
}

/// A session, by its end.
pub(crate) fn session_end(ends_at: UnixMillis, id_sha256: &[u8; 32]) -> Key {
    key(Space::Market, Tag::SessionEnd, &[&ends_at.0.to_be_bytes(), id_sha256])
}

/// Sessions that end before `to`.
pub(crate) fn session_end_range(to: UnixMillis) -> Range {
    moments(Space::Market, Tag::SessionEnd, UnixMillis(0), to)
}

/// A secret that is drawn once.
pub(crate) fn secret(name: &str) -> Key {
    key(Space::Market, Tag::Secret, &[name.as_bytes()])
}

/// All secrets that are drawn once.
pub(crate) fn secrets() -> Range {
    prefix(Space::Market, Tag::Secret, &[])
}

/// The name in the key of [`secret`]; `None` for any other key.
pub(crate) fn secret_name(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_prefix(&[Tag::Secret as u8])?).ok()
}

/// A category.
pub(crate) fn category(id: CategoryId) -> Key {
    key(Space::Market, Tag::Category, &[&id.bytes()])
}

/// All categories.
pub(crate) fn categories() -> Range {
    prefix(Space::Market, Tag::Category, &[])
}

/// A listing.
pub(crate) fn listing(id: ListingId) -> Key {
    key(Space::Market, Tag::Listing, &[&id.bytes()])
}

/// All listings after `after`, by id.
pub(crate) fn listings(from: Option<ListingId>) -> Range {
    let mut range = prefix(Space::Market, Tag::Listing, &[]);
    if let Some(id) = from {
        range.from = after(&join(Tag::Listing, &[&id.bytes()]));
    }
    range
}

/// A listing's endpoint.
pub(crate) fn endpoint(id: ListingId) -> Key {
    key(Space::Market, Tag::Endpoint, &[&id.bytes()])
}

/// The listing in the key of [`endpoint`]; `None` for any other key.
pub(crate) fn endpoint_listing(bytes: &[u8]) -> Option<ListingId> {
    bytes.strip_prefix(&[Tag::Endpoint as u8])?.try_into().ok().map(ListingId::from_bytes)
}

/// All endpoints.
pub(crate) fn endpoints() -> Range {
    prefix(Space::Market, Tag::Endpoint, &[])
}

/// The first key past `bytes` itself: where a scan goes on.
pub(crate) fn next_after(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0]].concat()
}

/// The listing with a slug.
pub(crate) fn slug(text: &str) -> Key {
    key(Space::Market, Tag::Slug, &[text.as_bytes()])
}

/// A seller's listing, newest first.
pub(crate) fn listing_of(seller: ProfileId, id: ListingId) -> Key {
    key(Space::Market, Tag::ListingOf, &[&seller.bytes(), &newest_first(id.bytes())])
}

/// A seller's listings, newest first.
pub(crate) fn listings_of(seller: ProfileId) -> Range {
    prefix(Space::Market, Tag::ListingOf, &[&seller.bytes()])
}

/// The id in the key of [`listing_of`].
pub(crate) fn listing_of_id(bytes: &[u8]) -> Option<ListingId> {
    bytes.get(17..)?.try_into().ok().map(newest_first).map(ListingId::from_bytes)
}

/// A seller's open challenge.
pub(crate) fn challenge(seller: ProfileId) -> Key {
    key(Space::Market, Tag::Challenge, &[&seller.bytes()])
}

/// What one commit told the roll-ups.
pub(crate) fn note(sequence: u64) -> Key {
    key(Space::Money, Tag::Note, &[&sequence.to_be_bytes()])
}

/// What commits told the roll-ups, from commit `from` on, in order.
pub(crate) fn notes(from: u64) -> Range {
    let mut range = prefix(Space::Money, Tag::Note, &[]);
    range.from = join(Tag::Note, &[&from.to_be_bytes()]);
    range
}

/// The commit in the key of [`note`].
pub(crate) fn sequence_of_note(bytes: &[u8]) -> Option<u64> {
    bytes.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

/// What the calls to a listing came to.
pub(crate) fn tally(listing: ListingId) -> Key {
    key(Space::Market, Tag::Tally, &[&listing.bytes()])
}

/// A party's sums.
pub(crate) fn sums(party: ProfileId) -> Key {
    key(Space::Market, Tag::Sums, &[&party.bytes()])
}

/// The sums of all parties behind one.
pub(crate) fn all_sums(after: Option<ProfileId>) -> Range {
    let mut range = prefix(Space::Market, Tag::Sums, &[]);
    if let Some(party) = after {
        range.from = [&join(Tag::Sums, &[&party.bytes()])[..], &[0]].concat();
    }
    range
}

/// What a buyer bought of a listing.
pub(crate) fn bought(listing: ListingId, buyer: ProfileId) -> Key {
    key(Space::Market, Tag::Bought, &[&listing.bytes(), &buyer.bytes()])
}

/// When a buyer last bought of a seller.
pub(crate) fn buyer_of(seller: ProfileId, buyer: ProfileId) -> Key {
    key(Space::Market, Tag::BuyerOf, &[&seller.bytes(), &buyer.bytes()])
}

/// What a profile's score is made of.
pub(crate) fn standing(profile: ProfileId) -> Key {
    key(Space::Market, Tag::Standing, &[&profile.bytes()])
}

/// A profile whose score is due.
pub(crate) fn score_due(profile: ProfileId) -> Key {
    key(Space::Market, Tag::ScoreDue, &[&profile.bytes()])
}

/// Profiles whose scores are due, after `from`.
pub(crate) fn scores_due(from: Option<ProfileId>) -> Range {
    ids_after(Tag::ScoreDue, from.map(ProfileId::bytes))
}

/// All profiles after `from`, by id.
pub(crate) fn profiles(from: Option<ProfileId>) -> Range {
    ids_after(Tag::Profile, from.map(ProfileId::bytes))
}

fn ids_after(tag: Tag, from: Option<[u8; 16]>) -> Range {
    let mut range = prefix(Space::Market, tag, &[]);
    if let Some(id) = from {
        range.from = after(&join(tag, &[&id]));
    }
    range
}

/// A profile's score.
pub(crate) fn score(profile: ProfileId) -> Key {
    key(Space::Market, Tag::Score, &[&profile.bytes()])
}

/// A buyer's review of a listing: one.
pub(crate) fn review(listing: ListingId, reviewer: ProfileId) -> Key {
    key(Space::Market, Tag::Review, &[&listing.bytes(), &reviewer.bytes()])
}

/// A listing's review, newest first; its value is the review's own key.
pub(crate) fn review_of(listing: ListingId, id: ReviewId) -> Key {
    key(Space::Market, Tag::ReviewOf, &[&listing.bytes(), &newest_first(id.bytes())])
}

/// A listing's reviews, newest first.
pub(crate) fn reviews_of(listing: ListingId) -> Range {
    prefix(Space::Market, Tag::ReviewOf, &[&listing.bytes()])
}

/// What a listing's reviews came to.
pub(crate) fn ratings(listing: ListingId) -> Key {
    key(Space::Market, Tag::Ratings, &[&listing.bytes()])
}

/// The id at the end of a key.
pub(crate) fn last_id(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.last_chunk::<16>().copied()
}

/// Counts the commits. Among the money, which is written all the time: in a keyspace that is hardly ever flushed it
/// would hold on to every journal.
pub(crate) fn commit_sequence() -> Key {
    key(Space::Money, Tag::Meta, &[b"commit_sequence"])
}

/// The limit of a memtable that the store was made with.
pub(crate) fn memtable_bytes() -> Key {
    key(Space::Meta, Tag::Meta, &[b"memtable_bytes"])
}

/// Which master keys are in use, and whether what was written before must still be wiped out of the files.
pub(crate) fn sealing() -> Key {
    key(Space::Meta, Tag::Meta, &[b"sealing"])
}

/// Overwritten and removed to move the journal on.
pub(crate) fn filler() -> Key {
    key(Space::Meta, Tag::Meta, &[b"filler"])
}

/// The node, and its latest life.
pub(crate) fn owner() -> Key {
    key(Space::Meta, Tag::Meta, &[b"owner"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_run_from_new_to_old_within_their_moments() {
        let party = ProfileId::mint(UnixMillis(1));
        let at = |ms: u64| PaymentId::mint(UnixMillis(ms)).bytes();
        let keys: Vec<_> = [1000, 2000, 3000].map(|ms| (ms, pointer(party, at(ms)).bytes)).into();
        let within = |from: Option<u64>, to: Option<u64>| {
            let range = pointers(party, None, from.map(UnixMillis), to.map(UnixMillis));
            let mut found: Vec<_> = keys.iter().filter(|(_, key)| **key >= *range.from && **key < *range.to).collect();
            found.sort_by(|a, b| a.1.cmp(&b.1));
            found.into_iter().map(|(ms, _)| *ms).collect::<Vec<_>>()
        };
        assert_eq!(within(None, None), [3000, 2000, 1000]);
        assert_eq!(within(Some(2000), None), [3000, 2000]);
        assert_eq!(within(None, Some(2000)), [1000]);
        assert_eq!(within(Some(1500), Some(2500)), [2000]);
        assert_eq!(within(Some(2500), Some(1500)), Vec::<u64>::new());
    }

    #[test]
    fn parts_come_back_out_of_keys() {
        let (payment, listing) = (PaymentId::mint(UnixMillis(7)), ListingId::mint(UnixMillis(8)));
        let seller = ProfileId::mint(UnixMillis(9));
        assert_eq!(moment_and_id(&unpaid(UnixMillis(5), payment).bytes), Some((UnixMillis(5), payment.bytes())));
        assert_eq!(event_of_pointer(&pointer(seller, payment.bytes()).bytes), Some(payment.bytes()));
        assert_eq!(listing_of_id(&listing_of(seller, listing).bytes), Some(listing));
        let nonce = [7; 32];
        assert_eq!(moment_and_nonce(&nonce_end(UnixMillis(6), &nonce).bytes), Some((UnixMillis(6), nonce)));
        assert_eq!(moment_and_id(&[1, 2]), None);
    }
}
