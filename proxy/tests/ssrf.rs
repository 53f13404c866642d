//! Nothing inside is ever dialled: the seller client in a network namespace of its own, the whole address space behind
//! it one trap, the names scripted. What leads inside sees no connection; what is public is called.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what is not as it should be ends it"
)]

#[path = "ssrf/namespaces.rs"]
mod namespaces;
#[path = "support/tls.rs"]
mod tls;
#[path = "ssrf/urls.rs"]
mod urls;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::{
    seller::{SellerAnswer, SellerClient as _, SellerFault, SellerRequest, Target},
    vetting::Vetting,
};
use async_trait::async_trait;
use bytes::Bytes;
use config::Config;
use namespaces::in_namespaces;
use proxy::upstream::{Resolved, Resolver, Sellers};
use storage::model::{ListingId, UnixMillis};
use tls::Authority;
use urls::{INSIDE_4, INSIDE_6, bad_texts, embeddings};

const SITE: &str = "https://gateway.example.org";
/// An address of the machine's own, in the client's namespace.
const OURS: &str = "5.5.5.5";

/// Every address that was dialled, and what was said there: server name and `Host`.
type Dialled = Arc<Mutex<Vec<(SocketAddr, String)>>>;

/// Names as the test says; each answer is given once, the last one for ever.
#[derive(Default)]
struct Script(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Script {
    fn say(&self, name: &str, answers: &[&[&str]]) {
        let parse = |texts: &&[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
        self.0.lock().expect("lock").insert(name.to_string(), answers.iter().map(parse).collect());
    }
}

#[async_trait]
impl Resolver for Script {
    async fn resolve(&self, name: &str) -> Option<Resolved> {
        let mut script = self.0.lock().expect("lock");
        let answers = script.get_mut(name)?;
        let addresses = if answers.len() > 1 { answers.remove(0) } else { answers.first()?.clone() };
        Some(Resolved { addresses, ttl: Duration::ZERO })
    }
}

/// The client's side of the two namespaces.
struct World {
    client: Sellers,
    script: Arc<Script>,
    vetting: Vetting,
    dialled: Dialled,
}

impl World {
    fn new(authority: &Authority, dialled: Dialled) -> Self {
        let file = format!(
            "mode = \"production\"\n[proxy]\npublic_url = \"{SITE}\"\nown_hosts = \"gate.example.net, 9.9.9.9\"\n\
             seller_connect_timeout = \"2s\"\n[payments.sandbox]\nenabled = false\n"
        );
        let key = ("CROCHET__STORAGE__MASTER_KEY".to_string(), "07".repeat(32));
        let mut config = Config::from_parts(Some(&file), [key]).expect("a good configuration");
        // No file can say so in production mode.
        config.proxy.dev_ca = authority.file();
        let script = Arc::new(Script::default());
        let client = Sellers::with_resolver(&config, SITE, script.clone()).expect("a client");
        Self { client, script, vetting: Vetting::new(&config, SITE), dialled }
    }

    fn seen(&self) -> Vec<(SocketAddr, String)> {
        std::mem::take(&mut *self.dialled.lock().expect("lock"))
    }

    async fn send(&self, url: &str) -> Result<SellerAnswer, SellerFault> {
        let target = Target::parse(ListingId::mint(UnixMillis(1)), url).expect("a target");
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
            target.path, target.authority
        );
        let body = Bytes::from_static(b"{}");
        let timeout = Duration::from_secs(20);
        self.client.send(SellerRequest { target: Arc::new(target), head: head.into_bytes(), body, timeout }).await
    }

    /// Refused at the dial and, unless its text alone is good, at the write.
    async fn refuses(&self, url: &str, is_good_text: bool) {
        assert_eq!(self.vetting.read_url(url).is_ok(), is_good_text, "written: {url}");
        if Target::parse(ListingId::mint(UnixMillis(1)), url).is_ok() {
            assert_eq!(self.send(url).await.err(), Some(SellerFault::Unreachable), "{url}");
        }
        assert_eq!(self.seen(), [], "{url} was dialled");
    }

    /// Called, at this address and nowhere else, by its name.
    async fn calls(&self, url: &str, address: &str) {
        self.vetting.read_url(url).unwrap_or_else(|reason| panic!("{url}: {reason}"));
        let answer = self.send(url).await.unwrap_or_else(|fault| panic!("{url}: {fault}"));
        assert_eq!(answer.status, 200, "{url}");
        let target = Target::parse(ListingId::mint(UnixMillis(1)), url).expect("a target");
        let address = SocketAddr::new(address.parse().expect("an address"), target.port);
        assert_eq!(self.seen(), [(address, format!("{} {}", target.host, target.authority))], "{url}");
    }
}

#[test]
fn a1_a2_a3_a4_a6_a7_a10_a11_no_bad_url_is_ever_dialled() {
    in_namespaces(async |world| {
        let urls = bad_texts();
        assert!(urls.len() >= 250, "{}", urls.len());
        // Names would lead somewhere, if they were let.
        for name in [
            "public.example.org",
            "localhost",
            "metadata",
            "seller",
            "metadata.google.internal",
            "metadata.goog",
            "a.internal",
        ] {
            world.script.say(name, &[&["1.1.1.1"]]);
        }
        for name in ["gateway.example.org", "gate.example.net"] {
            world.script.say(name, &[&["1.1.1.1"]]);
        }
        for url in &urls {
            world.refuses(url, false).await;
        }
        eprintln!("{} bad URLs, 0 connections", urls.len());
    });
}

#[test]
fn a5_a6_a11_no_name_that_leads_inside_is_ever_dialled() {
    in_namespaces(async |world| {
        let mut count = 0;
        let mut addresses: Vec<String> = INSIDE_4.iter().chain(&INSIDE_6).map(ToString::to_string).collect();
        for address in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "1.1.1.1"] {
            addresses.extend(embeddings(address.parse().expect("an address")).iter().map(ToString::to_string));
        }
        // A11: ours by the configuration, and ours by this machine.
        addresses.extend(["9.9.9.9", OURS].map(str::to_string));
        for address in &addresses {
            world.script.say("seller.example.org", &[&[address]]);
            for port in [443, 8443] {
                world.refuses(&format!("https://seller.example.org:{port}/"), true).await;
                count += 1;
            }
        }
        eprintln!("{count} names that lead inside, 0 connections");
    });
}

#[test]
fn a5_a8_public_sellers_are_called_at_exactly_the_address_that_was_vetted_by_their_names() {
    in_namespaces(async |world| {
        let addresses = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.215.14",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "191.255.255.255",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.1",
            "198.17.255.255",
            "198.20.0.1",
            "203.0.112.255",
            "203.0.114.1",
            "223.255.255.254",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2400:cb00::1",
            "2606:4700::1111",
            "2620:4f:8001::1",
            "2a00:1450:4001::5e",
            "2003::1",
            "3ffe::1",
            "2606:4700::5efe:1:2:3",
        ];
        for address in addresses {
            world.script.say("seller.example.org", &[&[address]]);
            world.calls("https://seller.example.org/work?x=1", address).await;
        }
        world.script.say("a-b.example.com", &[&["1.1.1.1"]]);
        for url in
            ["https://a-b.example.com:1024/", "https://A-B.example.com:8443/%2e%2e/x", "https://a-b.example.com:443/"]
        {
            world.calls(url, "1.1.1.1").await;
        }
        eprintln!("{} good URLs called", addresses.len() + 3);
    });
}

#[test]
fn a8_rebinding_and_mixed_answers_lead_nowhere() {
    in_namespaces(async |world| {
        let url = "https://seller.example.org/";
        for inside in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:10.0.0.1", "fd00:ec2::254"] {
            // Rebinding: good at the first look, inside at the second.
            world.script.say("seller.example.org", &[&["1.1.1.1"], &[inside]]);
            world.calls(url, "1.1.1.1").await;
            world.refuses(url, true).await;
            // Mixed: one bad address spoils the name, wherever it stands.
            for answer in [["1.1.1.1", inside], [inside, "1.1.1.1"]] {
                world.script.say("seller.example.org", &[&answer]);
                world.refuses(url, true).await;
            }
            world.script.say("seller.example.org", &[&["1.1.1.1", "8.8.8.8", "2606:4700::1111", inside]]);
            world.refuses(url, true).await;
        }
        world.script.say("seller.example.org", &[&[]]);
        world.refuses(url, true).await;
    });
}

#[test]
fn a9_a_redirect_to_the_inside_is_not_followed() {
    in_namespaces(async |world| {
        world.script.say("seller.example.org", &[&["1.1.1.1"]]);
        let answer = world.send("https://seller.example.org/inside").await.expect("an answer");
        assert_eq!(answer.status, 302);
        let seen: Vec<IpAddr> = world.seen().iter().map(|(address, _)| address.ip()).collect();
        assert_eq!(seen, ["1.1.1.1".parse::<IpAddr>().expect("an address")]);
    });
}
