//! Passwords: argon2id, on threads that serve nobody, so many at a time and no more.

use std::sync::Arc;

use actors::refusal::{Code, Refusal};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hashing is switched off by bad settings, or the system has no randomness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password cannot be hashed: {0}")]
pub struct PasswordError(String);

/// The hash of a password in PHC form, as accounts keep it: for an operator who resets one.
///
/// # Errors
/// [`PasswordError`].
pub fn hash_password(password: &str, knobs: &config::Identity) -> Result<String, PasswordError> {
    let hasher = hasher(knobs)?;
    hasher.hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(|e| PasswordError(e.to_string()))
}

fn hasher(knobs: &config::Identity) -> Result<Argon2<'static>, PasswordError> {
    let kibibytes = u32::try_from(knobs.password_memory / 1024).unwrap_or(u32::MAX);
    let params = Params::new(kibibytes, knobs.password_passes, 1, None).map_err(|e| PasswordError(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes and checks passwords within the bounds of the configuration.
pub(crate) struct Passwords {
    knobs: config::Identity,
    /// What is checked when there is no such account, so that both take as long.
    decoy: String,
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new(knobs: &config::Identity) -> Result<Self, PasswordError> {
        let (running, waiting) = (knobs.password_hashers, knobs.password_waiting);
        Ok(Self {
            decoy: hash_password("nobody's", knobs)?,
            knobs: knobs.clone(),
            admitted: Arc::new(Semaphore::new(running + waiting)),
            running: Arc::new(Semaphore::new(running)),
        })
    }

    /// The hash to keep.
    ///
    /// # Errors
    /// `Overloaded` when too many wait.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Refusal> {
        let knobs = self.knobs.clone();
        let hashed = self.run(move || hash_password(&password, &knobs)).await?;
        hashed.map_err(|error| {
            tracing::error!(%error, "no password can be hashed");
            Code::Internal.into()
        })
    }

    /// Whether the password is that of `kept`; without an account it takes as long, and is not.
    ///
    /// # Errors
    /// `Overloaded` when too many wait.
    pub(crate) async fn is_right(&self, password: String, kept: Option<String>) -> Result<bool, Refusal> {
        let is_known = kept.is_some();
        let kept = kept.unwrap_or_else(|| self.decoy.clone());
        let is_right = self.run(move || is_of(&password, &kept)).await?;
        Ok(is_right && is_known)
    }

    /// Runs on a thread of the blocking pool. The places go with the work, not with who waits for it: a client that
    /// hangs up frees none.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let overloaded = || Refusal::from(Code::Overloaded).retry_after(std::time::Duration::from_secs(1));
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| overloaded())?;
        let places: [OwnedSemaphorePermit; 2] = [admitted, running];
        let hashing = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(places);
            done
        });
        hashing.await.map_err(|_| Code::Internal.into())
    }
}

/// The settings are those in the hash: old ones keep working.
fn is_of(password: &str, kept: &str) -> bool {
    PasswordHash::new(kept).is_ok_and(|kept| Argon2::default().verify_password(password.as_bytes(), &kept).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knobs(waiting: usize) -> config::Identity {
        let knobs = config::Config::from_parts(None, []).expect("defaults").identity;
        config::Identity { password_memory: 64 << 10, password_passes: 1, password_waiting: waiting, ..knobs }
    }

    #[test]
    fn e16_a_hash_is_argon2id_salted_and_no_password() {
        let knobs = knobs(1);
        let (a, b) = (hash_password("correct horse", &knobs), hash_password("correct horse", &knobs));
        let (a, b) = (a.expect("hashed"), b.expect("hashed"));
        assert!(a.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{a}");
        assert!(a != b && !a.contains("horse"));
        assert!(is_of("correct horse", &a) && is_of("correct horse", &b));
        assert!(!is_of("Correct horse", &a) && !is_of("", &a) && !is_of("correct horse", "nonsense"));
    }

    #[tokio::test]
    async fn no_more_wait_than_may() {
        let passwords = Passwords::new(&knobs(1)).expect("hashed");
        let kept = hash_password("right", &passwords.knobs).expect("hashed");
        let place = passwords.running.clone().acquire_owned().await.expect("a place");
        // The first is served once the place is free, the second waits, the third is one too many.
        let (first, second) =
            (passwords.is_right("right".into(), Some(kept.clone())), passwords.is_right("right".into(), None));
        let third = async {
            let refused = passwords.hash("x".into()).await.expect_err("full");
            drop(place);
            refused
        };
        let (first, second, third) = tokio::join!(first, second, third);
        assert_eq!((first.expect("room"), second.expect("room")), (true, false));
        assert_eq!(third.code(), Code::Overloaded);
    }
}
