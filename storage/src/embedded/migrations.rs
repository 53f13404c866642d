//! From each format of the store to the next. A migration writes down what it reads and writes for itself: the model
//! goes on, and an old store must still be read as it was.

use serde::{Deserialize, Serialize};

use super::{
    codec::{decode, encode_sealed, is_sealed},
    engine::{Engine, Place, Put},
    keys, sealing,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{EndpointLimits, EndpointStatus, EndpointTest, ListingId, PreviousSecret, SigningSecret, UpstreamAuth},
    sealed::{EndpointSecrets, SealedSecret, Sealer},
};

/// Rows in one commit.
const ROWS: usize = 256;

/// An endpoint in format 1, in which its secrets stood in the open; in format 2 the same without them.
#[derive(Serialize, Deserialize)]
struct EndpointV1 {
    listing: ListingId,
    url: String,
    upstream_auth: Option<UpstreamAuth>,
    timeout_ms: u32,
    limits: EndpointLimits,
    status: EndpointStatus,
    secret: SigningSecret,
    previous_secret: Option<PreviousSecret>,
    last_test: Option<EndpointTest>,
    version: u64,
}

/// An endpoint in format 2.
#[derive(Serialize)]
struct EndpointV2 {
    plain: EndpointV1,
    secrets: EndpointSecrets,
}

/// 1 to 2: private URLs, credentials and signing secrets are sealed, and so are the secrets that the server drew. What
/// an earlier attempt sealed is left as it is. The files that held them in the open are wiped afterwards.
pub(crate) fn seal(engine: &Engine, sealer: &Sealer) -> StoreResult<()> {
    sealing::wipe_later(engine)?;
    let secret = |key: &[u8], value: &[u8]| {
        let name = keys::secret_name(key).ok_or_else(|| StoreError::Corrupt("a secret's name is not text".into()))?;
        encode_sealed(&SealedSecret::seal(sealer, name, &decode("secret", value)?)?)
    };
    rewrite(engine, keys::secrets(), secret)?;
    rewrite(engine, keys::endpoints(), |_, value| encode_sealed(&endpoint(sealer, decode("endpoint", value)?)?))
}

/// 2 to 3: a row of a history may be of a payout from now on, and what a buyer signed stands beside its payment. Nothing
/// of before changes; a program that knows neither must not open the store.
pub(crate) fn payouts(_: &Engine, _: &Sealer) -> StoreResult<()> {
    Ok(())
}

fn endpoint(sealer: &Sealer, mut plain: EndpointV1) -> StoreResult<EndpointV2> {
    let previous = plain.previous_secret.as_ref().map(|previous| &previous.secret.key);
    let auth = plain.upstream_auth.as_ref();
    let secrets = EndpointSecrets::seal(sealer, plain.listing, &plain.url, auth, (&plain.secret.key, previous))?;
    plain.url.clear();
    plain.upstream_auth = None;
    plain.secret.key = [0; 32];
    if let Some(previous) = &mut plain.previous_secret {
        previous.secret.key = [0; 32];
    }
    Ok(EndpointV2 { plain, secrets })
}

/// Writes all values of a range anew that are not sealed yet, some in one commit.
fn rewrite(
    engine: &Engine,
    mut range: keys::Range,
    anew: impl Fn(&[u8], &[u8]) -> StoreResult<fjall::Slice>,
) -> StoreResult<()> {
    loop {
        let found: Vec<_> = engine.scan(&range).take(ROWS).collect::<StoreResult<_>>()?;
        let Some((last, _)) = found.last() else { return Ok(()) };
        range.from = keys::next_after(last);
        let mut puts = Vec::with_capacity(found.len());
        for (key, value) in found.into_iter().filter(|(_, value)| !is_sealed(value)) {
            let value = Some(anew(&key, &value)?);
            puts.push(Put { place: Place::Key(keys::Key { space: range.space, bytes: key }), value });
        }
        let most = puts.len();
        engine.commit(puts.into_iter(), most).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        Embedded, Store as _,
        embedded::{codec::encode, start},
        model::{Clock, DeliveryType, Listing, ListingStatus, Micros, PricingModel, ProfileId, UnixMillis},
        store::{CatalogStore as _, IdentityStore as _},
    };

    fn settings(folder: &Path) -> config::Storage {
        let text = format!("[storage]\npath = {folder:?}\ncache_bytes = \"16MiB\"\nmemtable_bytes = \"8MiB\"\n");
        config::Config::from_parts(Some(&text), []).expect("good").storage
    }

    fn listing(n: u64) -> Listing {
        Listing {
            id: ListingId::mint(UnixMillis(n)),
            slug: format!("slug-{n}"),
            seller: ProfileId::mint(UnixMillis(n)),
            name: "name".into(),
            description: "description".into(),
            category: None,
            delivery_type: DeliveryType::Api,
            formats: vec![],
            connection_instructions: None,
            pricing_model: PricingModel::Free,
            price: Micros::ZERO,
            preferred_currency: None,
            documentation_url: None,
            example_request: None,
            example_response: None,
            tags: vec![],
            status: ListingStatus::Active,
            suspended_by: None,
            was_active: true,
            created_at: UnixMillis(n),
            updated_at: UnixMillis(n),
            version: 0,
        }
    }

    fn endpoint(listing: ListingId, n: u64) -> EndpointV1 {
        let secret = |byte| SigningSecret { key: [byte; 32], created_at: UnixMillis(n) };
        EndpointV1 {
            listing,
            url: format!("https://hidden.example/{n}"),
            upstream_auth: Some(UpstreamAuth { header: "X-Own".into(), value: format!("credential-{n}") }),
            timeout_ms: 1,
            limits: EndpointLimits::default(),
            status: EndpointStatus::Active,
            secret: secret(0xA7),
            previous_secret: Some(PreviousSecret { secret: secret(0xB3), expires_at: UnixMillis(n) }),
            last_test: None,
            version: n,
        }
    }

    /// How many files below `path` hold these bytes.
    fn files_with(path: &Path, bytes: &[u8]) -> usize {
        let mut count = 0;
        for entry in fs::read_dir(path).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                count += files_with(&path, bytes);
            } else if memchr::memmem::find(&fs::read(&path).expect("file"), bytes).is_some() {
                count += 1;
            }
        }
        count
    }

    /// A store in format 1, some of it in the journal and some in tables.
    fn old_store(folder: &Path, listings: &[Listing]) {
        let engine = Engine::open(&start::engine_path(folder), &settings(folder)).expect("engine");
        let put = |key: keys::Key, value| Put { place: Place::Key(key), value: Some(value) };
        for (n, listing) in (0..).zip(listings) {
            let endpoint = encode(&endpoint(listing.id, n)).expect("written");
            let puts = [
                put(keys::listing(listing.id), encode(listing).expect("written")),
                put(keys::endpoint(listing.id), endpoint),
            ];
            engine.commit(puts.into_iter(), 2).expect("committed");
        }
        let secret = put(keys::secret("challenge"), encode(&[0xC9u8; 32]).expect("written"));
        engine.commit(std::iter::once(secret), 1).expect("committed");
        fs::write(folder.join("format"), "1\n").expect("format");
    }

    #[tokio::test]
    async fn e2_an_older_store_is_sealed_at_its_next_start_and_nothing_of_before_is_left_in_its_files() {
        let folder = tempfile::tempdir().expect("folder");
        let listings: Vec<_> = (0..600).map(listing).collect();
        old_store(folder.path(), &listings);
        let secrets: [&[u8]; 5] = [b"hidden.example", b"credential-", &[0xA7; 16], &[0xB3; 16], &[0xC9; 16]];
        for secret in secrets {
            assert!(files_with(folder.path(), secret) > 0, "the search finds what is in the open: {secret:?}");
        }
        // An attempt that died after its first row.
        let settings = settings(folder.path());
        {
            let engine = Engine::open(&start::engine_path(folder.path()), &settings).expect("engine");
            let sealer = sealing::sealer(folder.path(), &engine, &settings).expect("sealer");
            let key = keys::endpoint(listings[0].id);
            let first = decode("endpoint", &engine.get(&key).expect("read").expect("there")).expect("endpoint");
            let sealed = encode_sealed(&super::endpoint(&sealer, first).expect("sealed")).expect("written");
            let put = Put { place: Place::Key(key), value: Some(sealed) };
            engine.commit(std::iter::once(put), 1).expect("committed");
        }
        let store = Embedded::open(&settings, Clock::system()).expect("the store opens");
        for (n, listing) in (0..).zip(&listings) {
            let found = store.listing_get(listing.id).await.expect("read").expect("there").endpoint.expect("endpoint");
            let before = endpoint(listing.id, n);
            assert_eq!((found.url, found.upstream_auth), (before.url, before.upstream_auth));
            assert_eq!((found.secret, found.previous_secret), (before.secret, before.previous_secret));
            assert_eq!((found.timeout_ms, found.version), (before.timeout_ms, before.version));
        }
        assert_eq!(store.server_secret("challenge").await, Ok([0xC9; 32]));
        store.close().await.expect("closed");
        for secret in secrets {
            assert_eq!(files_with(folder.path(), secret), 0, "{secret:?}");
        }
        assert_eq!(start::format(folder.path()), Ok(3));
    }
}
