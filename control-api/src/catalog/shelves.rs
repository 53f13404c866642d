//! The active listings in memory, in the orders that they are browsed in: filled once at the start, kept by own writes
//! and the change feed. A request never scans the store.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use storage::{
    Change, Store, StoreError, StoreResult,
    model::{
        Category, CategoryId, Clock, DeliveryType, Listing, ListingId, ListingStatus, Micros, Offer, PricingModel,
        Profile, ProfileId, UnixMillis, day_of,
    },
};

use super::{
    search::{Search, SearchError, Text, Texts},
    stats::Figures,
};

const SCAN: usize = 500;

/// A listing on the shelves, with who offers it.
#[derive(Clone, Debug)]
pub(crate) struct Shelved {
    pub(crate) listing: Listing,
    pub(crate) provider: Arc<Profile>,
    pub(crate) has_endpoint: bool,
    pub(crate) figures: Figures,
}

/// In which order the shelves are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// By what was asked for in words; without words, as `Newest`.
    Relevance,
    Newest,
    Popular,
    Rating,
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
    /// Words that are looked for; the shelves leave them to the search.
    pub(crate) words: Option<String>,
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

/// A page of the shelves.
#[derive(Debug, Default)]
pub(crate) struct Picked {
    pub(crate) rows: Vec<Arc<Shelved>>,
    /// How many match in all.
    pub(crate) total: usize,
}

type NewestKey = (Reverse<UnixMillis>, Reverse<ListingId>);
type CountKey = (Reverse<u64>, NewestKey);
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
    popular: BTreeMap<CountKey, Arc<Shelved>>,
    rating: BTreeMap<CountKey, Arc<Shelved>>,
    price_low: BTreeMap<PriceLowKey, Arc<Shelved>>,
    price_high: BTreeMap<PriceHighKey, Arc<Shelved>>,
    of_seller: BTreeSet<(ProfileId, ListingId)>,
    counts: HashMap<CategoryId, usize>,
}

impl Shelves {
    fn put(&mut self, shelved: Shelved) {
        self.remove(shelved.listing.id);
        let shelved = Arc::new(shelved);
        let listing = &shelved.listing;
        self.by_id.insert(listing.id, shelved.clone());
        self.newest.insert(newest(listing), shelved.clone());
        self.popular.insert((Reverse(shelved.figures.calls.calls), newest(listing)), shelved.clone());
        self.rating.insert((Reverse(shelved.figures.rank), newest(listing)), shelved.clone());
        self.of_seller.insert((listing.seller, listing.id));
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
        self.popular.remove(&(Reverse(shelved.figures.calls.calls), newest(listing)));
        self.rating.remove(&(Reverse(shelved.figures.rank), newest(listing)));
        self.of_seller.remove(&(listing.seller, listing.id));
        self.price_low.remove(&(listing.price, newest(listing)));
        self.price_high.remove(&(Reverse(listing.price), newest(listing)));
        if let Some(count) = listing.category.and_then(|category| self.counts.get_mut(&category)) {
            *count = count.saturating_sub(1);
        }
    }

    fn of_seller(&self, seller: ProfileId) -> Vec<Arc<Shelved>> {
        let (first, last) = ([0; 16], [u8::MAX; 16]);
        let own = self.of_seller.range((seller, ListingId::from_bytes(first))..=(seller, ListingId::from_bytes(last)));
        own.filter_map(|(_, id)| self.by_id.get(id).cloned()).collect()
    }

    fn page(&self, wanted: &Wanted, found: Option<&[ListingId]>, order: Order, skip: usize, limit: usize) -> Picked {
        let among: Option<HashSet<ListingId>> = match (found, order) {
            (Some(found), Order::Relevance) => {
                return pick(found.iter().filter_map(|id| self.by_id.get(id)), wanted, None, (skip, limit));
            }
            (found, _) => found.map(|found| found.iter().copied().collect()),
        };
        let (among, part) = (among.as_ref(), (skip, limit));
        match order {
            Order::Newest | Order::Relevance => pick(self.newest.values(), wanted, among, part),
            Order::Popular => pick(self.popular.values(), wanted, among, part),
            Order::Rating => pick(self.rating.values(), wanted, among, part),
            Order::PriceLow => pick(self.price_low.values(), wanted, among, part),
            Order::PriceHigh => pick(self.price_high.values(), wanted, among, part),
        }
    }
}

fn pick<'a>(
    shelf: impl Iterator<Item = &'a Arc<Shelved>>,
    wanted: &Wanted,
    among: Option<&HashSet<ListingId>>,
    (skip, limit): (usize, usize),
) -> Picked {
    let mut picked = Picked { rows: Vec::with_capacity(limit), total: 0 };
    let fits = |shelved: &&Arc<Shelved>| {
        among.is_none_or(|among| among.contains(&shelved.listing.id)) && wanted.matches(shelved)
    };
    for shelved in shelf.filter(fits) {
        if picked.total >= skip && picked.rows.len() < limit {
            picked.rows.push(shelved.clone());
        }
        picked.total += 1;
    }
    picked
}

/// The catalogue of this node.
pub(crate) struct Catalogue {
    store: Arc<dyn Store>,
    clock: Clock,
    shelves: RwLock<Shelves>,
    search: Arc<Search>,
    categories: Vec<Category>,
    cursor: Mutex<u64>,
}

impl Texts for Catalogue {
    fn text(&self, id: ListingId) -> Option<Text> {
        let shelved = self.shelves.read().by_id.get(&id).cloned()?;
        let listing = &shelved.listing;
        let category = listing.category.and_then(|id| self.category(id));
        Some(Text {
            name: listing.name.clone(),
            tags: listing.tags.join(" "),
            description: listing.description.clone(),
            category: category.map(|category| category.name.clone()).unwrap_or_default(),
            seller: shelved.provider.display_name.clone(),
        })
    }
}

impl Drop for Catalogue {
    fn drop(&mut self) {
        self.search.end();
    }
}

fn broken(error: SearchError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

impl Catalogue {
    /// Reads the store once. What changes meanwhile is in the feed from before the first read on. `matches_max`: how
    /// many listings a search finds at most.
    pub(crate) async fn load(store: Arc<dyn Store>, clock: Clock, matches_max: usize) -> StoreResult<Arc<Self>> {
        let cursor = store.changes_since(0).await?.next;
        let categories = store.category_list().await?;
        let search = Arc::new(Search::new(matches_max).map_err(broken)?);
        let (shelves, cursor) = (RwLock::default(), Mutex::new(cursor));
        let catalogue = Arc::new(Self { store, clock, shelves, search, categories, cursor });
        catalogue.scan().await?;
        catalogue.search.start(Arc::downgrade(&catalogue)).map_err(broken)?;
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
        let mut all: Vec<ListingId> = shelves.by_id.keys().copied().collect();
        let before = std::mem::replace(&mut *self.shelves.write(), shelves);
        // Those that are gone are looked for in vain, and so leave the index.
        all.extend(before.by_id.into_keys());
        self.search.changed(all);
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
        let figures = self.figures(listing.id).await?;
        Ok(Some(Shelved { listing, provider, has_endpoint, figures }))
    }

    /// The figures of a listing, on the shelves or not.
    pub(crate) async fn figures(&self, id: ListingId) -> StoreResult<Figures> {
        Figures::read(&*self.store, id, day_of(self.clock.now())).await
    }

    /// Reads the figures of these listings anew.
    pub(crate) async fn refresh_figures(&self, ids: &[ListingId]) -> StoreResult<()> {
        for id in ids {
            if !self.shelves.read().by_id.contains_key(id) {
                continue;
            }
            let figures = self.figures(*id).await?;
            let mut shelves = self.shelves.write();
            let known = shelves.by_id.get(id).cloned();
            if let Some(known) = known.filter(|known| known.figures != figures) {
                shelves.put(Shelved { figures, ..(*known).clone() });
            }
        }
        Ok(())
    }

    /// Reads the figures of all listings anew: days go by without a call, too. Lets others run meanwhile.
    pub(crate) async fn refresh_all_figures(&self) -> StoreResult<()> {
        let all: Vec<ListingId> = self.shelves.read().by_id.keys().copied().collect();
        for some in all.chunks(SCAN) {
            self.refresh_figures(some).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
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
        let figures = self.figures(id).await?;
        let shelved = match offer {
            None => None,
            Some(Offer { listing, .. }) if listing.status != ListingStatus::Active => None,
            Some(Offer { listing, endpoint }) => self.store.profile_get(listing.seller).await?.map(|provider| {
                Shelved { listing, provider: Arc::new(provider), has_endpoint: endpoint.is_some(), figures }
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
        drop(shelves);
        self.search.changed([id]);
        Ok(())
    }

    async fn refresh_provider(&self, id: ProfileId) -> StoreResult<()> {
        let Some(profile) = self.store.profile_get(id).await? else { return Ok(()) };
        let provider = Arc::new(profile);
        let mut shelves = self.shelves.write();
        let mut renamed = Vec::new();
        for shelved in shelves.of_seller(id) {
            if shelved.provider.version > provider.version {
                continue;
            }
            if shelved.provider.display_name != provider.display_name {
                renamed.push(shelved.listing.id);
            }
            shelves.put(Shelved { provider: provider.clone(), ..(*shelved).clone() });
        }
        drop(shelves);
        self.search.changed(renamed);
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
    ///
    /// # Errors
    /// When the search is broken.
    pub(crate) fn page(&self, wanted: &Wanted, order: Order, skip: usize, limit: usize) -> Result<Picked, SearchError> {
        let found = wanted.words.as_deref().map(|words| self.search.find(words)).transpose()?;
        Ok(self.shelves.read().page(wanted, found.as_deref(), order, skip, limit))
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
