use proptest::prelude::*;
use storage::model::{ListingId, UnixMillis};

use super::*;

const OWN: &str = "https://gateway.example.org";

fn rules(file: &str, site: &str) -> Vetting {
    let key = ("CROCHET__STORAGE__MASTER_KEY".to_string(), "07".repeat(32));
    Vetting::new(&Config::from_parts(Some(file), [key]).expect("a good configuration"), site)
}

fn production_rules() -> Vetting {
    let file = "mode = \"production\"\n[proxy]\nlisten = \"0.0.0.0:443\"\npublic_url = \"https://gateway.example.org\"\n\
                own_hosts = \"api.example.net, 9.9.9.9, 2620:fe::fe\"\n[payments.sandbox]\nenabled = false\n";
    rules(file, OWN)
}

fn production(text: &str) -> Result<String, Unfit> {
    production_rules().read_url(text).map(Into::into)
}

fn dev(text: &str) -> Result<String, Unfit> {
    rules("", "http://127.0.0.1:8080").read_url(text).map(Into::into)
}

#[test]
fn a3_the_parsers_own_form_is_kept() {
    assert_eq!(production("HTTPS://Seller.Example.org:443/a/../b?c"), Ok("https://seller.example.org/b?c".into()));
    assert_eq!(production("https://seller.example.org:8443"), Ok("https://seller.example.org:8443/".into()));
    assert_eq!(dev("http://127.0.0.1:9/x"), Ok("http://127.0.0.1:9/x".into()));
    assert_eq!(dev("http://localhost:3000"), Ok("http://localhost:3000/".into()));
    assert_eq!(dev("http://[::1]:80/x"), Ok("http://[::1]/x".into()));
}

#[test]
fn a1_to_a4_a7_a10_a11_refused_in_production() {
    use Unfit::{Characters, Fragment, Length, Literal, Name, NoUrl, Ourselves, Port, Scheme, ThisMachine, UserInfo};
    for (text, why) in [
        // A1: spellings of addresses
        ("https://127.1/", ThisMachine),
        ("https://0x7f.1/", ThisMachine),
        ("https://2130706433/", ThisMachine),
        ("https://１２７.0.0.1/", ThisMachine),
        ("https://127。0。0。1/", ThisMachine),
        ("https://seller.example.org./", Name),
        ("https://127.0.0.1./", ThisMachine),
        // A2: schemes
        ("http://seller.example.org/", Scheme),
        ("ftp://seller.example.org/", Scheme),
        ("file:///etc/passwd", Scheme),
        ("javascript:alert(1)", Scheme),
        ("data:,x", Scheme),
        // A3: user info, backslash, fragment, control characters
        ("https://user@seller.example.org/", UserInfo),
        ("https://user:word@seller.example.org/", UserInfo),
        ("https://@seller.example.org/", UserInfo),
        ("https://:@seller.example.org/", UserInfo),
        ("https:\\\\seller.example.org/", Characters),
        ("https://seller.example.org/#", Fragment),
        ("https://seller.example.org/#x", Fragment),
        ("https://seller.example.org/\n", Characters),
        ("https://sel\tler.example.org/", Characters),
        (" https://seller.example.org/", Characters),
        ("https://seller.example.org/\u{0}", Characters),
        // A4: addresses
        ("https://8.8.8.8/", Literal),
        ("https://[2001:4860:4860::8888]/", Literal),
        ("https://10.0.0.1/", Literal),
        ("https://[::ffff:127.0.0.1]/", Literal),
        // A7: names inside
        ("https://localhost/", ThisMachine),
        ("https://metadata/", Name),
        ("https://metadata.google.internal/", Name),
        ("https://metadata.goog/", Name),
        ("https://printer.local/", Name),
        ("https://a.localhost/", Name),
        ("https://hidden.onion/", Name),
        ("https://1.0.0.10.in-addr.arpa/", Name),
        ("https://a..example.org/", Name),
        // A10: ports
        ("https://seller.example.org:22/", Port),
        ("https://seller.example.org:80/", Port),
        ("https://seller.example.org:0/", Port),
        ("https://seller.example.org:1023/", Port),
        // A11: ourselves
        ("https://gateway.example.org/api/v1/gateway/x", Ourselves),
        ("https://GATEWAY.example.org:8443/", Ourselves),
        ("https://api.example.net/", Ourselves),
        // and nothing at all
        ("", Length),
        ("seller.example.org", NoUrl),
        ("https://", NoUrl),
        ("https:///path", Name),
    ] {
        assert_eq!(production(text), Err(why), "{text}");
    }
}

#[test]
fn a2_dev_allows_http_and_this_machine_and_no_more() {
    for text in [
        "http://10.0.0.1:8080/",
        "http://169.254.169.254/",
        "ftp://127.0.0.1/",
        "http://user@127.0.0.1:9/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:8080/api/v1/gateway/x",
        "http://[::ffff:10.0.0.1]:9/",
        "http://[::ffff:127.0.0.1]:9/",
    ] {
        assert!(dev(text).is_err(), "{text}");
    }
    assert!(dev("http://seller.example.org/").is_ok());
}

#[test]
fn the_same_rules_hold_for_what_was_stored() {
    let listing = ListingId::mint(UnixMillis(1));
    let check = |rules: &Vetting, url: &str| rules.check_target(&Target::parse(listing, url).expect("a target"));
    let production = production_rules();
    assert_eq!(check(&production, "https://seller.example.org:8443/x"), Ok(()));
    for (url, why) in [
        ("http://seller.example.org/", Unfit::Scheme),
        ("https://127.0.0.1/", Unfit::ThisMachine),
        ("https://[::1]/", Unfit::ThisMachine),
        ("https://8.8.8.8/", Unfit::Literal),
        ("https://metadata/", Unfit::Name),
        ("https://seller.example.org:25/", Unfit::Port),
        ("https://gateway.example.org/", Unfit::Ourselves),
    ] {
        assert_eq!(check(&production, url), Err(why), "{url}");
    }
    let dev = rules("", "http://127.0.0.1:8080");
    assert_eq!(check(&dev, "http://127.0.0.1:9/"), Ok(()));
    assert_eq!(check(&dev, "http://127.0.0.1:8080/"), Err(Unfit::Ourselves));
}

#[test]
fn a11_our_own_addresses_are_refused() {
    let rules = production_rules();
    let check = |text: &str| rules.check_address(text.parse().expect("an address"));
    assert_eq!(check("9.9.9.9"), Err(Unfit::Ourselves));
    assert_eq!(check("2620:fe::fe"), Err(Unfit::Ourselves));
    assert_eq!(check("1.1.1.1"), Ok(()));
}

#[test]
fn a5_a6_only_the_public_internet_is_dialled() {
    let production = production_rules();
    let dev = rules("", "http://127.0.0.1:8080");
    for text in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1111", "2a00::1"] {
        let address = text.parse().expect("an address");
        assert_eq!(production.check_address(address), Ok(()), "{text}");
        assert_eq!(dev.check_address(address), Ok(()), "{text}");
    }
    for text in [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:1.1.1.1",
        "::1.1.1.1",
        "::ffff:0:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:101:101::1",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:10.0.0.1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        let address: IpAddr = text.parse().expect("an address");
        assert_eq!(production.check_address(address), Err(Unfit::Address), "{text}");
        assert_eq!(dev.check_address(address).is_ok(), address.is_loopback(), "{text}");
    }
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

    #[test]
    fn an_address_that_carries_another_is_never_dialled(bits in any::<u32>()) {
        let carried = Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = carried.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for carrier in [
            carried.to_ipv6_mapped(),
            carried.to_ipv6_compatible(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, 1, 2, 0, 0, !high, !low),
            Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low),
        ] {
            prop_assert!(!is_public(IpAddr::V6(carrier)), "{}", carrier);
        }
    }
}
