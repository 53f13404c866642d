//! Secrets: given by the environment or by a file of their own, never by the configuration file, and never printed.
//!
//! A knob `x` that has a twin `x_file` is one: the rule needs no list, so a new secret cannot be forgotten.

use std::{fmt, path::Path};

use toml::{Table, Value};
use zeroize::Zeroizing;

/// What stands in the place of a secret wherever one would be shown.
pub(crate) const HIDDEN: &str = "***";
/// A file that holds a secret is no longer than this, bytes.
const FILE_MAX: u64 = 64 << 10;
/// Words in a name that make its value one to hide, even where the name is not known.
const TELLING: [&str; 6] = ["key", "secret", "token", "password", "credential", "auth"];

/// A secret's text. Shown as `***`; wiped from memory when it goes.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// This text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// None was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { HIDDEN })
    }
}

/// Whether the knob `name` of `section` holds a secret.
pub(crate) fn is_secret(section: &Table, name: &str) -> bool {
    section.contains_key(&format!("{name}_file"))
}

/// `value` as a problem may show it: a name that nobody knows may be a misspelt secret's.
pub(crate) fn shown(name: &str, value: String) -> String {
    let name = name.to_ascii_lowercase();
    if TELLING.iter().any(|word| name.contains(word)) && !name.ends_with("_file") { HIDDEN.into() } else { value }
}

/// Puts `***` in the place of every secret that was given.
pub(crate) fn hide(table: &mut Table) {
    let secrets: Vec<String> = table.keys().filter(|name| is_secret(table, name)).cloned().collect();
    for (name, value) in table.iter_mut() {
        match value {
            Value::Table(inner) => hide(inner),
            Value::String(text) if secrets.contains(name) && !text.is_empty() => *text = HIDDEN.into(),
            _ => {}
        }
    }
}

/// The secret in a file, without the line's end.
///
/// # Errors
/// Why it cannot be read; never with what is in it.
pub(crate) fn read_file(path: &Path) -> Result<Secret, String> {
    let told = |error: std::io::Error| format!("cannot be read: {error}");
    if std::fs::metadata(path).map_err(told)?.len() > FILE_MAX {
        return Err(format!("is larger than {FILE_MAX} bytes"));
    }
    let bytes = Zeroizing::new(std::fs::read(path).map_err(told)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not text".to_string())?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("is empty".into()),
        text => Ok(Secret::new(text.to_string())),
    }
}

/// Reads a key of 32 bytes, written as 64 hexadecimal digits.
///
/// # Errors
/// What would be right.
pub(crate) fn key_of_32_bytes(text: &str) -> Result<(), String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err("32 random bytes as 64 hexadecimal digits, as `openssl rand -hex 32` writes them".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const KEY: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

    fn environment(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.into(), value.into())]
    }

    #[test]
    fn a_secret_comes_from_the_environment_or_from_a_file_of_its_own() {
        let config = Config::from_parts(None, environment("CROCHET__STORAGE__MASTER_KEY", KEY)).expect("good");
        assert_eq!(config.storage.master_key.expose(), KEY);
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{KEY}\n")).expect("written");
        let file = format!("[storage]\nmaster_key_file = {path:?}\n");
        let config = Config::from_parts(Some(&file), []).expect("good");
        assert_eq!(config.storage.master_key.expose(), KEY);
        let both = Config::from_parts(Some(&file), environment("CROCHET__STORAGE__MASTER_KEY", KEY));
        assert!(both.expect_err("two").to_string().contains("not both"));
    }

    #[test]
    fn a_secret_in_the_configuration_file_is_refused() {
        let problems = Config::from_parts(Some(&format!("[storage]\nmaster_key = {KEY:?}\n")), []);
        let text = problems.expect_err("in the open").to_string();
        assert!(text.contains("storage.master_key_file") && !text.contains(KEY), "{text}");
    }

    #[test]
    fn a_secret_is_never_printed_not_even_a_misspelt_one() {
        for (name, value) in [
            ("CROCHET__STORAGE__MASTER_KEY", KEY.to_string()),
            ("CROCHET__STORAGE__MASTER_KEY", format!("{KEY}00")),
            ("CROCHET__STORAGE__MASTERKEY", KEY.to_string()),
            ("CROCHET__STORE__MASTER_KEY", KEY.to_string()),
        ] {
            let said = match Config::from_parts(None, environment(name, &value)) {
                Ok(config) => format!("{config:?}"),
                Err(problems) => format!("{problems} {problems:?}"),
            };
            assert!(!said.contains(KEY) && said.contains(HIDDEN), "{name}: {said}");
        }
        let misspelt = Config::from_parts(Some(&format!("[storage]\nmaster_kye = {KEY:?}\nmaster_kee={KEY:?}")), []);
        let said = misspelt.expect_err("unknown").to_string();
        assert!(!said.contains(&format!("master_kee = {KEY}")), "{said}");
        let text = Config::effective_text(None, environment("CROCHET__STORAGE__MASTER_KEY", KEY)).expect("good");
        assert!(text.contains("master_key = \"***\"") && !text.contains(KEY), "{text}");
        assert!(text.contains("previous_master_key = \"\""), "one that was not given is not hidden: {text}");
    }

    #[test]
    fn a_file_that_holds_no_key_is_told_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        for (n, (text, wanted)) in
            [("", "is empty"), ("short", "64 hexadecimal digits"), ("\u{0}\n", "64 hexadecimal digits")]
                .iter()
                .enumerate()
        {
            let path = folder.path().join(n.to_string());
            std::fs::write(&path, text).expect("written");
            let file = format!("[storage]\nmaster_key_file = {path:?}\n");
            let said = Config::from_parts(Some(&file), []).expect_err("no key").to_string();
            assert!(said.contains("storage.master_key_file") && said.contains(wanted), "{said}");
        }
        let said = Config::from_parts(Some("[storage]\nmaster_key_file = \"/nowhere/at/all\"\n"), []);
        assert!(said.expect_err("missing").to_string().contains("cannot be read"));
    }

    #[test]
    fn production_needs_a_master_key() {
        let file = "mode = \"production\"\n[proxy]\npublic_url = \"https://gw.example\"\n[payments.sandbox]\nenabled = false\n";
        let said = Config::from_parts(Some(file), []).expect_err("no key").to_string();
        assert!(said.contains("storage.master_key_file") && said.contains("production mode"), "{said}");
        Config::from_parts(Some(file), environment("CROCHET__STORAGE__MASTER_KEY", KEY)).expect("good");
    }
}
