//! Every record in words: a line of JSON each, out of one snapshot, while the store serves.
//!
//! The first line says of what store, the last one that nothing is missing, and how many there are of each kind. What is
//! sealed stays so, and neither password hashes nor what buyers signed is told.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    Shared,
    catalog::SlugOwner,
    codec::{decode, decode_sealed},
    draft::fold_payment,
    engine::{Engine, Snapshot},
    keys::{self, Tag},
    roll_up::Note,
    start,
    steps::Event,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        ApiKey, Bought, Category, Human, Intent, Listing, ListingChallenge, Micros, Owner, PaymentId, Payout,
        PostingId, Profile, ProfileId, Ratings, Refund, Reservation, Review, SandboxPayment, Score, Session, Standing,
        Sums, Tally, UnixMillis, Wallet,
    },
    sealed::SealedEndpoint,
    store::ExportReport,
};

/// Lines are handed on when they have come to so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// An array of at least so many bytes is written as hexadecimal digits.
const BYTES_MIN: usize = 16;

impl Shared {
    /// Tells everything; blocks the thread that calls it.
    ///
    /// # Errors
    /// `Unavailable` when nobody takes the lines any more, or the store was closed or reopened meanwhile.
    pub(super) fn export(&self, out: mpsc::Sender<Bytes>) -> StoreResult<ExportReport> {
        let engine = self.engine()?;
        let snapshot = engine.snapshot();
        let mut lines = Lines {
            out,
            piece: BytesMut::new(),
            records: BTreeMap::new(),
            bytes: 0,
            begun: Instant::now(),
            pace: self.config.backup_bytes_per_second,
        };
        let sequence = snapshot.sequence()?;
        let format = start::format(&self.path)?;
        lines.say(&json!({ "kind": "export", "format": format, "sequence": sequence, "about": snapshot.about() }))?;
        let mut entries = 0;
        for name in snapshot.names() {
            for entry in snapshot.entries(name) {
                let (key, value) = entry?;
                entries += 1;
                if let Some(record) = record(&snapshot, name, &key, &value)? {
                    lines.tell(record)?;
                }
                // A store that is being reopened waits for whoever holds its engine.
                self.still_open(&engine)?;
            }
        }
        drop((snapshot, engine));
        let files = self.tell_files(&mut lines)?;
        let records = std::mem::take(&mut lines.records);
        lines.say(&json!({ "kind": "end", "entries": entries, "files": files, "records": records }))?;
        lines.flush()?;
        Ok(ExportReport { entries, files, records })
    }

    /// The files of larger results, by name.
    fn tell_files(&self, lines: &mut Lines) -> StoreResult<u64> {
        let mut files = 0;
        let folders = fs::read_dir(start::results_path(&self.path)).into_iter().flatten().filter_map(Result::ok);
        for folder in folders {
            let found = fs::read_dir(folder.path()).into_iter().flatten().filter_map(Result::ok);
            for file in found {
                let Ok(metadata) = file.metadata() else { continue };
                files += 1;
                lines.tell(Record {
                    kind: "result_file",
                    key: json!({
                        "bucket": folder.file_name().to_string_lossy(), "name": file.file_name().to_string_lossy(),
                    }),
                    value: json!({ "bytes": metadata.len() }),
                })?;
            }
        }
        Ok(files)
    }

    fn still_open(&self, engine: &Arc<Engine>) -> StoreResult<()> {
        match &*self.engine.load() {
            Some(open) if Arc::ptr_eq(open, engine) => Ok(()),
            _ => Err(StoreError::Unavailable("the store was closed or reopened meanwhile; begin again".into())),
        }
    }
}

/// One line: what it is about, what its key says, and the record.
#[derive(Serialize)]
struct Record {
    kind: &'static str,
    key: Value,
    value: Value,
}

/// Lines on their way out, no faster than they may.
struct Lines {
    out: mpsc::Sender<Bytes>,
    piece: BytesMut,
    records: BTreeMap<&'static str, u64>,
    bytes: u64,
    begun: Instant,
    pace: u64,
}

impl Lines {
    fn tell(&mut self, record: Record) -> StoreResult<()> {
        *self.records.entry(record.kind).or_default() += 1;
        self.say(&record)
    }

    fn say<T: Serialize>(&mut self, line: &T) -> StoreResult<()> {
        let told = serde_json::to_writer((&mut self.piece).writer(), line);
        told.map_err(|error| StoreError::Corrupt(format!("a record that cannot be told: {error}")))?;
        self.piece.put_u8(b'\n');
        if self.piece.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> StoreResult<()> {
        let piece = self.piece.split().freeze();
        self.bytes += piece.len() as u64;
        self.out
            .blocking_send(piece)
            .map_err(|_| StoreError::Unavailable("nobody takes the export any more".into()))?;
        // The disk is the store's first of all.
        let due = Duration::from_millis(self.bytes.saturating_mul(1000) / self.pace.max(1));
        if let Some(early) = due.checked_sub(self.begun.elapsed()) {
            std::thread::sleep(early);
        }
        Ok(())
    }
}

/// The record of an entry; `None` for one that is told with another: a payment under way is told whole.
fn record(snapshot: &Snapshot, keyspace: &str, key: &[u8], value: &[u8]) -> StoreResult<Option<Record>> {
    let Some((tag, rest)) = key.split_first().filter(|_| !keyspace.starts_with("results-")) else {
        return result(keyspace, key, value).map(Some);
    };
    let Some(tag) = Tag::of(*tag) else {
        return Err(StoreError::Corrupt(format!("a key of a kind that is not known: {}", hex::encode(key))));
    };
    if tag == Tag::Delta {
        return Ok(None);
    }
    let (kind, parts) = shape(tag);
    let value = match tag {
        Tag::Payment => payment(snapshot, rest, value)?,
        Tag::Meta => meta(rest, value)?,
        tag => told(tag, kind, value)?,
    };
    Ok(Some(Record { kind, key: named(parts, rest), value: readable(value) }))
}

/// A kept answer: its bytes are its buyer's, and stand in a backup.
fn result(keyspace: &str, key: &[u8], value: &[u8]) -> StoreResult<Record> {
    let id: [u8; 16] = key.try_into().map_err(|_| StoreError::Corrupt("a result's key is no id".into()))?;
    let digest = hex::encode(Sha256::digest(value));
    Ok(Record {
        kind: "result",
        key: json!({ "bucket": keyspace, "payment": PaymentId::from_bytes(id).to_string() }),
        value: json!({ "bytes": value.len(), "sha256": digest }),
    })
}

/// A payment, as far as it has come.
fn payment(snapshot: &Snapshot, rest: &[u8], value: &[u8]) -> StoreResult<Value> {
    let id: [u8; 16] = rest.try_into().map_err(|_| StoreError::Corrupt("a payment's key is no id".into()))?;
    let id = PaymentId::from_bytes(id);
    json_of(&fold_payment(id, value, snapshot.money(&keys::delta(id))?.as_deref())?)
}

/// What the store keeps of itself.
fn meta(rest: &[u8], value: &[u8]) -> StoreResult<Value> {
    match rest {
        b"owner" => as_is::<Owner>("owner", value),
        b"commit_sequence" | b"memtable_bytes" => as_is::<u64>("number", value),
        _ => Ok(json!({ "bytes": value.len() })),
    }
}

/// What part of a key says.
#[derive(Clone, Copy)]
enum Part {
    /// A payment's id.
    Payment(&'static str),
    /// Any other id.
    Id(&'static str),
    /// An id, turned around.
    Newest(&'static str),
    /// A moment.
    Moment(&'static str),
    /// A hash.
    Hash(&'static str),
    /// A number of four bytes.
    Number(&'static str),
    /// A number of eight.
    Long(&'static str),
    /// One byte.
    Byte(&'static str),
    /// The rest, as text.
    Text(&'static str),
    /// The rest, as it is.
    Bytes(&'static str),
}

/// The name of a kind of key, and what stands in it.
fn shape(tag: Tag) -> (&'static str, &'static [Part]) {
    use Part::{Byte, Bytes, Hash, Id, Long, Moment, Newest, Number, Payment, Text};
    match tag {
        Tag::Payment => ("payment", &[Payment("payment")]),
        Tag::Delta => ("progress", &[Payment("payment")]),
        Tag::QuoteIdentity => ("quote_identity", &[Hash("question")]),
        Tag::IdempotencyKey => ("idempotency_key", &[Hash("key")]),
        Tag::Proof => ("proof", &[Hash("proof")]),
        Tag::Unpaid => ("unpaid", &[Moment("expires_at"), Payment("payment")]),
        Tag::Forget => ("forget", &[Moment("due"), Payment("payment")]),
        Tag::Pointer => ("event", &[Id("party"), Newest("event")]),
        Tag::Sandbox => ("sandbox_payment", &[Payment("payment")]),
        Tag::Intent => ("intent", &[Payment("payment")]),
        Tag::Note => ("note", &[Long("commit")]),
        Tag::Spend => ("spend", &[Number("day"), Id("api_key")]),
        Tag::Reservation => ("reservation", &[Payment("payment")]),
        Tag::ReservationEnd => ("reservation_end", &[Moment("expires_at"), Payment("payment")]),
        Tag::Refund => ("refund", &[Payment("payment"), Number("number")]),
        Tag::Profile => ("profile", &[Id("profile")]),
        Tag::Wallet => ("wallet", &[Byte("family"), Bytes("address")]),
        Tag::WalletOf => ("wallet_of", &[Id("profile"), Id("wallet")]),
        Tag::ApiKey => ("api_key", &[Hash("sha256")]),
        Tag::ApiKeyOf => ("api_key_of", &[Id("profile"), Id("api_key")]),
        Tag::Nonce => ("nonce", &[Hash("sha256")]),
        Tag::NonceEnd => ("nonce_end", &[Moment("until"), Hash("sha256")]),
        Tag::Secret => ("secret", &[Text("name")]),
        Tag::ClaimedBy => ("claimed_by", &[Id("human"), Id("agent")]),
        Tag::Human => ("human", &[Id("profile")]),
        Tag::Email => ("email", &[Text("email")]),
        Tag::Session => ("session", &[Hash("sha256")]),
        Tag::SessionEnd => ("session_end", &[Moment("ends_at"), Hash("sha256")]),
        Tag::Category => ("category", &[Id("category")]),
        Tag::Listing => ("listing", &[Id("listing")]),
        Tag::Endpoint => ("endpoint", &[Id("listing")]),
        Tag::Slug => ("slug", &[Text("slug")]),
        Tag::ListingOf => ("listing_of", &[Id("seller"), Newest("listing")]),
        Tag::Challenge => ("challenge", &[Id("seller")]),
        Tag::Meta => ("meta", &[Text("name")]),
        Tag::Tally => ("tally", &[Id("listing")]),
        Tag::Sums => ("sums", &[Id("party")]),
        Tag::Bought => ("bought", &[Id("listing"), Id("buyer")]),
        Tag::BuyerOf => ("buyer_of", &[Id("seller"), Id("buyer")]),
        Tag::Standing => ("standing", &[Id("profile")]),
        Tag::ScoreDue => ("score_due", &[Id("profile")]),
        Tag::Score => ("score", &[Id("profile")]),
        Tag::Review => ("review", &[Id("listing"), Id("reviewer")]),
        Tag::ReviewOf => ("review_of", &[Id("listing"), Newest("review")]),
        Tag::Ratings => ("ratings", &[Id("listing")]),
        Tag::Paid => ("paid", &[Moment("at"), Long("commit"), Number("n")]),
        Tag::Swept => ("swept", &[Byte("kind"), Byte("look")]),
        Tag::PutOff => ("put_off", &[Moment("due"), Payment("payment")]),
        Tag::PutOffUntil => ("put_off_until", &[Payment("payment")]),
        Tag::Payout => ("payout", &[Id("seller"), Number("number")]),
        Tag::PaidOutUntil => ("paid_out_until", &[Id("seller")]),
        Tag::Cut => ("cut", &[]),
    }
}

/// The value of a key of this kind.
fn told(tag: Tag, kind: &str, value: &[u8]) -> StoreResult<Value> {
    match tag {
        Tag::QuoteIdentity | Tag::IdempotencyKey | Tag::Proof => Ok(named(&[Part::Payment("payment")], value)),
        Tag::Unpaid => Ok(named(&[Part::Id("buyer")], value)),
        Tag::Pointer => as_is::<Event>(kind, value),
        Tag::Sandbox => as_is::<SandboxPayment>(kind, value),
        Tag::Intent => intent(&decode(kind, value)?),
        Tag::Note => as_is::<Vec<Note>>(kind, value),
        Tag::Spend => as_is::<Micros>(kind, value),
        Tag::Reservation => as_is::<Vec<Reservation>>(kind, value),
        Tag::Refund => as_is::<Refund>(kind, value),
        Tag::Profile => as_is::<Profile>(kind, value),
        Tag::Wallet => as_is::<Wallet>(kind, value),
        Tag::ApiKey => as_is::<ApiKey>(kind, value),
        Tag::Nonce | Tag::PutOffUntil => as_is::<UnixMillis>(kind, value),
        Tag::Secret => Ok(json!("sealed")),
        Tag::Human => human(&decode(kind, value)?),
        Tag::Session => as_is::<Session>(kind, value),
        Tag::Category => as_is::<Category>(kind, value),
        Tag::Listing => as_is::<Listing>(kind, value),
        Tag::Endpoint => endpoint(&decode_sealed(kind, value)?),
        Tag::Slug => as_is::<SlugOwner>(kind, value),
        Tag::Challenge => as_is::<ListingChallenge>(kind, value),
        Tag::Tally => as_is::<Tally>(kind, value),
        Tag::Sums => as_is::<Sums>(kind, value),
        Tag::Bought => as_is::<Bought>(kind, value),
        Tag::BuyerOf => as_is::<u32>(kind, value),
        Tag::Standing => as_is::<Standing>(kind, value),
        Tag::Score => as_is::<Score>(kind, value),
        Tag::Review => as_is::<Review>(kind, value),
        Tag::Ratings => as_is::<Ratings>(kind, value),
        Tag::Paid => as_is::<Vec<PaymentId>>(kind, value),
        Tag::Payout => as_is::<Payout>(kind, value),
        Tag::PaidOutUntil | Tag::Cut => as_is::<PostingId>(kind, value),
        // Their keys say it all, and what they hold is another key.
        Tag::Forget
        | Tag::ReservationEnd
        | Tag::WalletOf
        | Tag::ApiKeyOf
        | Tag::NonceEnd
        | Tag::ClaimedBy
        | Tag::Email
        | Tag::SessionEnd
        | Tag::ListingOf
        | Tag::ScoreDue
        | Tag::ReviewOf
        | Tag::Swept
        | Tag::PutOff => Ok(if value.is_empty() { Value::Null } else { json!(hex::encode(value)) }),
        // Told by what calls this.
        Tag::Payment | Tag::Delta | Tag::Meta => Ok(Value::Null),
    }
}

fn as_is<T: DeserializeOwned + Serialize>(kind: &str, value: &[u8]) -> StoreResult<Value> {
    json_of(&decode::<T>(kind, value)?)
}

fn json_of<T: Serialize>(value: &T) -> StoreResult<Value> {
    serde_json::to_value(value).map_err(|error| StoreError::Corrupt(format!("a record that cannot be told: {error}")))
}

/// Without these members of it.
fn without(value: Value, names: &[&str]) -> Value {
    match value {
        Value::Object(mut members) => {
            members.retain(|name, _| !names.contains(&name.as_str()));
            Value::Object(members)
        }
        other => other,
    }
}

/// Whoever has what was signed can have the money moved.
fn intent(intent: &Intent) -> StoreResult<Value> {
    Ok(without(json_of(intent)?, &["signed"]))
}

/// A hash can be guessed at.
fn human(human: &Human) -> StoreResult<Value> {
    Ok(without(json_of(human)?, &["password"]))
}

/// What is sealed of an endpoint stays so.
fn endpoint(endpoint: &SealedEndpoint) -> StoreResult<Value> {
    let sealed = ["url", "upstream_auth", "secret", "previous_secret"];
    Ok(without(json_of(&endpoint.plain)?, &sealed))
}

/// What stands in a key, by name.
fn named(parts: &[Part], bytes: &[u8]) -> Value {
    let (mut members, mut rest) = (Map::new(), bytes);
    for part in parts {
        let (name, value) = part.read(&mut rest);
        members.insert(name.to_string(), value);
    }
    Value::Object(members)
}

/// Takes the first bytes away; fewer when there are no more.
fn take<'b>(rest: &mut &'b [u8], length: usize) -> &'b [u8] {
    let (first, behind) = rest.split_at(length.min(rest.len()));
    *rest = behind;
    first
}

impl Part {
    fn read(self, rest: &mut &[u8]) -> (&'static str, Value) {
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let id = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok();
        match self {
            Self::Payment(name) => (name, json!(id(take(rest, 16)).map(|id| PaymentId::from_bytes(id).to_string()))),
            Self::Id(name) => (name, json!(id(take(rest, 16)).map(|id| ProfileId::from_bytes(id).to_string()))),
            Self::Newest(name) => {
                let id = id(take(rest, 16)).map(keys::newest_first);
                (name, json!(id.map(|id| ProfileId::from_bytes(id).to_string())))
            }
            Self::Hash(name) => (name, json!(hex::encode(take(rest, 32)))),
            Self::Moment(name) | Self::Long(name) => (name, json!(number(take(rest, 8)))),
            Self::Number(name) => (name, json!(number(take(rest, 4)))),
            Self::Byte(name) => (name, json!(number(take(rest, 1)))),
            Self::Text(name) => (name, json!(String::from_utf8_lossy(take(rest, usize::MAX)))),
            Self::Bytes(name) => (name, json!(hex::encode(take(rest, usize::MAX)))),
        }
    }
}

/// Bytes as hexadecimal digits, wherever they stand.
fn readable(value: Value) -> Value {
    match value {
        Value::Array(members) => match bytes(&members) {
            Some(bytes) => json!(hex::encode(bytes)),
            None => Value::Array(members.into_iter().map(readable).collect()),
        },
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, readable(value))).collect())
        }
        other => other,
    }
}

fn bytes(members: &[Value]) -> Option<Vec<u8>> {
    let byte = |member: &Value| member.as_u64().and_then(|number| u8::try_from(number).ok());
    (members.len() >= BYTES_MIN).then(|| members.iter().map(byte).collect::<Option<_>>()).flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_of_key_has_a_name_of_its_own() {
        let kinds: Vec<_> = (0..=u8::MAX).filter_map(Tag::of).map(|tag| shape(tag).0).collect();
        assert!(kinds.len() > 50, "{kinds:?}");
        assert_eq!(kinds.iter().collect::<BTreeSet<_>>().len(), kinds.len());
    }

    #[test]
    fn keys_are_told_part_by_part_and_bytes_as_digits() {
        let id = PaymentId::mint(UnixMillis(7));
        let key = keys::unpaid(UnixMillis(5), id);
        let told = named(shape(Tag::Unpaid).1, &key.bytes[1..]);
        assert_eq!(told, json!({ "expires_at": 5, "payment": id.to_string() }));
        let listing = crate::model::ListingId::mint(UnixMillis(8));
        let key = keys::listing_of(ProfileId::mint(UnixMillis(9)), listing);
        assert_eq!(named(shape(Tag::ListingOf).1, &key.bytes[1..])["listing"], listing.to_string());
        assert_eq!(readable(json!({ "a": [vec![7; 16], vec![1, 2]] })), json!({ "a": ["07".repeat(16), [1, 2]] }));
    }
}
