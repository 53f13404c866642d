//! API keys as clients send them.

use actors::keys::{bearer, generate, is_well_formed};

/// A key is what its checksum says, and no byte of a good one may differ; a header is read as one token.
pub fn api_key(data: &[u8]) {
    if is_well_formed(data) {
        assert!(data.len() == 43 && data.starts_with(b"am_k_"));
        for at in 0..data.len() {
            let mut changed = data.to_vec();
            changed[at] ^= 1 << (at % 8);
            assert!(!is_well_formed(&changed), "a changed key has a good checksum");
        }
    }
    let mut key = generate().expect("randomness").text.into_bytes();
    for (at, byte) in data.iter().take(4).enumerate() {
        let place = usize::from(*byte) % key.len();
        let before = key[place];
        key[place] = data.get(at + 4).copied().unwrap_or(*byte);
        assert_eq!(is_well_formed(&key), key[place] == before);
        key[place] = before;
    }
    let Ok(header) = std::str::from_utf8(data) else { return };
    if let Ok(token) = bearer(Some(header)) {
        assert!(header.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")));
        assert!(header.ends_with(token.trim_end()) || header.trim_end().ends_with(token));
        assert_eq!(token, token.trim());
    }
}
