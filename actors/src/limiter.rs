//! Request rates by GCRA (governor): gateway calls per buyer profile, control routes per profile or address.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use config::Config;
use dashmap::DashMap;
use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock as _, QuantaClock},
};
use storage::model::ProfileId;

use crate::{
    bound::find_or_make,
    meters::{RateMeters, RateScope},
    refusal::{Code, Refusal},
};

/// The rate of one buyer's calls on this node.
pub struct BuyerRate {
    limiter: DefaultDirectRateLimiter,
}

/// Who asks a control route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlSubject {
    /// A profile, whichever of its keys.
    Profile(ProfileId),
    /// An address, without a key.
    Address(IpAddr),
    /// An account that somebody tries to sign in to, by the SHA-256 of its name; it need not exist.
    Account([u8; 32]),
}

impl ControlSubject {
    /// Whose rate an address counts on: of IPv6 it is the network, since one host has all addresses of it.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        })
    }
}

/// Which kind of control route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlKind {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It lets somebody in.
    Auth,
    /// It tries a password.
    Login,
}

/// What the `RateLimit-Policy` and `RateLimit` headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateFields {
    /// `RateLimit-Policy`.
    pub policy: String,
    /// `RateLimit`.
    pub state: String,
}

type ControlLimiter = governor::RateLimiter<
    governor::state::NotKeyed,
    governor::state::InMemoryState,
    QuantaClock,
    governor::middleware::StateInformationMiddleware,
>;

/// All rates of this node. Bounded; an entry that was dropped starts full again.
pub struct Limiter {
    buyers: DashMap<ProfileId, Arc<BuyerRate>>,
    buyers_max: usize,
    buyer_quota: Quota,
    control: DashMap<(ControlSubject, ControlKind), Arc<ControlLimiter>>,
    tests: DashMap<ProfileId, Arc<[DefaultDirectRateLimiter; 2]>>,
    test_quotas: [Quota; 2],
    control_quotas: [(Quota, u32, u64); 4],
    clock: QuantaClock,
    meters: RateMeters,
}

fn quota(count: u32, span: Duration, burst: u32) -> Quota {
    let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(span / count.get()).unwrap_or_else(|| Quota::per_second(count)).allow_burst(burst)
}

impl Limiter {
    pub(crate) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        let buyer_quota =
            quota(config.limit(limits.gateway_per_second), Duration::from_secs(1), config.limit(limits.gateway_burst));
        let control = |count: u32, seconds: u64| {
            let count = config.limit(count);
            (quota(count, Duration::from_secs(seconds), count), count, seconds)
        };
        let test = |count: u32, seconds: u64| {
            let count = config.limit(count);
            quota(count, Duration::from_secs(seconds), count)
        };
        Self {
            buyers: DashMap::new(),
            buyers_max: config.actors.buyers_max,
            buyer_quota,
            control: DashMap::new(),
            control_quotas: [
                control(limits.control_reads_per_minute, 60),
                control(limits.control_writes_per_minute, 60),
                control(limits.auth_per_five_minutes, 300),
                control(limits.logins_per_five_minutes, 300),
            ],
            tests: DashMap::new(),
            test_quotas: [test(limits.endpoint_tests_per_minute, 60), test(limits.endpoint_tests_per_day, 86_400)],
            clock: QuantaClock::default(),
            meters: RateMeters::new(),
        }
    }

    /// The rate of this buyer, shared by all its keys.
    pub(crate) fn buyer(&self, profile: ProfileId) -> Arc<BuyerRate> {
        let new = || BuyerRate { limiter: DefaultDirectRateLimiter::direct(self.buyer_quota) };
        find_or_make(&self.buyers, profile, self.buyers_max, new)
    }

    /// Takes one gateway call off a buyer's rate.
    ///
    /// # Errors
    /// `RateLimited`, with the time to wait.
    pub fn check_buyer(&self, rate: &BuyerRate) -> Result<(), Refusal> {
        rate.limiter.check().map_err(|wait| self.limited(RateScope::Buyer, wait.wait_time_from(self.clock.now())))
    }

    /// Takes one control request off a subject's rate.
    ///
    /// # Errors
    /// `RateLimited`, with the time to wait.
    pub fn check_control(&self, who: ControlSubject, kind: ControlKind) -> Result<RateFields, Refusal> {
        let left = self.take_control(who, kind)?;
        Ok(self.fields(kind, left))
    }

    /// Takes one guess at a key off the rate of the address that it came from, together with those at the control
    /// API's doors. Tells nothing of what is left, so that a flood of junk costs no headers.
    ///
    /// # Errors
    /// `RateLimited`, with the time to wait.
    pub fn check_guess(&self, from: IpAddr) -> Result<(), Refusal> {
        self.take_control(ControlSubject::of(from), ControlKind::Auth).map(drop)
    }

    fn take_control(&self, who: ControlSubject, kind: ControlKind) -> Result<u32, Refusal> {
        let ((quota, ..), _) = self.quota(kind);
        let new = || governor::RateLimiter::direct(quota).with_middleware();
        let limiter = find_or_make(&self.control, (who, kind), self.buyers_max, new);
        let taken = limiter.check().map(|left| left.remaining_burst_capacity());
        taken.map_err(|wait| {
            let scope = match who {
                ControlSubject::Profile(_) => RateScope::Route,
                ControlSubject::Address(_) => RateScope::Address,
                ControlSubject::Account(_) => RateScope::Account,
            };
            self.limited(scope, wait.wait_time_from(self.clock.now()))
        })
    }

    /// Takes one test of an endpoint off its owner's rates, that of a minute and that of a day.
    ///
    /// # Errors
    /// `RateLimited`, with the time to wait.
    pub fn check_endpoint_test(&self, owner: ProfileId) -> Result<(), Refusal> {
        let new = || self.test_quotas.map(DefaultDirectRateLimiter::direct);
        let rates = find_or_make(&self.tests, owner, self.buyers_max, new);
        for rate in rates.iter() {
            rate.check().map_err(|wait| self.limited(RateScope::Route, wait.wait_time_from(self.clock.now())))?;
        }
        Ok(())
    }

    /// What the headers say of a rate that is used up.
    #[must_use]
    pub fn spent(&self, kind: ControlKind, wait_seconds: u64) -> RateFields {
        let RateFields { policy, state } = self.fields(kind, 0);
        RateFields { policy, state: format!("{state};t={wait_seconds}") }
    }

    fn fields(&self, kind: ControlKind, left: u32) -> RateFields {
        let ((_, count, seconds), name) = self.quota(kind);
        RateFields { policy: format!("\"{name}\";q={count};w={seconds}"), state: format!("\"{name}\";r={left}") }
    }

    fn quota(&self, kind: ControlKind) -> ((Quota, u32, u64), &'static str) {
        let [read, write, auth, login] = self.control_quotas;
        match kind {
            ControlKind::Read => (read, "reads"),
            ControlKind::Write => (write, "writes"),
            ControlKind::Auth => (auth, "auth"),
            ControlKind::Login => (login, "logins"),
        }
    }

    fn limited(&self, scope: RateScope, wait: Duration) -> Refusal {
        self.meters.limited(scope);
        Refusal::from(Code::RateLimited).detail("scope", scope.name()).retry_no_sooner(wait)
    }
}
