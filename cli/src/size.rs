//! Sizes as people write them.

/// Parses `512M`, `1G`, `1.5G` or `65536K` into bytes.
pub fn parse(text: &str) -> Result<u64, String> {
    let hint = || format!("`{text}` is no size: write it like 512M or 1G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" | "KB" | "KIB" => 1u64 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return Err(hint()),
    };
    let number: f64 = digits.parse().map_err(|_| hint())?;
    let bytes = number * unit as f64;
    if !(bytes > 0.0 && bytes < (1u64 << 50) as f64) {
        return Err(hint());
    }
    Ok((bytes as u64).next_multiple_of(4096))
}

/// Writes bytes for people.
pub fn show(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (name, unit) in UNITS {
        if bytes >= unit {
            let tenths = bytes * 10 / unit;
            return if tenths.is_multiple_of(10) {
                format!("{} {name}", tenths / 10)
            } else {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("1g"), Ok(1 << 30));
        assert_eq!(parse("1.5GiB"), Ok(3 << 29));
        for bad in ["", "M", "512", "-1G", "1T", "99999999999G", "nanM"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(show(512 << 20), "512 MiB");
        assert_eq!(show(3 << 29), "1.5 GiB");
        assert_eq!(show(7), "7 B");
    }
}
