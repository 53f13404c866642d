//! The records that hold secrets, as they are kept: an endpoint, and a secret that the server drew.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{Place, Sealed, Sealer};
use crate::{
    error::{StoreError, StoreResult},
    model::{Endpoint, ListingId, PreviousSecret, SigningSecret, UpstreamAuth},
};

const URL: &str = "url";
const UPSTREAM_AUTH: &str = "upstream_auth";
const SECRET: &str = "secret";
const PREVIOUS_SECRET: &str = "previous_secret";

/// What of an endpoint is secret, sealed: each value for itself, so that one cannot stand in for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSecrets {
    url: Sealed,
    upstream_auth: Option<Sealed>,
    secret: Sealed,
    previous_secret: Option<Sealed>,
}

/// An endpoint as it is kept: what is not secret as it is, the rest sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedEndpoint {
    /// With its secrets left out.
    pub(crate) plain: Endpoint,
    /// The secrets.
    pub(crate) secrets: EndpointSecrets,
}

impl EndpointSecrets {
    /// Seals these values for this listing's endpoint.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub(crate) fn seal(
        sealer: &Sealer,
        listing: ListingId,
        url: &str,
        upstream_auth: Option<&UpstreamAuth>,
        keys: (&[u8; 32], Option<&[u8; 32]>),
    ) -> StoreResult<Self> {
        let seal = |field, plain: &[u8]| at(listing, field, |place| sealer.seal(place, plain));
        let upstream_auth = upstream_auth.map(|auth| seal(UPSTREAM_AUTH, &written(auth)?)).transpose()?;
        Ok(Self {
            url: seal(URL, url.as_bytes())?,
            upstream_auth,
            secret: seal(SECRET, keys.0)?,
            previous_secret: keys.1.map(|key| seal(PREVIOUS_SECRET, key)).transpose()?,
        })
    }

    /// The same values under the current key; `None` when they are.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub(crate) fn reseal(&self, sealer: &Sealer, listing: ListingId) -> StoreResult<Option<Self>> {
        if self.is_current(sealer) {
            return Ok(None);
        }
        let again = |field, sealed: &Sealed| {
            at(listing, field, |place| sealer.open(place, sealed).and_then(|plain| sealer.seal(place, &plain)))
        };
        let maybe = |field, sealed: &Option<Sealed>| sealed.as_ref().map(|sealed| again(field, sealed)).transpose();
        Ok(Some(Self {
            url: again(URL, &self.url)?,
            upstream_auth: maybe(UPSTREAM_AUTH, &self.upstream_auth)?,
            secret: again(SECRET, &self.secret)?,
            previous_secret: maybe(PREVIOUS_SECRET, &self.previous_secret)?,
        }))
    }

    /// Whether all of it was sealed with the current key.
    pub(crate) fn is_current(&self, sealer: &Sealer) -> bool {
        let optional = self.upstream_auth.iter().chain(&self.previous_secret);
        [&self.url, &self.secret].into_iter().chain(optional).all(|sealed| sealer.is_current(sealed))
    }
}

impl SealedEndpoint {
    /// Seals an endpoint.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal(sealer: &Sealer, endpoint: Endpoint) -> StoreResult<Self> {
        // Named one by one: whoever adds a value to an endpoint is asked here whether it is a secret.
        let Endpoint {
            listing,
            ref url,
            ref upstream_auth,
            timeout_ms: _,
            limits: _,
            status: _,
            ref secret,
            ref previous_secret,
            last_test: _,
            version: _,
        } = endpoint;
        let previous = previous_secret.as_ref().map(|previous| &previous.secret.key);
        let secrets = EndpointSecrets::seal(sealer, listing, url, upstream_auth.as_ref(), (&secret.key, previous))?;
        let bare = |secret: SigningSecret| SigningSecret { key: [0; 32], ..secret };
        let plain = Endpoint {
            url: String::new(),
            upstream_auth: None,
            secret: bare(endpoint.secret),
            previous_secret: endpoint
                .previous_secret
                .map(|previous| PreviousSecret { secret: bare(previous.secret), ..previous }),
            ..endpoint
        };
        Ok(Self { plain, secrets })
    }

    /// The endpoint of this listing, whole. A record that was moved here from another listing does not open.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub fn open(self, sealer: &Sealer, listing: ListingId) -> StoreResult<Endpoint> {
        let (mut endpoint, secrets) = (self.plain, self.secrets);
        let open = |field, sealed: &Sealed| at(listing, field, |place| sealer.open(place, sealed));
        let url = open(URL, &secrets.url)?;
        endpoint.url = std::str::from_utf8(&url).map_err(|_| unreadable(listing, URL))?.to_string();
        if let Some(sealed) = &secrets.upstream_auth {
            let auth = open(UPSTREAM_AUTH, sealed)?;
            endpoint.upstream_auth = Some(read(&auth).ok_or_else(|| unreadable(listing, UPSTREAM_AUTH))?);
        }
        let key = |field, sealed| open(field, sealed)?.as_slice().try_into().map_err(|_| unreadable(listing, field));
        endpoint.secret.key = key(SECRET, &secrets.secret)?;
        match (&mut endpoint.previous_secret, &secrets.previous_secret) {
            (Some(previous), Some(sealed)) => previous.secret.key = key(PREVIOUS_SECRET, sealed)?,
            (None, None) => {}
            _ => return Err(unreadable(listing, PREVIOUS_SECRET)),
        }
        Ok(endpoint)
    }
}

fn at<T>(listing: ListingId, field: &'static str, work: impl FnOnce(Place<'_>) -> StoreResult<T>) -> StoreResult<T> {
    work(Place { table: "endpoint", row: &listing.bytes(), shown: &listing, field })
}

fn unreadable(listing: ListingId, field: &str) -> StoreError {
    StoreError::Corrupt(format!("endpoint {listing}: its sealed {field} does not hold what it should"))
}

fn written(auth: &UpstreamAuth) -> StoreResult<Zeroizing<Vec<u8>>> {
    let bytes = postcard::to_stdvec(auth);
    bytes.map(Zeroizing::new).map_err(|error| StoreError::Corrupt(format!("credentials cannot be written: {error}")))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// A secret that the server drew, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret(Sealed);

impl SealedSecret {
    fn place<'a>(name: &'a &'a str) -> Place<'a> {
        Place { table: "secret", row: name.as_bytes(), shown: name, field: "bytes" }
    }

    /// Seals the secret of this name.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal(sealer: &Sealer, name: &str, secret: &[u8; 32]) -> StoreResult<Self> {
        sealer.seal(Self::place(&name), secret).map(Self)
    }

    /// The secret of this name.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub fn open(&self, sealer: &Sealer, name: &str) -> StoreResult<[u8; 32]> {
        let plain = sealer.open(Self::place(&name), &self.0)?;
        plain.as_slice().try_into().map_err(|_| StoreError::Corrupt(format!("secret {name}: is not 32 bytes long")))
    }

    /// The same secret under the current key; `None` when it is.
    pub(crate) fn reseal(&self, sealer: &Sealer, name: &str) -> StoreResult<Option<Self>> {
        if self.is_current(sealer) {
            return Ok(None);
        }
        self.open(sealer, name).and_then(|secret| Self::seal(sealer, name, &secret)).map(Some)
    }

    pub(crate) fn is_current(&self, sealer: &Sealer) -> bool {
        sealer.is_current(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EndpointLimits, EndpointStatus, UnixMillis};

    fn endpoint(listing: ListingId) -> Endpoint {
        let secret = |byte| SigningSecret { key: [byte; 32], created_at: UnixMillis(7) };
        Endpoint {
            listing,
            url: "https://private.example/".into(),
            upstream_auth: Some(UpstreamAuth { header: "X-Own".into(), value: "hush".into() }),
            timeout_ms: 30_000,
            limits: EndpointLimits::default(),
            status: EndpointStatus::Active,
            secret: secret(171),
            previous_secret: Some(PreviousSecret { secret: secret(205), expires_at: UnixMillis(9) }),
            last_test: None,
            version: 3,
        }
    }

    #[test]
    fn e2_an_endpoint_comes_back_whole_and_is_kept_without_a_secret_in_it() {
        let sealer = Sealer::new(&[1; 32], None);
        let whole = endpoint(ListingId::mint(UnixMillis(1)));
        let sealed = SealedEndpoint::seal(&sealer, whole.clone()).expect("sealed");
        let bytes = postcard::to_stdvec(&sealed).expect("written");
        for secret in [&b"private.example"[..], b"X-Own", b"hush", &[171; 4], &[205; 4]] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{secret:?}");
        }
        assert_eq!(sealed.open(&sealer, whole.listing).expect("opens"), whole);
        let bare = Endpoint { upstream_auth: None, previous_secret: None, ..whole };
        let sealed = SealedEndpoint::seal(&sealer, bare.clone()).expect("sealed");
        assert_eq!(sealed.open(&sealer, bare.listing).expect("opens"), bare);
    }

    #[test]
    fn e2_secrets_swapped_between_rows_or_fields_do_not_open() {
        let sealer = Sealer::new(&[1; 32], None);
        let [one, two] = [1, 2].map(|ms| endpoint(ListingId::mint(UnixMillis(ms))));
        let [first, second] =
            [&one, &two].map(|endpoint| SealedEndpoint::seal(&sealer, endpoint.clone()).expect("sealed"));
        let swapped = SealedEndpoint { secrets: second.secrets.clone(), ..first.clone() };
        let error = swapped.open(&sealer, one.listing).expect_err("another row").to_string();
        assert!(error.contains(&format!("endpoint {}", one.listing)) && !error.contains("private"), "{error}");
        assert!(second.open(&sealer, one.listing).is_err(), "a whole record in another's place");
        let mut turned = first;
        let previous = turned.secrets.previous_secret.clone().expect("there");
        turned.secrets.previous_secret = Some(std::mem::replace(&mut turned.secrets.secret, previous));
        let error = turned.open(&sealer, one.listing).expect_err("another field").to_string();
        assert!(error.contains("sealed secret") && error.contains(&one.listing.to_string()), "{error}");
    }

    #[test]
    fn e2_resealing_keeps_the_values_and_needs_the_old_key_no_more() {
        let (old, new) = (Sealer::new(&[1; 32], None), Sealer::new(&[2; 32], None));
        let both = Sealer::new(&[2; 32], Some(&[1; 32]));
        let whole = endpoint(ListingId::mint(UnixMillis(1)));
        let sealed = SealedEndpoint::seal(&old, whole.clone()).expect("sealed");
        let again = sealed.secrets.reseal(&both, whole.listing).expect("resealed").expect("changed");
        assert_eq!(again.reseal(&both, whole.listing), Ok(None), "once");
        assert_eq!(SealedEndpoint { secrets: again, ..sealed }.open(&new, whole.listing).expect("opens"), whole);
        let secret = SealedSecret::seal(&old, "name", &[9; 32]).expect("sealed");
        let secret = secret.reseal(&both, "name").expect("resealed").expect("changed");
        assert_eq!((secret.open(&new, "name"), secret.open(&new, "other").is_err()), (Ok([9; 32]), true));
    }
}
