//! What a stolen store gives away, and the way from one master key to the next.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use storage::{Changed, Embedded, Store, StoreError, StoreResult, model::*};
use support::{BEGIN, settings};

const FIRST: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const THIRD: &str = "3333333333333333333333333333333333333333333333333333333333333333";

/// Opens the store in `folder` with these keys: the current one, and the one before.
fn open(folder: &Path, keys: &[&str]) -> StoreResult<Arc<dyn Store>> {
    let mut config = settings(folder, "reseal_rows = 3\n");
    let names = [&mut config.master_key, &mut config.previous_master_key];
    names.into_iter().zip(keys).for_each(|(knob, key)| *knob = config::Secret::new((*key).into()));
    Embedded::open(&config, Clock::system()).map(|store| Arc::new(store) as Arc<dyn Store>)
}

fn listing(n: u64) -> Listing {
    let now = UnixMillis(BEGIN + n);
    Listing {
        id: ListingId::mint(now),
        slug: format!("slug-{n}"),
        seller: ProfileId::mint(now),
        name: "in-the-open".into(),
        description: "description".into(),
        category: None,
        delivery_type: DeliveryType::Api,
        formats: vec![Format::Json],
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
        created_at: now,
        updated_at: now,
        version: 0,
    }
}

fn endpoint(listing: ListingId) -> Endpoint {
    let secret = |byte| SigningSecret { key: [byte; 32], created_at: UnixMillis(BEGIN) };
    Endpoint {
        listing,
        url: "https://hidden.example/".into(),
        upstream_auth: Some(UpstreamAuth { header: "X-Own".into(), value: "the-credential".into() }),
        timeout_ms: 30_000,
        limits: EndpointLimits::default(),
        status: EndpointStatus::Active,
        secret: secret(0xA7),
        previous_secret: Some(PreviousSecret { secret: secret(0xB3), expires_at: UnixMillis(BEGIN) }),
        last_test: None,
        version: 0,
    }
}

async fn fill(store: &dyn Store, count: u64) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for n in 0..count {
        let listing = listing(n);
        let endpoint = endpoint(listing.id);
        store.listing_create(listing, Some(endpoint.clone())).await.expect("created");
        endpoints.push(endpoint);
    }
    endpoints
}

async fn assert_whole(store: &dyn Store, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        let offer = store.listing_get(endpoint.listing).await.expect("read").expect("there");
        assert_eq!(offer.endpoint.as_ref(), Some(endpoint));
    }
}

/// Reseals to the end; returns how many rows were sealed anew, and in how many steps.
async fn reseal(store: &dyn Store) -> (u64, usize) {
    let (mut after, mut resealed) = (None, 0);
    for step in 1..1000 {
        let done = store.secret_reseal(after).await.expect("resealed");
        assert!(done.rows <= 3, "bounded by storage.reseal_rows");
        resealed += done.resealed;
        after = done.next;
        if after.is_none() {
            return (resealed, step);
        }
    }
    panic!("it never ends");
}

fn refusal(opened: StoreResult<Arc<dyn Store>>) -> String {
    match opened.err().expect("refused") {
        StoreError::Unavailable(text) => text,
        other => panic!("{other}"),
    }
}

/// Which files below `path` hold these bytes.
fn files_with(path: &Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path).expect("folder").map(|entry| entry.expect("entry").path());
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if memchr::memmem::find(&fs::read(&path).expect("file"), bytes).is_some() {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn e2_a_stolen_store_holds_no_secret_in_the_open() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path(), &[FIRST]).expect("opens");
    let endpoints = fill(&*store, 3).await;
    let drawn = store.server_secret("challenge").await.expect("drawn");
    let moved = Endpoint { url: "https://elsewhere.example/hidden".into(), ..endpoints[0].clone() };
    assert_eq!(store.endpoint_update(moved).await, Ok(Changed::Done));
    store.close().await.expect("closed");
    assert!(!files_with(folder.path(), b"in-the-open").is_empty(), "the search finds what is not sealed");
    let secrets: [&[u8]; 7] =
        [b"hidden", b"elsewhere.example", b"the-credential", b"X-Own", &[0xA7; 8], &[0xB3; 8], &drawn];
    for secret in secrets {
        assert_eq!(files_with(folder.path(), secret), Vec::<std::path::PathBuf>::new(), "{secret:?}");
    }
    let key = hex_bytes(FIRST);
    assert!(files_with(folder.path(), &key).is_empty() && files_with(folder.path(), FIRST.as_bytes()).is_empty());
}

fn hex_bytes(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hex")
}

#[tokio::test]
async fn e2_a_rotation_reads_under_both_keys_and_ends_with_the_new_one_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path(), &[FIRST]).expect("opens");
    let mut endpoints = fill(&*store, 10).await;
    let drawn = store.server_secret("challenge").await.expect("drawn");
    store.close().await.expect("closed");

    let said = refusal(open(folder.path(), &[SECOND]));
    assert!(said.contains("previous_master_key_file") && !said.contains(FIRST), "{said}");

    let store = open(folder.path(), &[SECOND, FIRST]).expect("both keys");
    assert_whole(&*store, &endpoints).await;
    endpoints[9].timeout_ms = 1;
    assert_eq!(store.endpoint_update(endpoints[9].clone()).await, Ok(Changed::Done));
    endpoints[9].version = 1;
    store.close().await.expect("closed");
    let said = refusal(open(folder.path(), &[FIRST]));
    assert!(said.contains("is sealed with"), "a row under the second key needs it from now on: {said}");

    let store = open(folder.path(), &[SECOND, FIRST]).expect("both keys");
    assert_eq!(store.secret_count().await, Ok(11));
    // Broken off after a step, and begun again from its beginning.
    assert_eq!(store.secret_reseal(None).await.expect("a step").resealed, 3);
    assert!(open_after_close(&store, folder.path(), &[SECOND]).await.is_err(), "half-way the first key is needed");
    let store = open(folder.path(), &[SECOND, FIRST]).expect("both keys");
    // A cursor from nowhere skips rows: that is not the end.
    let skipped = store.secret_reseal(Some(vec![255])).await.expect("a step");
    assert_eq!(skipped.next, Some(Vec::new()), "rows are left, so it begins again");
    assert_eq!(reseal(&*store).await.0, 7, "11 rows, 3 of them done, one written with the new key");
    assert_eq!(reseal(&*store).await.0, 0, "once");
    assert_whole(&*store, &endpoints).await;

    let store = open_after_close(&store, folder.path(), &[SECOND]).await.expect("the new key alone");
    assert_whole(&*store, &endpoints).await;
    assert_eq!(store.server_secret("challenge").await, Ok(drawn));
    let refused = open_after_close(&store, folder.path(), &[FIRST]).await;
    assert!(refusal(refused).contains("is sealed with"), "the first key opens nothing any more");
    assert!(open(folder.path(), &[THIRD, FIRST]).is_err());
    let store = open(folder.path(), &[THIRD, SECOND]).expect("and so on");
    assert_whole(&*store, &endpoints).await;
}

async fn open_after_close(store: &Arc<dyn Store>, folder: &Path, keys: &[&str]) -> StoreResult<Arc<dyn Store>> {
    store.close().await.expect("closed");
    open(folder, keys)
}

#[tokio::test]
async fn resealing_beside_writers_misses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path(), &[FIRST]).expect("opens");
    let endpoints = fill(&*store, 24).await;
    let store = open_after_close(&store, folder.path(), &[SECOND, FIRST]).await.expect("both keys");
    let writers: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            let (store, endpoint) = (Arc::clone(&store), endpoint.clone());
            tokio::spawn(async move {
                for version in 0..4 {
                    let changed = store.endpoint_update(Endpoint { version, ..endpoint.clone() }).await;
                    assert_eq!(changed, Ok(Changed::Done), "resealing is not a change that others must look at");
                }
            })
        })
        .collect();
    reseal(&*store).await;
    for writer in writers {
        writer.await.expect("written");
    }
    let store = open_after_close(&store, folder.path(), &[SECOND]).await.expect("the new key alone");
    let endpoints: Vec<_> = endpoints.into_iter().map(|endpoint| Endpoint { version: 4, ..endpoint }).collect();
    assert_whole(&*store, &endpoints).await;
}

#[tokio::test]
async fn e2_a_store_without_a_configured_key_makes_one_that_only_its_owner_may_read() {
    let folder = tempfile::tempdir().expect("folder");
    let key_path = folder.path().join("store/master.key");
    let store = open(folder.path(), &[]).expect("opens");
    let endpoints = fill(&*store, 1).await;
    assert_eq!(fs::metadata(&key_path).expect("made").permissions().mode() & 0o777, 0o600);
    let key = fs::read_to_string(&key_path).expect("key");
    let store = open_after_close(&store, folder.path(), &[]).await.expect("again");
    assert_eq!(fs::read_to_string(&key_path).expect("key"), key, "made once");
    assert_whole(&*store, &endpoints).await;

    fs::set_permissions(&key_path, fs::Permissions::from_mode(0o640)).expect("changed");
    let said = refusal(open_after_close(&store, folder.path(), &[]).await);
    assert!(said.contains("chmod 600"), "{said}");
    fs::remove_file(&key_path).expect("removed");
    let said = refusal(open(folder.path(), &[]));
    assert!(said.contains("is gone") && !key_path.exists(), "no other key is made in its place: {said}");

    // It is a key like any other: from here on a configured one takes over.
    let store = open(folder.path(), &[FIRST, key.trim()]).expect("both keys");
    reseal(&*store).await;
    let store = open_after_close(&store, folder.path(), &[FIRST]).await.expect("the configured key alone");
    assert_whole(&*store, &endpoints).await;
}
