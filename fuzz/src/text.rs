//! Texts of others: private URLs, configurations, the control API's bodies and queries.

use std::{net::IpAddr, sync::LazyLock};

use actors::{
    refusal::Refusal,
    seller::Target,
    vetting::{Unfit, Vetting},
};
use config::Config;
use control_api::fuzzing;
use storage::model::{ListingId, UnixMillis};

const OWN: &str = "https://gateway.example.org";

/// The rules of a gateway in dev mode and of one in production.
static RULES: LazyLock<[Vetting; 2]> = LazyLock::new(|| {
    let production = "mode = \"production\"\n[proxy]\nlisten = \"0.0.0.0:443\"\n\
                      public_url = \"https://gateway.example.org\"\n[payments.sandbox]\nenabled = false\n";
    let key = ("CROCHET__STORAGE__MASTER_KEY".to_string(), "07".repeat(32));
    let rules = |file| Vetting::new(&Config::from_parts(Some(file), [key.clone()]).expect("a configuration"), OWN);
    [rules(""), rules(production)]
});

/// Reads a private URL as a listing's field is read.
pub fn read_url(text: &str, is_dev: bool) -> Result<String, Unfit> {
    RULES[usize::from(!is_dev)].read_url(text).map(Into::into)
}

/// A private URL that is accepted is kept in a form that reads as itself, and names a host of the public internet.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for text in [text.clone(), format!("https://{text}").into(), format!("https://seller.example.org/{text}").into()] {
        if let Ok(kept) = read_url(&text, false) {
            assert_eq!(read_url(&kept, false).as_ref(), Ok(&kept), "what is kept reads as itself");
            assert!(kept.is_ascii() && kept.starts_with("https://") && !kept.contains(['#', '\\', ' ']), "{kept}");
            check_host(&kept);
        }
        if let Ok(kept) = read_url(&text, true) {
            assert_eq!(read_url(&kept, true).as_ref(), Ok(&kept), "what is kept reads as itself");
        }
    }
}

/// Looks at the text alone, as one who knows nothing of URLs but where the host stands.
fn check_host(kept: &str) {
    let rest = kept.strip_prefix("https://").expect("https");
    let authority = rest.split('/').next().expect("an authority");
    assert!(!authority.contains(['@', '[', ']', '%', '?']), "{kept}");
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let port: u16 = port.parse().expect("a port");
    assert!(port == 443 || port >= 1024, "{kept}");
    assert!(host.parse::<IpAddr>().is_err(), "{kept} is an address");
    assert!(host.contains('.') && !host.ends_with('.') && host == host.to_lowercase(), "{kept}");
    let last = host.rsplit('.').next().expect("a label");
    assert!(!["internal", "local", "localhost", "arpa", "onion", "invalid"].contains(&last), "{kept}");
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(!last.bytes().all(|b| b.is_ascii_digit()) && !is_hexadecimal, "{kept} may be read as an address");
    assert!(authority != "gateway.example.org", "{kept} is the gateway itself");
    let target = Target::parse(ListingId::mint(UnixMillis(1)), kept).expect("what is kept can be called");
    assert_eq!((target.host.as_str(), target.port, target.authority.as_str()), (host, port, authority));
    assert!(target.is_tls && target.path.starts_with(['/', '?']));
    assert!(target.path.bytes().all(|b| b.is_ascii_graphic()), "a target without blanks: {}", target.path);
}

/// A file and an environment, behind a NUL: a configuration, or problems that can be shown; never neither. What is shown
/// as in force is a file that means the same.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (file, variables) = text.split_once('\0').unwrap_or((&text, ""));
    let environment: Vec<(String, String)> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("CROCHET__{name}"), value.to_string()))
        .collect();
    match Config::from_parts(Some(file), environment.clone()) {
        Ok(config) => {
            let shown = Config::effective_text(Some(file), environment).expect("it was good");
            // A secret that was given is hidden there, and what is hidden cannot be read.
            if !shown.contains("\"***\"") {
                let again = Config::from_parts(Some(&shown), []).expect("what is in force is a configuration");
                assert_eq!(format!("{again:?}"), format!("{config:?}"));
            }
        }
        Err(problems) => {
            assert!(!problems.0.is_empty() && problems.0.iter().all(|problem| !problem.reason.is_empty()));
            assert!(!problems.to_string().is_empty());
        }
    }
}

/// A refusal that names fields is JSON and of a size that its reader can bear.
fn check_refusal(refused: Result<(), Refusal>, given: usize) {
    let Err(refusal) = refused else { return };
    let body = refusal.body("https://gateway.example.org");
    serde_json::from_slice::<serde_json::Value>(&body).expect("a refusal is JSON");
    assert!(body.len() < 64 * 1024, "{} bytes of refusal for {given}", body.len());
}

/// Any body of the control API is read or refused.
pub fn body(data: &[u8]) {
    check_refusal(fuzzing::body(data), data.len());
}

/// Any query string is read or refused.
pub fn query(data: &[u8]) {
    check_refusal(fuzzing::query(&String::from_utf8_lossy(data)), data.len());
}
