//! Nothing inside is ever dialled: the seller client in a network namespace of its own, the whole address space behind
//! it one trap, the names scripted. What leads inside sees no connection; what is public is called.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what is not as it should be ends it"
)]

#[path = "support/tls.rs"]
mod tls;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use actors::{
    seller::{SellerAnswer, SellerClient as _, SellerFault, SellerRequest, Target},
    vetting::Vetting,
};
use async_trait::async_trait;
use bytes::Bytes;
use config::Config;
use nix::sched::{CloneFlags, unshare};
use proxy::upstream::{Resolved, Resolver, Sellers};
use storage::model::{ListingId, UnixMillis};
use tls::Authority;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;

const PORTS: [u16; 11] = [21, 22, 25, 80, 443, 1023, 1024, 6379, 8080, 8443, 9200];
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
        let mut config = Config::from_parts(Some(&file), []).expect("a good configuration");
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

/// Runs a test in a namespace whose every way out leads to another one, which answers on all addresses and tells.
fn in_namespaces<T: Future<Output = ()>>(test: impl FnOnce(World) -> T + Send + 'static) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: this machine permits no network namespaces ({error})");
            return;
        }
        let dialled = Dialled::default();
        let authority = Authority::new();
        let acceptor = authority.acceptor(&["*.example.org", "*.example.net", "*.example.com", "*.internal"]);
        let (go, far) = far_namespace(acceptor.clone(), dialled.clone());
        let commands = [
            "ip link set lo up".to_string(),
            format!("ip addr add {OURS}/32 dev lo"),
            "ip link add near type veth peer name far".to_string(),
            format!("ip link set far netns {far}"),
            "ip addr add 100.64.255.1/30 dev near".to_string(),
            "ip -6 addr add fd77::1/64 dev near nodad".to_string(),
            "ip link set near up".to_string(),
            "ip route add default via 100.64.255.2".to_string(),
            "ip -6 route add default via fd77::2".to_string(),
        ];
        if !commands.iter().all(|command| command_runs(command)) {
            eprintln!("SKIPPED: this machine permits no virtual links");
            return;
        }
        go.send(()).expect("the far side waits");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // What leads back to this machine is a trap too.
            listen_everywhere(acceptor, dialled.clone());
            let world = World::new(&authority, dialled);
            wait_for_the_far_side(&world).await;
            test(world).await;
        });
        drop(go);
    };
    std::thread::spawn(run).join().expect("the test holds");
}

/// Where everything is: a thread in a namespace of its own. Returns its number and the word that it waits for.
fn far_namespace(acceptor: TlsAcceptor, dialled: Dialled) -> (mpsc::Sender<()>, i32) {
    let (tell, told) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a second namespace");
        tell.send(nix::unistd::gettid().as_raw()).expect("told");
        if may_go.recv().is_err() {
            return;
        }
        for command in [
            "ip link set lo up",
            "ip addr add 100.64.255.2/30 dev far",
            "ip -6 addr add fd77::2/64 dev far nodad",
            "ip link set far up",
            "ip route add local default dev lo table main",
            "ip -6 route add local default dev lo table main",
        ] {
            assert!(command_runs(command), "{command}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            listen_everywhere(acceptor, dialled);
            // Until the near side is done with its end.
            let _ = tokio::task::spawn_blocking(move || may_go.recv()).await;
        });
    });
    (go, told.recv().expect("a thread"))
}

fn command_runs(command: &str) -> bool {
    let mut words = command.split(' ');
    let status = Command::new(words.next().expect("a program")).args(words).status();
    status.is_ok_and(|status| status.success())
}

/// Listens on all addresses of this namespace, of both families.
fn listen_everywhere(acceptor: TlsAcceptor, dialled: Dialled) {
    for port in PORTS {
        let four = TcpSocket::new_v4().expect("a socket");
        four.set_reuseaddr(true).expect("set");
        four.bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).expect("bound");
        let six = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).expect("a socket");
        six.set_only_v6(true).expect("set");
        six.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into()).expect("bound");
        six.listen(64).expect("listening");
        six.set_nonblocking(true).expect("set");
        let six = TcpListener::from_std(six.into()).expect("a listener");
        for listener in [four.listen(64).expect("listening"), six] {
            let (acceptor, dialled) = (acceptor.clone(), dialled.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, acceptor.clone(), dialled.clone()));
                }
            });
        }
    }
}

/// Notes who was dialled and by which names, then answers 200, or leads inside.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, dialled: Dialled) -> Option<()> {
    let address = stream.local_addr().ok()?;
    let place = {
        let mut dialled = dialled.lock().expect("lock");
        dialled.push((address, String::new()));
        dialled.len() - 1
    };
    let mut stream = acceptor.accept(stream).await.ok()?;
    let name = stream.get_ref().1.server_name().unwrap_or_default().to_string();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n{}") {
        if stream.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&seen).to_string();
    let host = text.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default().to_string();
    if let Some((_, said)) = dialled.lock().expect("lock").get_mut(place) {
        *said = format!("{name} {host}");
    }
    let answer: &[u8] = if text.starts_with("POST /inside") {
        b"HTTP/1.1 302 Found\r\nLocation: https://169.254.169.254/latest\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    } else {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    };
    stream.write_all(answer).await.ok()?;
    stream.shutdown().await.ok()
}

async fn wait_for_the_far_side(world: &World) {
    for address in ["1.1.1.1:443", "[2606:4700::1111]:443"] {
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for _ in 0..500 {
        if world.dialled.lock().expect("lock").len() == 2 {
            world.seen();
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the far side does not answer");
}

const INSIDE_4: [&str; 44] = [
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.0",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.64.255.2",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.0.0.53",
    "127.1.2.3",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.253",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.255.255",
    "172.16.0.1",
    "172.17.0.1",
    "172.20.1.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.8",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.1.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "250.1.1.1",
    "255.255.255.254",
    "255.255.255.255",
    "192.175.48.1",
];
const INSIDE_6: [&str; 26] = [
    "::",
    "::1",
    "::2",
    "100::1",
    "100:0:0:1::1",
    "1::1",
    "2001::1",
    "2001:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2620:4f:8000::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd77::2",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
];

/// All ways to carry an IPv4 address in an IPv6 one.
fn embeddings(address: Ipv4Addr) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = address.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    vec![
        address.to_ipv6_mapped(),
        address.to_ipv6_compatible(),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low),
        Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low),
    ]
}

/// Spellings of one address that some parser somewhere takes for it.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let whole = u32::from(address);
    let wide = |text: &str| -> String {
        text.chars()
            .map(|c| if c.is_ascii_digit() { char::from_u32(0xff10 + c as u32 - 48).expect("a digit") } else { c })
            .collect()
    };
    let plain = address.to_string();
    vec![
        whole.to_string(),
        format!("0x{whole:x}"),
        format!("0{whole:o}"),
        format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{}", whole & 0xff_ffff),
        format!("{a}.{b}.{}", whole & 0xffff),
        format!("0x{a:X}.{b}.0{c:o}.{d}"),
        format!("{plain}."),
        plain.replace('.', "。"),
        plain.replace('.', "%2e"),
        plain.replace('.', "．"),
        wide(&plain),
        format!("%3{}{}", &plain[..1], &plain[1..]),
    ]
}

/// URLs whose text alone is bad.
fn bad_texts() -> Vec<String> {
    let mut urls = Vec::new();
    for address in INSIDE_4.iter().chain(&["8.8.8.8", "1.1.1.1"]) {
        urls.push(format!("https://{address}/"));
    }
    for address in INSIDE_6.iter().chain(&["2606:4700::1111"]) {
        urls.push(format!("https://[{address}]/"));
    }
    for address in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "1.1.1.1"] {
        let address: Ipv4Addr = address.parse().expect("an address");
        urls.extend(embeddings(address).iter().map(|address| format!("https://[{address}]/")));
        urls.extend(spellings(address).iter().map(|spelling| format!("https://{spelling}/")));
    }
    for scheme in
        ["http", "HTTP", "ws", "wss", "ftp", "file", "gopher", "dict", "ldap", "data", "javascript", "blob", "unix"]
    {
        urls.push(format!("{scheme}://public.example.org/"));
    }
    for host in [
        "localhost",
        "LOCALHOST",
        "a.localhost",
        "localhost.localdomain",
        "metadata",
        "seller",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data.ec2.internal",
        "metadata.azure.com",
        "metadata.tencentyun.com",
        "metadata.packet.net",
        "a.internal",
        "printer.local",
        "router.lan",
        "nas.home",
        "a.home.arpa",
        "wiki.corp",
        "a.intranet",
        "a.private",
        "x.alt",
        "hidden.onion",
        "1.0.0.127.in-addr.arpa",
        "a.invalid",
        "public.example.org.",
        "a..example.org",
        ".example.org",
        "xn--",
        "a.b.1",
        "kubernetes.default.svc.cluster.local",
    ] {
        urls.push(format!("https://{host}/"));
    }
    for port in [0, 1, 21, 22, 25, 53, 79, 80, 110, 111, 143, 389, 445, 587, 631, 873, 1023] {
        urls.push(format!("https://public.example.org:{port}/"));
    }
    for text in [
        "https://user@unknown.example.org/",
        "https://user:word@unknown.example.org/",
        "https://@unknown.example.org/",
        "https://127.0.0.1@unknown.example.org/",
        "https://unknown.example.org@127.0.0.1/",
        "https://unknown.example.org:443@127.0.0.1/",
        "https://unknown.example.org\\@127.0.0.1/",
        "https:\\\\127.0.0.1\\",
        "https://unknown.example.org/#@127.0.0.1/",
        "https://127.0.0.1#@unknown.example.org/",
        "https://127.0.0.1?@unknown.example.org/",
        "https://unknown.example.org/\r\nHost: x",
        "https://unk\tnown.example.org/",
        "https://unknown.example.org/\u{0}",
        " https://127.0.0.1/",
        "https://127.0.0.1 /",
        "https://[::1%25eth0]/",
        "https://[::1",
        "https://127.0.0.1:443:80/",
        "https:127.0.0.1/",
        "https:///127.0.0.1/",
        "https:////127.0.0.1/",
        "//127.0.0.1/",
        "127.0.0.1",
        "",
        "https://",
        "https://?",
        "https://:443/",
        // A11: ourselves, by our names
        "https://gateway.example.org/api/v1/gateway/x",
        "https://GATEWAY.example.org:8443/",
        "https://gate.example.net/",
    ] {
        urls.push(text.to_string());
    }
    urls
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
