//! What must hold of hostile bytes, one function a target. A function panics when it does not hold. `cargo fuzz` calls
//! them with bytes that it makes up; the tests of `proxy` with the seeds beside this folder.

pub mod answer;
pub mod framing;
pub mod json;
pub mod keys;
pub mod text;
pub mod wallet;
pub mod x402;

/// One target: any bytes may come.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its seeds' folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("head", framing::head),
    ("chunks", framing::chunks),
    ("requests", framing::requests),
    ("json", json::json),
    ("envelope", json::envelope),
    ("answer", answer::answer),
    ("signature", answer::signature),
    ("url", text::url),
    ("config", text::config),
    ("body", text::body),
    ("query", text::query),
    ("api_key", keys::api_key),
    ("challenge", wallet::challenge),
    ("wallet", wallet::wallet),
    ("x402", x402::x402),
];

/// Calls `look` with ways to cut `data` in pieces: byte by byte, in two at each place where that is not too much, and
/// in pieces whose lengths the data itself says.
pub fn each_split(data: &[u8], mut look: impl FnMut(&[&[u8]])) {
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    look(&bytes);
    let step = data.len() / 48 + 1;
    for at in (0..=data.len()).step_by(step) {
        let (front, back) = data.split_at(at);
        look(&[front, back]);
    }
    let mut pieces = Vec::new();
    let mut rest = data;
    for byte in data.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((usize::from(*byte) % 19 + 1).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    look(&pieces);
}
