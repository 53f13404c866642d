//! The rule for private URLs, at the moment of writing. What a name resolves to is checked again, by the one who dials.

use url::{Host, Url};

const LENGTH_MAX: usize = 2048;

/// Names that lead inside, or nowhere.
const INSIDE: [&str; 6] = ["internal", "local", "localhost", "arpa", "onion", "invalid"];

/// Reads a private URL and returns the parser's own form of it. `own` is our public URL: a listing that calls the
/// gateway would call itself.
///
/// # Errors
/// Why it may not be called. The reason never repeats the URL.
pub(crate) fn read(text: &str, is_dev: bool, own: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LENGTH_MAX {
        return Err(format!("must have 1 to {LENGTH_MAX} bytes"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("must not hold blanks, control characters or backslashes".into());
    }
    let url = Url::parse(text).map_err(|_| "must be a URL")?;
    let is_http_allowed = is_dev && url.scheme() == "http";
    if url.scheme() != "https" && !is_http_allowed {
        return Err(if is_dev { "must begin with https:// or http://" } else { "must begin with https://" }.into());
    }
    if has_user_info(text) || !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password".into());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment".into());
    }
    let is_loopback = check_host(&url, is_dev)?;
    check_port(&url, is_loopback && is_dev)?;
    if Url::parse(own)
        .is_ok_and(|own| own.host() == url.host() && own.port_or_known_default() == url.port_or_known_default())
    {
        return Err("must not be this gateway".into());
    }
    Ok(url.into())
}

/// An empty user name is no longer seen once it is parsed.
fn has_user_info(text: &str) -> bool {
    let rest = text.split_once(':').map_or(text, |(_, rest)| rest).trim_start_matches('/');
    rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@')
}

/// Returns whether it is this machine.
fn check_host(url: &Url, is_dev: bool) -> Result<bool, String> {
    let is_loopback = match url.host().ok_or("must have a host")? {
        Host::Ipv4(address) => Some(address.is_loopback()),
        Host::Ipv6(address) => Some(address.is_loopback()),
        Host::Domain("localhost") => Some(true),
        Host::Domain(name) => return check_name(name).map(|()| false),
    };
    match (is_loopback, is_dev) {
        (Some(true), true) => Ok(true),
        (Some(true), false) => Err("must not be this machine".into()),
        _ => Err("must name a host, not an address".into()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let labels: Vec<&str> = name.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    if labels.len() < 2 || last.is_empty() || INSIDE.contains(&last) {
        return Err("must have a public host name".into());
    }
    Ok(())
}

fn check_port(url: &Url, is_any_allowed: bool) -> Result<(), String> {
    let port = url.port_or_known_default().unwrap_or(0);
    let is_plain = url.scheme() == "http" && port == 80;
    if port == 443 || port >= 1024 || is_plain || (is_any_allowed && port >= 1) {
        return Ok(());
    }
    Err("must use port 443 or a port from 1024 on".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: &str = "https://gateway.example.org";

    fn production(text: &str) -> Result<String, String> {
        read(text, false, OWN)
    }

    fn dev(text: &str) -> Result<String, String> {
        read(text, true, "http://127.0.0.1:8080")
    }

    #[test]
    fn the_parsers_own_form_is_kept() {
        assert_eq!(production("HTTPS://Seller.Example.org:443/a/../b?c"), Ok("https://seller.example.org/b?c".into()));
        assert_eq!(production("https://seller.example.org:8443"), Ok("https://seller.example.org:8443/".into()));
        assert_eq!(dev("http://127.0.0.1:9/x"), Ok("http://127.0.0.1:9/x".into()));
        assert_eq!(dev("http://localhost:3000"), Ok("http://localhost:3000/".into()));
        assert_eq!(dev("http://[::1]:80/x"), Ok("http://[::1]/x".into()));
    }

    #[test]
    fn a1_to_a4_a7_a10_a11_refused_in_production() {
        for text in [
            // A1: spellings of addresses
            "https://127.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://１２７.0.0.1/",
            "https://127。0。0。1/",
            "https://seller.example.org./",
            "https://127.0.0.1./",
            // A2: schemes
            "http://seller.example.org/",
            "ftp://seller.example.org/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data:,x",
            // A3: user info, backslash, fragment, control characters
            "https://user@seller.example.org/",
            "https://user:word@seller.example.org/",
            "https://@seller.example.org/",
            "https://:@seller.example.org/",
            "https:\\\\seller.example.org/",
            "https://seller.example.org/#",
            "https://seller.example.org/#x",
            "https://seller.example.org/\n",
            "https://sel\tler.example.org/",
            " https://seller.example.org/",
            "https://seller.example.org/\u{0}",
            // A4: addresses
            "https://8.8.8.8/",
            "https://[2001:4860:4860::8888]/",
            "https://10.0.0.1/",
            "https://[::ffff:127.0.0.1]/",
            // A7: names inside
            "https://localhost/",
            "https://metadata/",
            "https://metadata.google.internal/",
            "https://printer.local/",
            "https://a.localhost/",
            "https://hidden.onion/",
            // A10: ports
            "https://seller.example.org:22/",
            "https://seller.example.org:80/",
            "https://seller.example.org:0/",
            // A11: ourselves
            "https://gateway.example.org/api/v1/gateway/x",
            "https://GATEWAY.example.org:443/",
            // and nothing at all
            "",
            "seller.example.org",
            "https://",
            "https:///path",
        ] {
            assert!(production(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dev_allows_http_and_this_machine_and_no_more() {
        for text in [
            "http://10.0.0.1:8080/",
            "http://169.254.169.254/",
            "ftp://127.0.0.1/",
            "http://user@127.0.0.1:9/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:8080/api/v1/gateway/x",
            "http://[::ffff:10.0.0.1]:9/",
        ] {
            assert!(dev(text).is_err(), "{text}");
        }
        assert!(dev("http://seller.example.org/").is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_kept_is_read_again(text in "\\PC{0,80}") {
            for found in [production(&text), dev(&text)].into_iter().flatten() {
                prop_assert_eq!(dev(&found), Ok(found.clone()));
            }
        }

        #[test]
        fn user_info_is_seen_wherever_it_is(user in "[a-z:%]{0,8}", path in "[a-z/@?]{0,12}") {
            let text = format!("https://{user}@seller.example.org/{path}");
            prop_assert!(production(&text).is_err());
            let text = format!("https://seller.example.org/{path}");
            prop_assert!(production(&text).is_ok());
        }
    }
}
