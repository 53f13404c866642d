//! Query strings, read by name: every parameter that is wrong, unknown or given twice is reported, all at once.

use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, str::FromStr};

use actors::refusal::{Code, Refusal};
use storage::model::{Micros, UnixMillis};

use crate::fields::REPORTED_MAX;

/// Parameters that have not been read yet, and what is wrong with those that have.
#[derive(Debug, Default)]
pub(crate) struct Query {
    given: BTreeMap<String, String>,
    wrong: BTreeMap<String, String>,
}

impl Query {
    /// Reads a query string with `read`, which takes parameters by name.
    ///
    /// # Errors
    /// `ValidationFailed` that names every parameter that is wrong, unknown or given twice.
    pub(crate) fn read<T>(text: &str, read: impl FnOnce(&mut Self) -> T) -> Result<T, Refusal> {
        let mut query = Self::default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let name: String = name.chars().take(64).collect();
            if query.given.insert(name.clone(), value.into_owned()).is_some() {
                query.wrong(&name, "is given twice");
            }
        }
        let taken = read(&mut query);
        for name in std::mem::take(&mut query.given).into_keys() {
            query.wrong.entry(name).or_insert_with(|| "is not a parameter of this route".into());
        }
        if query.wrong.is_empty() {
            return Ok(taken);
        }
        let refusal = Refusal::from(Code::ValidationFailed);
        let reported = query.wrong.iter().take(REPORTED_MAX);
        Err(reported.fold(refusal, |refusal, (name, reason)| refusal.field(name, reason)))
    }

    /// Notes that a parameter is wrong.
    pub(crate) fn wrong(&mut self, name: &str, reason: impl Into<String>) {
        self.wrong.entry(name.to_string()).or_insert_with(|| reason.into());
    }

    /// The text of a parameter.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name)
    }

    /// A whole number in a range.
    pub(crate) fn number<N>(&mut self, name: &str, range: RangeInclusive<N>) -> Option<N>
    where
        N: FromStr + PartialOrd + Display,
    {
        let text = self.text(name)?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && range.contains(number));
        if number.is_none() {
            self.wrong(name, format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// One of these words.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let choice = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if choice.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.wrong(name, format!("must be one of {}", words.join(", ")));
        }
        choice
    }

    /// Something that reads itself from text: an id.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str, what: &str) -> Option<T> {
        let text = self.text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.wrong(name, format!("must be {what}"));
        }
        value
    }

    /// A decimal number of currency units.
    pub(crate) fn price(&mut self, name: &str) -> Option<Micros> {
        let text = self.text(name)?;
        let price = Micros::parse_units(&text);
        if price.is_none() {
            self.wrong(name, "must be a decimal number with at most 6 decimals");
        }
        price
    }

    /// A moment.
    pub(crate) fn moment(&mut self, name: &str) -> Option<UnixMillis> {
        let text = self.text(name)?;
        let moment = UnixMillis::parse(&text);
        if moment.is_none() {
            self.wrong(name, "must be a moment in UTC such as 2026-01-31T12:00:00Z");
        }
        moment
    }

    /// How many rows a page has: 1 to 100, 20 unless told.
    pub(crate) fn limit(&mut self) -> usize {
        self.number("limit", 1..=100).unwrap_or(20)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrong(text: &str, read: impl FnOnce(&mut Query)) -> Vec<String> {
        let refusal = Query::read(text, read).expect_err("wrong");
        let body: serde_json::Value = serde_json::from_slice(&refusal.body("")).expect("JSON");
        let fields = body["error"]["details"]["fields"].as_object().expect("fields").clone();
        fields.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let names = wrong("limit=0&page=1&page=2&sort=best&typo=1&min_price=1e3", |query| {
            query.limit();
            query.number("page", 1..=10);
            query.choice("sort", &[("newest", 1)]);
            query.price("min_price");
        });
        assert_eq!(names, ["limit", "min_price", "page", "sort", "typo"]);
        assert_eq!(
            wrong("limit=%2B5", |query| {
                query.limit();
            }),
            ["limit"]
        );
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let read = Query::read("", |query| (query.limit(), query.moment("from"))).expect("good");
        assert_eq!(read, (20, None));
    }

    #[test]
    fn of_thousands_that_are_wrong_some_are_named() {
        let text: String = (0..5_000).map(|n| format!("a{n}=&")).collect();
        assert_eq!(wrong(&text, |_| ()).len(), REPORTED_MAX);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Query::read(&text, |query| (query.limit(), query.price("a"), query.moment("b")));
        }
    }
}
