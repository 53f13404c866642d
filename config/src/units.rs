//! Units stand in the value: `"30s"`, `"64KiB"`.

use std::{str::FromStr, time::Duration};

/// Reads a span: `"250ms"`, `"15m"`, `"7d"`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "a duration such as \"250ms\", \"30s\", \"15m\" or \"7d\"".to_string())
}

/// Reads a size: `"512B"`, `"64KiB"`, `"8MiB"`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wanted = || "a size such as \"512B\", \"64KiB\" or \"8MiB\"".to_string();
    if text.starts_with('-') {
        return Err(wanted());
    }
    bytesize::ByteSize::from_str(text).map(|size| size.as_u64()).map_err(|_| wanted())
}
