//! `crochet verify-signature`: what a seller runs to check a call that it received and saved. The file has the header
//! fields as they came, an empty line, and the body, byte for byte; a request line may stand before them.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use storage::model::Clock;

/// Exit code for a call or a secret that cannot be read.
const EXIT_UNREADABLE: u8 = 2;
/// More than any call has.
const CALL_MAX: u64 = 32 << 20;

/// What to check.
#[derive(Debug, clap::Args)]
pub struct VerifyArguments {
    /// A file with the signing secret (whsec_…); several lines: any of them will do
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
    /// How far the call's time may be from now, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub tolerance: u64,
    /// The moment to check at instead of now, in Unix seconds: for a call that was saved a while ago
    #[arg(long, value_name = "UNIX_SECONDS")]
    pub at: Option<u64>,
    /// The call: header fields, an empty line, the body. Standard input when it is left out or -
    #[arg(value_name = "CALL")]
    pub call: Option<PathBuf>,
}

/// A call as it was received.
struct Received<'a> {
    fields: HashMap<String, String>,
    body: &'a [u8],
}

/// Why a call is not good.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Missing(&'static str),
    Time(String),
    Old { seconds: u64, tolerance: u64 },
    Context,
    LastNewline,
    Signature,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "it has no {name}"),
            Self::Time(text) => write!(f, "X-Crochet-Timestamp is no number of seconds: {}", text.escape_debug()),
            Self::Old { seconds, tolerance } => {
                write!(f, "its time is {seconds} s from now, more than {tolerance}; see --at and --tolerance")
            }
            Self::Context => {
                f.write_str("id, time and body are signed (v1), but a header of the context was changed (v2)")
            }
            Self::LastNewline => {
                f.write_str("the file ends with a newline that the body did not have; save the body byte for byte")
            }
            Self::Signature => f.write_str("no signature is that of this secret over these bytes"),
        }
    }
}

/// Checks, and says what came of it. 0: good. 1: not good. 2: it cannot be read.
#[must_use]
pub fn run(asked: &VerifyArguments, say: impl Fn(&str), complain: impl Fn(&str)) -> ExitCode {
    let now = asked.at.unwrap_or_else(|| Clock::system().now().seconds());
    let read = read_secrets(&asked.secret_file).and_then(|keys| Ok((keys, read_call(asked.call.as_deref())?)));
    let checked = read.and_then(|(keys, bytes)| {
        let received = parse(&bytes)?;
        let id = received.fields.get("x-crochet-request-id").cloned().unwrap_or_default();
        Ok((id, check(&received, &keys, now, asked.tolerance)))
    });
    match checked {
        Ok((id, Ok(()))) => {
            say(&format!("good: {} was sent by the gateway, as it is\n", id.escape_debug()));
            ExitCode::SUCCESS
        }
        Ok((_, Err(wrong))) => {
            complain(&format!("not good: {wrong}"));
            ExitCode::FAILURE
        }
        Err(reason) => {
            complain(&format!("crochet: {reason}"));
            ExitCode::from(EXIT_UNREADABLE)
        }
    }
}

fn read_secrets(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Option<Vec<Vec<u8>>> = lines.map(|line| STANDARD.decode(line.strip_prefix("whsec_")?).ok()).collect();
    let keys = keys.filter(|keys| !keys.is_empty());
    keys.ok_or_else(|| format!("{}: no signing secret: whsec_ and base64, one a line", path.display()))
}

fn read_call(path: Option<&Path>) -> Result<Vec<u8>, String> {
    let name = path.map_or_else(|| "standard input".into(), |path| path.display().to_string());
    let named = |error: io::Error| format!("{name}: {error}");
    let mut bytes = Vec::new();
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => fs::File::open(path).map_err(named)?.take(CALL_MAX + 1).read_to_end(&mut bytes),
        None => io::stdin().lock().take(CALL_MAX + 1).read_to_end(&mut bytes),
    }
    .map_err(named)?;
    if bytes.len() as u64 > CALL_MAX { Err(format!("{name}: larger than any call")) } else { Ok(bytes) }
}

/// Takes a call apart. What ends the lines before the body, ends them all.
fn parse(bytes: &[u8]) -> Result<Received<'_>, String> {
    let of = |end: &[u8]| bytes.windows(end.len()).position(|window| window == end).map(|at| (at, at + end.len()));
    let crlf = of(b"\r\n\r\n");
    let (head, body) = match (crlf, of(b"\n\n")) {
        (Some(crlf), Some(lf)) => crlf.min(lf),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err("no empty line stands between the header fields and the body".into()),
    };
    let head =
        std::str::from_utf8(bytes.get(..head).unwrap_or_default()).map_err(|_| "the header fields are not text")?;
    let mut fields = HashMap::new();
    for (n, line) in head.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        match line.split_once(':') {
            Some((name, value)) if !name.contains(' ') => {
                let (name, value) = (name.to_ascii_lowercase(), value.trim().to_string());
                if name.starts_with("x-crochet-") && fields.contains_key(&name) {
                    return Err(format!("{name} stands there twice"));
                }
                fields.insert(name, value);
            }
            _ if n == 0 => {}
            _ => return Err(format!("line {} is no header field", n + 1)),
        }
    }
    Ok(Received { fields, body: bytes.get(body..).unwrap_or_default() })
}

fn check(received: &Received<'_>, keys: &[Vec<u8>], now: u64, tolerance: u64) -> Result<(), Wrong> {
    let field = |name: &'static str| {
        received.fields.get(&name.to_ascii_lowercase()).map(String::as_str).ok_or(Wrong::Missing(name))
    };
    let (id, time) = (field("X-Crochet-Request-Id")?, field("X-Crochet-Timestamp")?);
    let signature = field("X-Crochet-Signature")?;
    let context = [
        field("X-Crochet-Listing-Id")?,
        field("X-Crochet-Buyer-Id")?,
        field("X-Crochet-Attempt")?,
        field("X-Crochet-Charged-Micros")?,
    ]
    .join(".");
    let seconds = time.parse::<u64>().map_err(|_| Wrong::Time(time.to_string()))?.abs_diff(now);
    if seconds > tolerance {
        return Err(Wrong::Old { seconds, tolerance });
    }
    let is_good = |version: &str, body: &[u8]| {
        let covered = match version {
            "v1," => [format!("{id}.{time}.").as_bytes(), body].concat(),
            _ => format!("v2.{id}.{time}.{context}.{}", hex::encode(Sha256::digest(body))).into_bytes(),
        };
        keys.iter().any(|key| is_signed(signature, version, key, &covered))
    };
    if is_good("v2,", received.body) {
        return Ok(());
    }
    let ended = received.body.strip_suffix(b"\n").map(|body| body.strip_suffix(b"\r").unwrap_or(body));
    if ended.is_some_and(|body| is_good("v2,", body)) {
        return Err(Wrong::LastNewline);
    }
    Err(if is_good("v1,", received.body) { Wrong::Context } else { Wrong::Signature })
}

fn is_signed(signatures: &str, version: &str, key: &[u8], covered: &[u8]) -> bool {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
    let mac = mac.chain_update(covered);
    let mut given = signatures.split(' ').filter_map(|part| STANDARD.decode(part.strip_prefix(version)?).ok());
    given.any(|tag| mac.clone().verify_slice(&tag).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NOW: u64 = 1_795_500_623;

    fn tag(covered: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&KEY).expect("a key").chain_update(covered);
        STANDARD.encode(mac.finalize().into_bytes())
    }

    fn call(end: &str, buyer: &str, body: &str) -> Vec<u8> {
        let v1 = tag(format!("gw_req_1.{NOW}.{{}}").as_bytes());
        let v2 = tag(format!("v2.gw_req_1.{NOW}.listing.buyer.1.5.{}", hex::encode(Sha256::digest("{}"))).as_bytes());
        let lines = [
            "POST /work HTTP/1.1".into(),
            "X-Crochet-Request-Id: gw_req_1".into(),
            format!("x-crochet-timestamp: {NOW}"),
            format!("X-CROCHET-SIGNATURE: v1,{v1} v2,{v2}"),
            "X-Crochet-Listing-Id: listing".into(),
            format!("X-Crochet-Buyer-Id: {buyer}"),
            "X-Crochet-Attempt: 1".into(),
            "X-Crochet-Charged-Micros: 5".into(),
        ];
        format!("{}{end}{end}{body}", lines.join(end)).into_bytes()
    }

    fn verdict(bytes: &[u8], now: u64) -> Result<(), Wrong> {
        check(&parse(bytes).expect("a call"), &[vec![1; 32], KEY.to_vec()], now, 300)
    }

    #[test]
    fn a_genuine_call_is_good_whatever_ends_its_lines() {
        for end in ["\n", "\r\n"] {
            assert_eq!(verdict(&call(end, "buyer", "{}"), NOW + 300), Ok(()));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(verdict(&call("\n", "other", "{}"), NOW), Err(Wrong::Context));
        assert_eq!(verdict(&call("\n", "buyer", "{}\n"), NOW), Err(Wrong::LastNewline));
        assert_eq!(verdict(&call("\n", "buyer", "[]"), NOW), Err(Wrong::Signature));
        let old = Wrong::Old { seconds: 301, tolerance: 300 };
        assert_eq!(verdict(&call("\n", "buyer", "{}"), NOW + 301), Err(old));
        assert_eq!(verdict(b"X-Crochet-Request-Id: a\n\n", NOW), Err(Wrong::Missing("X-Crochet-Timestamp")));
    }

    #[test]
    fn what_is_no_call_is_not_guessed_at() {
        for bytes in [
            &b""[..],
            b"a: b",
            b"POST / HTTP/1.1\nnonsense\n\n{}",
            b"\xff: a\n\n",
            b"X-Crochet-A: 1\nx-crochet-a: 1\n\n",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
