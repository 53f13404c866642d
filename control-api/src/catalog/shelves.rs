//! The active listings in memory, in the orders that they are browsed in: filled once at the start, kept by own writes
//! and the change feed. A request never scans the store.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use storage::{
    Change, Store, StoreResult,
    model::{
        Category, CategoryId, DeliveryType, Listing, ListingId, ListingStatus, Micros, Offer, PricingModel, Profile,
        ProfileId, UnixMillis,
    },
};

const SCAN: usize = 500;

/// A listing on the shelves, with who offers it.
#[derive(Clone, Debug)]
pub(crate) struct Shelved {
    pub(crate) listing: Listing,
    pub(crate) provider: Arc<Profile>,
    pub(crate) has_endpoint: bool,
}

/// In which order the shelves are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Newest,
    PriceLow,
    PriceHigh,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) category: Option<CategoryId>,
    pub(crate) pricing_model: Option<PricingModel>,
    pub(crate) delivery_type: Option<DeliveryType>,
    pub(crate) min_price: Option<Micros>,
    pub(crate) max_price: Option<Micros>,
    pub(crate) min_score: Option<u16>,
    pub(crate) seller: Option<ProfileId>,
}

impl Wanted {
    fn matches(&self, shelved: &Shelved) -> bool {
        let listing = &shelved.listing;
        self.category.is_none_or(|wanted| listing.category == Some(wanted))
            && self.pricing_model.is_none_or(|wanted| listing.pricing_model == wanted)
            && self.delivery_type.is_none_or(|wanted| listing.delivery_type == wanted)
            && self.min_price.is_none_or(|least| listing.price >= least)
            && self.max_price.is_none_or(|most| listing.price <= most)
            && self.min_score.is_none_or(|least| shelved.provider.score >= least)
            && self.seller.is_none_or(|wanted| listing.seller == wanted)
    }
}

type NewestKey = (Reverse<UnixMillis>, Reverse<ListingId>);
type PriceLowKey = (Micros, NewestKey);
type PriceHighKey = (Reverse<Micros>, NewestKey);

fn newest(listing: &Listing) -> NewestKey {
    (Reverse(listing.created_at), Reverse(listing.id))
}

/// All orders hold the same listings; `put` and `remove` are the only writers.
#[derive(Debug, Default)]
struct Shelves {
    by_id: HashMap<ListingId, Arc<Shelved>>,
    newest: BTreeMap<NewestKey, Arc<Shelved>>,
    price_low: BTreeMap<PriceLowKey, Arc<Shelved>>,
    price_high: BTreeMap<PriceHighKey, Arc<Shelved>>,
    counts: HashMap<CategoryId, usize>,
}

impl Shelves {
    fn put(&mut self, shelved: Shelved) {
        self.remove(shelved.listing.id);
        let shelved = Arc::new(shelved);
        let listing = &shelved.listing;
        self.by_id.insert(listing.id, shelved.clone());
        self.newest.insert(newest(listing), shelved.clone());
        self.price_low.insert((listing.price, newest(listing)), shelved.clone());
        self.price_high.insert((Reverse(listing.price), newest(listing)), shelved.clone());
        if let Some(category) = listing.category {
            *self.counts.entry(category).or_default() += 1;
        }
    }

    fn remove(&mut self, id: ListingId) {
        let Some(shelved) = self.by_id.remove(&id) else { return };
        let listing = &shelved.listing;
        self.newest.remove(&newest(listing));
        self.price_low.remove(&(listing.price, newest(listing)));
        self.price_high.remove(&(Reverse(listing.price), newest(listing)));
        if let Some(count) = listing.category.and_then(|category| self.counts.get_mut(&category)) {
            *count = count.saturating_sub(1);
        }
    }

    fn page(&self, wanted: &Wanted, order: Order, skip: usize, limit: usize) -> (Vec<Arc<Shelved>>, usize) {
        match order {
            Order::Newest => pick(self.newest.values(), wanted, skip, limit),
            Order::PriceLow => pick(self.price_low.values(), wanted, skip, limit),
            Order::PriceHigh => pick(self.price_high.values(), wanted, skip, limit),
        }
    }
}

fn pick<'a>(
    shelf: impl Iterator<Item = &'a Arc<Shelved>>,
    wanted: &Wanted,
    skip: usize,
    limit: usize,
) -> (Vec<Arc<Shelved>>, usize) {
    let mut page = Vec::with_capacity(limit);
    let mut total = 0;
    for shelved in shelf.filter(|shelved| wanted.matches(shelved)) {
        if total >= skip && page.len() < limit {
            page.push(shelved.clone());
        }
        total += 1;
    }
    (page, total)
}

/// The catalogue of this node.
pub(crate) struct Catalogue {
    store: Arc<dyn Store>,
    shelves: RwLock<Shelves>,
    categories: Vec<Category>,
    cursor: Mutex<u64>,
}

impl Catalogue {
    /// Reads the store once. What changes meanwhile is in the feed from before the first read on.
    pub(crate) async fn load(store: Arc<dyn Store>) -> StoreResult<Self> {
        let cursor = store.changes_since(0).await?.next;
        let categories = store.category_list().await?;
        let catalogue = Self { store, shelves: RwLock::default(), categories, cursor: Mutex::new(cursor) };
        catalogue.scan().await?;
        Ok(catalogue)
    }

    async fn scan(&self) -> StoreResult<()> {
        let mut shelves = Shelves::default();
        let mut providers: HashMap<ProfileId, Arc<Profile>> = HashMap::new();
        let mut after = None;
        loop {
            let listings = self.store.listing_scan(after, SCAN).await?;
            let Some(last) = listings.last() else { break };
            after = Some(last.id);
            for listing in listings {
                if let Some(shelved) = self.shelve(listing, &mut providers).await? {
                    shelves.put(shelved);
                }
            }
        }
        *self.shelves.write() = shelves;
        Ok(())
    }

    async fn shelve(
        &self,
        listing: Listing,
        providers: &mut HashMap<ProfileId, Arc<Profile>>,
    ) -> StoreResult<Option<Shelved>> {
        if listing.status != ListingStatus::Active {
            return Ok(None);
        }
        let provider = match providers.get(&listing.seller) {
            Some(provider) => provider.clone(),
            None => {
                let Some(profile) = self.store.profile_get(listing.seller).await? else { return Ok(None) };
                let profile = Arc::new(profile);
                providers.insert(listing.seller, profile.clone());
                profile
            }
        };
        // A paid listing has an endpoint; of a free one it has to be looked up.
        let has_endpoint = listing.pricing_model == PricingModel::PerCall
            || self.store.listing_get(listing.id).await?.is_some_and(|offer| offer.endpoint.is_some());
        Ok(Some(Shelved { listing, provider, has_endpoint }))
    }

    /// Reads anew what changed.
    pub(crate) async fn refresh(&self, change: Change) -> StoreResult<()> {
        match change {
            Change::ApiKey(_) => Ok(()),
            Change::Listing(id) => self.refresh_listing(id).await,
            Change::Profile(id) => self.refresh_provider(id).await,
        }
    }

    async fn refresh_listing(&self, id: ListingId) -> StoreResult<()> {
        let offer = self.store.listing_get(id).await?;
        let shelved =
            match offer {
                None => None,
                Some(Offer { listing, .. }) if listing.status != ListingStatus::Active => None,
                Some(Offer { listing, endpoint }) => self.store.profile_get(listing.seller).await?.map(|provider| {
                    Shelved { listing, provider: Arc::new(provider), has_endpoint: endpoint.is_some() }
                }),
            };
        let mut shelves = self.shelves.write();
        match shelved {
            None => shelves.remove(id),
            Some(shelved) => {
                let is_newer = |known: &Arc<Shelved>| known.listing.version > shelved.listing.version;
                if !shelves.by_id.get(&id).is_some_and(is_newer) {
                    shelves.put(shelved);
                }
            }
        }
        Ok(())
    }

    async fn refresh_provider(&self, id: ProfileId) -> StoreResult<()> {
        let Some(profile) = self.store.profile_get(id).await? else { return Ok(()) };
        let provider = Arc::new(profile);
        let mut shelves = self.shelves.write();
        let own: Vec<Arc<Shelved>> =
            shelves.by_id.values().filter(|shelved| shelved.listing.seller == id).cloned().collect();
        for shelved in own {
            shelves.put(Shelved { provider: provider.clone(), ..(*shelved).clone() });
        }
        Ok(())
    }

    /// Catches up with the change feed.
    pub(crate) async fn follow(&self) -> StoreResult<()> {
        let cursor = *self.cursor.lock();
        let changes = self.store.changes_since(cursor).await?;
        if changes.gap {
            self.scan().await?;
        }
        for change in changes.items {
            self.refresh(change).await?;
        }
        *self.cursor.lock() = changes.next;
        Ok(())
    }

    /// One page, and how many match in all.
    pub(crate) fn page(&self, wanted: &Wanted, order: Order, skip: usize, limit: usize) -> (Vec<Arc<Shelved>>, usize) {
        self.shelves.read().page(wanted, order, skip, limit)
    }

    /// All categories, by name, each with how many listings it has.
    pub(crate) fn categories(&self) -> Vec<(&Category, usize)> {
        let shelves = self.shelves.read();
        let count = |category: &Category| shelves.counts.get(&category.id).copied().unwrap_or(0);
        self.categories.iter().map(|category| (category, count(category))).collect()
    }

    /// The category with this id.
    pub(crate) fn category(&self, id: CategoryId) -> Option<&Category> {
        self.categories.iter().find(|category| category.id == id)
    }

    /// The category with this id or slug.
    pub(crate) fn category_named(&self, name: &str) -> Option<&Category> {
        let id = name.parse::<CategoryId>().ok();
        self.categories.iter().find(|category| category.slug == name || Some(category.id) == id)
    }
}
