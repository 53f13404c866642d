//! Full-text search: an index in memory over what is on the shelves, written by a thread of its own. It knows texts and
//! ids, and nothing else: what a listing costs and who may see it the shelves decide.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use storage::model::ListingId;
use tantivy::{
    Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, Term,
    collector::TopDocs,
    query::{BooleanQuery, BoostQuery, FuzzyTermQuery, Occur, Query, TermQuery},
    schema::{FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{AsciiFoldingFilter, LowerCaser, RemoveLongFilter, SimpleTokenizer, TextAnalyzer},
};

/// What one listing says, as it is searched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) tags: String,
    pub(crate) description: String,
    pub(crate) category: String,
    pub(crate) seller: String,
}

/// Where texts come from: `None` when the listing is not on the shelves any more.
pub(crate) trait Texts: Send + Sync + 'static {
    /// The texts of a listing as they are now.
    fn text(&self, id: ListingId) -> Option<Text>;
}

/// The search cannot be started, or the index is broken.
#[derive(Debug, thiserror::Error)]
#[error("the search index: {0}")]
pub(crate) struct SearchError(String);

impl From<tantivy::TantivyError> for SearchError {
    fn from(error: tantivy::TantivyError) -> Self {
        Self(error.to_string())
    }
}

const ANALYZER: &str = "words";
/// Longer words are not words.
const WORD_MAX: usize = 40;
/// Words of a question that count; the rest is left out.
const WORDS_MAX: usize = 8;
/// The engine's least, bytes.
const WRITER_BYTES: usize = 16 << 20;
/// Listings between two commits: while many wait, those before them can be found already.
const BATCH: usize = 5_000;
/// From so many letters on one typo is forgiven, and two.
const ONE_TYPO: usize = 4;
const TWO_TYPOS: usize = 8;
/// How much a hit counts beside one in the description.
const NAME: f32 = 4.0;
const TAGS: f32 = 3.0;
const CATEGORY: f32 = 1.5;
const SELLER: f32 = 1.5;
const DESCRIPTION: f32 = 1.0;
/// A word that only begins so, or only nearly so, counts less than any that is the same.
const PREFIX: f32 = 0.4;
const NEAR: f32 = 0.1;

#[derive(Clone, Copy)]
struct Columns {
    id: Field,
    high: Field,
    low: Field,
    /// With how much a hit in each counts.
    texts: [(Field, f32); 5],
}

impl Columns {
    fn make() -> (Schema, Self) {
        let mut schema = Schema::builder();
        let indexing =
            TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(IndexRecordOption::WithFreqs);
        let words = TextOptions::default().set_indexing_options(indexing);
        let mut text = |name: &str, weight: f32| (schema.add_text_field(name, words.clone()), weight);
        let texts = [
            text("name", NAME),
            text("tags", TAGS),
            text("category", CATEGORY),
            text("seller", SELLER),
            text("description", DESCRIPTION),
        ];
        let id = schema.add_bytes_field("id", INDEXED);
        let (high, low) = (schema.add_u64_field("high", FAST), schema.add_u64_field("low", FAST));
        (schema.build(), Self { id, high, low, texts })
    }
}

/// The index, and what it has yet to read.
pub(crate) struct Search {
    columns: Columns,
    index: Index,
    reader: IndexReader,
    waiting: Mutex<Waiting>,
    woken: Condvar,
    matches_max: usize,
}

#[derive(Default)]
struct Waiting {
    /// At most one place a listing, however often it changes.
    listings: HashSet<ListingId>,
    ended: bool,
}

impl Search {
    /// An empty index; a question finds `matches_max` listings at most.
    pub(crate) fn new(matches_max: usize) -> Result<Self, SearchError> {
        let (schema, columns) = Columns::make();
        let index = Index::create_in_ram(schema);
        index.tokenizers().register(ANALYZER, analyzer());
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { columns, index, reader, waiting: Mutex::default(), woken: Condvar::new(), matches_max })
    }

    /// Starts the thread that writes; it ends when the search does.
    pub(crate) fn start(self: &Arc<Self>, texts: Weak<impl Texts>) -> Result<(), SearchError> {
        let writer = self.writer()?;
        let search = Arc::clone(self);
        let run = move || search.write(writer, &texts);
        thread::Builder::new().name("search".into()).spawn(run).map_err(|error| SearchError(error.to_string()))?;
        Ok(())
    }

    fn writer(&self) -> Result<IndexWriter, SearchError> {
        Ok(self.index.writer_with_num_threads(1, WRITER_BYTES)?)
    }

    /// These listings changed, came or went; they can be found as they are now within a moment.
    pub(crate) fn changed(&self, ids: impl IntoIterator<Item = ListingId>) {
        self.waiting.lock().listings.extend(ids);
        self.woken.notify_one();
    }

    /// No more is written.
    pub(crate) fn end(&self) {
        self.waiting.lock().ended = true;
        self.woken.notify_one();
    }

    /// Waits for listings to write. `None`: the end.
    fn take(&self) -> Option<Vec<ListingId>> {
        let mut waiting = self.waiting.lock();
        while waiting.listings.is_empty() && !waiting.ended {
            self.woken.wait(&mut waiting);
        }
        if waiting.ended {
            return None;
        }
        let some: Vec<ListingId> = waiting.listings.iter().take(BATCH).copied().collect();
        for id in &some {
            waiting.listings.remove(id);
        }
        Some(some)
    }

    fn write(&self, mut writer: IndexWriter, texts: &Weak<impl Texts>) {
        while let Some(some) = self.take() {
            let Some(texts) = texts.upgrade() else { return };
            let Err(error) = self.write_some(&mut writer, &*texts, &some) else { continue };
            tracing::error!(%error, "listings could not be indexed; they are tried again");
            let mut waiting = self.waiting.lock();
            waiting.listings.extend(some);
            // Not at once, and no longer when the search ends meanwhile.
            self.woken.wait_for(&mut waiting, Duration::from_secs(1));
            drop(waiting);
            // What was written and not committed must not stand twice; a writer that died is replaced.
            if writer.rollback().is_err() {
                drop(writer);
                match self.writer() {
                    Ok(fresh) => writer = fresh,
                    Err(error) => return tracing::error!(%error, "the search is written no more"),
                }
            }
        }
    }

    fn write_some(&self, writer: &mut IndexWriter, texts: &impl Texts, some: &[ListingId]) -> Result<(), SearchError> {
        for id in some {
            writer.delete_term(Term::from_field_bytes(self.columns.id, &id.bytes()));
            if let Some(text) = texts.text(*id) {
                writer.add_document(self.document(*id, &text))?;
            }
        }
        writer.commit()?;
        self.reader.reload()?;
        Ok(())
    }

    fn document(&self, id: ListingId, text: &Text) -> TantivyDocument {
        let Columns { id: bytes, high, low, texts } = &self.columns;
        let number = u128::from_be_bytes(id.bytes());
        let mut document = TantivyDocument::default();
        document.add_bytes(*bytes, &id.bytes());
        document.add_u64(*high, u64::try_from(number >> 64).unwrap_or_default());
        document.add_u64(*low, u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default());
        let parts = [&text.name, &text.tags, &text.category, &text.seller, &text.description];
        for ((field, _), part) in texts.iter().zip(parts) {
            document.add_text(*field, part);
        }
        document
    }

    /// Listings that have all words of the question, or nearly: the best first. A question without a word finds nothing.
    pub(crate) fn find(&self, question: &str) -> Result<Vec<ListingId>, SearchError> {
        let words = words(question);
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let all = words.iter().map(|word| (Occur::Must, self.word(word))).collect();
        let searcher = self.reader.searcher();
        let best = TopDocs::with_limit(self.matches_max).order_by_score();
        let found = searcher.search(&BooleanQuery::new(all), &best)?;
        let mut ids = Vec::with_capacity(found.len());
        let mut columns = Vec::new();
        for segment in searcher.segment_readers() {
            let fields = segment.fast_fields();
            columns.push((fields.u64("high")?, fields.u64("low")?));
        }
        for (_, place) in found {
            let segment = usize::try_from(place.segment_ord).unwrap_or(usize::MAX);
            let halves = columns
                .get(segment)
                .and_then(|(high, low)| Some((high.first(place.doc_id)?, low.first(place.doc_id)?)));
            if let Some((high, low)) = halves {
                ids.push(ListingId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()));
            }
        }
        Ok(ids)
    }

    /// A word: the same, one that begins so, or one with a typo; in any of the texts.
    fn word(&self, word: &str) -> Box<dyn Query> {
        let mut ways: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        let letters = word.chars().count();
        let typos = u8::from(letters >= ONE_TYPO) + u8::from(letters >= TWO_TYPOS);
        for (field, weight) in self.columns.texts {
            let term = Term::from_field_text(field, word);
            let mut way = |query: Box<dyn Query>, part: f32| {
                ways.push((Occur::Should, Box::new(BoostQuery::new(query, part))));
            };
            way(Box::new(TermQuery::new(term.clone(), IndexRecordOption::WithFreqs)), weight);
            if letters >= 2 {
                way(Box::new(FuzzyTermQuery::new_prefix(term.clone(), 0, true)), scaled(weight, PREFIX));
            }
            if typos > 0 {
                way(Box::new(FuzzyTermQuery::new(term, typos, true)), scaled(weight, NEAR));
            }
        }
        Box::new(BooleanQuery::new(ways))
    }
}

#[expect(clippy::float_arithmetic, reason = "weights of a ranking, never money")]
fn scaled(weight: f32, part: f32) -> f32 {
    weight * part
}

fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(WORD_MAX))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build()
}

/// The words of a question, as those of the texts are cut: each once.
fn words(question: &str) -> Vec<String> {
    let mut analyzer = analyzer();
    let mut stream = analyzer.token_stream(question);
    let mut words: Vec<String> = Vec::new();
    while stream.advance() && words.len() < WORDS_MAX {
        let word = stream.token().text.clone();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use storage::model::UnixMillis;

    use super::*;

    #[derive(Default)]
    struct Shelf(Mutex<HashMap<ListingId, Text>>);

    impl Texts for Shelf {
        fn text(&self, id: ListingId) -> Option<Text> {
            self.0.lock().get(&id).cloned()
        }
    }

    fn text(name: &str, description: &str) -> Text {
        Text { name: name.into(), description: description.into(), ..Text::default() }
    }

    /// An index of these texts, and the places of what a question finds.
    struct Bench {
        search: Search,
        ids: Vec<ListingId>,
    }

    impl Bench {
        fn new(texts: &[Text]) -> Self {
            let search = Search::new(100).expect("an index");
            let ids: Vec<_> = (0..texts.len() as u64).map(|n| ListingId::mint(UnixMillis(n + 1))).collect();
            let shelf = Shelf(Mutex::new(ids.iter().copied().zip(texts.iter().cloned()).collect()));
            let mut writer = search.writer().expect("a writer");
            search.write_some(&mut writer, &shelf, &ids).expect("written");
            Self { search, ids }
        }

        fn find(&self, question: &str) -> Vec<usize> {
            let found = self.search.find(question).expect("found");
            found.iter().map(|id| self.ids.iter().position(|known| known == id).expect("known")).collect()
        }
    }

    #[test]
    fn names_come_before_descriptions_and_typos_after_both() {
        let bench = Bench::new(&[
            text("Forecasts", "Tomorrow's weather for any town."),
            text("Weather report", "What it will be like."),
            text("Wether castration", "For sheep farmers."),
            text("Translation", "Any language."),
        ]);
        assert_eq!(bench.find("weather"), [1, 0, 2]);
        assert_eq!(bench.find("WEATHER tomorrow"), [0], "all words");
        assert_eq!(bench.find("weathr"), [1, 0], "a typo is forgiven");
        assert_eq!(bench.find("wheather"), [1, 2, 0], "two in a long word, and then more is near");
        assert_eq!(bench.find("transl"), [3], "a beginning is enough");
        assert_eq!(bench.find("tränslation"), [3]);
        assert_eq!(bench.find("translatoin lagnuage"), [3]);
        assert_eq!(bench.find("zebra"), [0usize; 0]);
        assert_eq!(bench.find("  !? "), [0usize; 0]);
    }

    #[test]
    fn what_changed_is_found_as_it_is_now_and_once() {
        let search = Search::new(100).expect("an index");
        let mut writer = search.writer().expect("a writer");
        let shelf = Shelf::default();
        let id = ListingId::mint(UnixMillis(1));
        for name in ["first", "second"] {
            shelf.0.lock().insert(id, text(name, ""));
            search.write_some(&mut writer, &shelf, &[id]).expect("written");
        }
        assert_eq!(search.find("second").expect("found"), [id]);
        assert_eq!(search.find("first").expect("found"), []);
        shelf.0.lock().clear();
        search.write_some(&mut writer, &shelf, &[id]).expect("written");
        assert_eq!(search.find("second").expect("found"), []);
    }

    #[test]
    fn no_more_is_found_than_asked_for() {
        let texts: Vec<_> = (0..150).map(|_| text("same", "")).collect();
        assert_eq!(Bench::new(&texts).find("same").len(), 100);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_question_breaks_it(question in "\\PC{0,200}") {
            thread_local!(static BENCH: Bench = Bench::new(&[text("Weather", "report")]));
            BENCH.with(|bench| bench.find(&question));
            prop_assert!(words(&question).len() <= WORDS_MAX);
        }
    }
}
