//! Addresses that lead inside, and URLs whose text alone is bad.

use std::net::{Ipv4Addr, Ipv6Addr};

pub const INSIDE_4: [&str; 44] = [
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
pub const INSIDE_6: [&str; 26] = [
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
pub fn embeddings(address: Ipv4Addr) -> Vec<Ipv6Addr> {
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
pub fn spellings(address: Ipv4Addr) -> Vec<String> {
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
pub fn bad_texts() -> Vec<String> {
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
