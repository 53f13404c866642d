//! Whom and what every history begins with.

use actors::keys::generate;
use storage::{Store, faulty::at_once, model::*};

use super::world::{BUYERS, Buyer, FREE};

/// A buyer with a key; the last one's is capped.
pub fn register(store: &dyn Store, n: usize, now: UnixMillis) -> Buyer {
    let key = generate().expect("randomness");
    let profile = Profile {
        id: ProfileId::mint(now),
        account_type: AccountType::Agent,
        display_name: format!("buyer {n}"),
        avatar_url: None,
        claimed_by: None,
        is_verified: false,
        score: 0,
        is_suspended: false,
        created_at: now,
        version: 1,
    };
    let wallet = Wallet {
        id: WalletId::mint(now),
        profile: profile.id,
        family: ChainFamily::Evm,
        address: vec![u8::try_from(n).unwrap_or_default(); 20],
        label: None,
        status: WalletStatus::Active,
        capabilities: Vec::new(),
        default_payment: true,
        default_payout: true,
        created_at: now,
        version: 1,
    };
    let id = profile.id;
    let record = ApiKey {
        id: ApiKeyId::mint(now),
        profile: profile.id,
        key_sha256: key.sha256,
        name: "key".into(),
        key_prefix: "am_k_".into(),
        scopes: vec![Scope::Gateway],
        created_at: now,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        max_price: None,
        daily_spend: (n == BUYERS - 1).then_some(Micros(1_000_000_000)),
        version: 1,
    };
    at_once(store.profile_create(profile, wallet, record)).expect("registered");
    Buyer { id, key: key.text }
}

/// Who sells the listing of this place: the same in every history.
pub fn seller(n: usize) -> ProfileId {
    ProfileId::from_bytes([u8::try_from(n).unwrap_or_default() + 1; 16])
}

/// A listing; the last one is free. Its id is the same in every history.
pub fn list(store: &dyn Store, n: usize, now: UnixMillis) -> ListingId {
    let id = ListingId::from_bytes([u8::try_from(n).unwrap_or_default() + 1; 16]);
    let endpoint = Endpoint {
        listing: id,
        url: "http://127.0.0.1:9/".into(),
        upstream_auth: None,
        timeout_ms: 1_000,
        limits: EndpointLimits::default(),
        status: EndpointStatus::Active,
        secret: SigningSecret { key: [1; 32], created_at: now },
        previous_secret: None,
        last_test: None,
        version: 1,
    };
    let listing = Listing {
        id,
        slug: format!("listing-{n}"),
        seller: seller(n),
        name: "a listing".into(),
        description: "what it does".into(),
        category: None,
        delivery_type: DeliveryType::Api,
        formats: vec![Format::Json],
        connection_instructions: None,
        pricing_model: PricingModel::PerCall,
        price: if n == FREE { Micros::ZERO } else { Micros(100_001) },
        preferred_currency: None,
        documentation_url: None,
        example_request: None,
        example_response: None,
        tags: Vec::new(),
        status: ListingStatus::Active,
        suspended_by: None,
        was_active: true,
        created_at: now,
        updated_at: now,
        version: 1,
    };
    at_once(store.listing_create(listing, Some(endpoint))).expect("listed").id
}
