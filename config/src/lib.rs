//! Every knob of Crochet Gateway: read once, checked, never changed.
//!
//! [`Config::load`] lays the file and the environment over the compiled-in `default.toml`, which is the reference
//! manual. An unknown key or a bad value is a problem; all problems are reported at once.
//!
//! *Never:* reads anything after the start, holds a run-time fact, has an `Option` that means off.

mod edge;
mod read;
mod relay;
mod rereads;
mod secret;
mod sections;
mod units;
mod x402;

use std::{fmt, path::Path};

pub use edge::{Http2, Network, Tls, TrustedHeader};
pub use rereads::Rereads;
pub use secret::Secret;
pub use sections::*;

use read::{Reader, overlay_environment, overlay_file};

/// The compiled-in defaults, with a line of why for each.
pub const DEFAULT: &str = include_str!("../default.toml");

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted.
    pub key: String,
    /// The value given; empty where there is none.
    pub value: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration has {} problem(s):", self.0.len())?;
        for Problem { key, value, reason } in &self.0 {
            if value.is_empty() {
                writeln!(f, "  {key}: {reason}")?;
            } else {
                writeln!(f, "  {key} = {value}: {reason}")?;
            }
        }
        Ok(())
    }
}

impl Config {
    /// The configuration: defaults, then `file`, then the `environment`'s variables that begin with `CROCHET__`.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let text = match file.map(|path| (path, std::fs::read_to_string(path))) {
            None => None,
            Some((_, Ok(text))) => Some(text),
            Some((path, Err(error))) => {
                let reason = format!("cannot be read: {error}");
                return Err(Problems(vec![Problem {
                    key: "--config".into(),
                    value: path.display().to_string(),
                    reason,
                }]));
            }
        };
        Self::from_parts(text.as_deref(), environment)
    }

    /// As [`Config::load`], with the file's text in hand.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn from_parts(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut table: toml::Table = toml::from_str(DEFAULT).map_err(|error| {
            Problems(vec![Problem {
                key: "default.toml".into(),
                value: String::new(),
                reason: error.message().to_string(),
            }])
        })?;
        if let Some(text) = file {
            overlay_file(&mut table, text, &mut problems);
        }
        overlay_environment(&mut table, environment, &mut problems);
        let reader = Reader::new(&table, problems);
        let config = Self::read(&reader);
        let mut problems = reader.problems();
        problems.extend(config.contradictions());
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    /// The effective configuration as text in the form of `default.toml`, secrets as `***`.
    ///
    /// # Errors
    /// As [`Config::from_parts`].
    pub fn effective_text(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)> + Clone,
    ) -> Result<String, Problems> {
        Self::from_parts(file, environment.clone())?;
        let mut table: toml::Table = toml::from_str(DEFAULT).unwrap_or_default();
        if let Some(text) = file {
            overlay_file(&mut table, text, &mut Vec::new());
        }
        overlay_environment(&mut table, environment, &mut Vec::new());
        secret::hide(&mut table);
        Ok(toml::to_string(&table).unwrap_or_default())
    }
}
