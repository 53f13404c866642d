//! What the operations address says.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Client, Method};

use super::{
    Gateway,
    agent::{Answer, send},
};

/// One series of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A page of metrics, read by our own eyes.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    pub kinds: BTreeMap<String, String>,
    pub helps: BTreeMap<String, String>,
    pub series: Vec<Series>,
}

pub async fn look(gateway: &Gateway, path: &str) -> Answer {
    send(&Client::new(), Method::GET, format!("{}{path}", gateway.operations), "", &[], None).await
}

impl Scrape {
    pub async fn of(gateway: &Gateway) -> Self {
        let page = look(gateway, "/metrics").await;
        assert_eq!(page.status, 200);
        Self::read(&String::from_utf8(page.bytes).expect("UTF-8"))
    }

    pub fn read(page: &str) -> Self {
        let mut scrape = Self::default();
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(scrape.kinds.insert(name.into(), kind.into()).is_none(), "{name} has two types");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help");
                scrape.helps.insert(name.into(), help.into());
            } else {
                scrape.series.push(Series::read(line));
            }
        }
        scrape
    }

    /// The sum of all series of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |series: &Series| {
            labels.iter().all(|(label, value)| series.labels.get(*label).map(String::as_str) == Some(*value))
        };
        self.series.iter().filter(|series| series.name == name && has(series)).map(|series| series.value).sum()
    }

    /// Every series without its value.
    pub fn names(&self) -> BTreeSet<String> {
        self.series.iter().map(|series| format!("{}{:?}", series.name, series.labels)).collect()
    }
}

impl Series {
    fn read(line: &str) -> Self {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a series: {line}"));
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("labels without an end: {line}"));
        let pair = |text: &str| {
            let (label, value) = text.split_once('=').unwrap_or_else(|| panic!("not a label: {line}"));
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quoted");
            (label.to_string(), value.to_string())
        };
        let labels = labels.split(',').filter(|text| !text.is_empty()).map(pair).collect();
        Self { name: name.into(), labels, value: value.parse().unwrap_or_else(|_| panic!("not a number: {line}")) }
    }
}
