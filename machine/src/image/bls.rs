//! Boot Loader Specification entries (`/loader/entries/*.conf`).

use std::cmp::Ordering;

/// One entry file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BlsEntry {
    /// File name without `.conf`.
    pub id: String,
    pub title: String,
    pub version: String,
    pub linux: String,
    pub initrds: Vec<String>,
    pub options: String,
}

/// Reads an entry; none if it names no kernel (entries may start EFI programs instead).
pub(super) fn parse_entry(file_name: &str, text: &str) -> Option<BlsEntry> {
    let id = file_name.strip_suffix(".conf")?;
    let mut entry = BlsEntry { id: id.to_owned(), ..BlsEntry::default() };
    for line in text.lines() {
        let line = line.trim();
        let Some((key, value)) = line.split_once(char::is_whitespace) else { continue };
        let value = value.trim();
        match key {
            "title" => value.clone_into(&mut entry.title),
            "version" => value.clone_into(&mut entry.version),
            "linux" => value.clone_into(&mut entry.linux),
            "initrd" => entry.initrds.extend(value.split_whitespace().map(str::to_owned)),
            "options" => {
                if !entry.options.is_empty() {
                    entry.options.push(' ');
                }
                entry.options.push_str(value);
            }
            _ => {}
        }
    }
    if entry.title.is_empty() {
        id.clone_into(&mut entry.title);
    }
    (!entry.linux.is_empty()).then_some(entry)
}

/// The `default` of a `loader.conf`, if it has one.
pub(super) fn parse_default(text: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .find(|(key, _)| *key == "default")
        .map(|(_, value)| value.trim().to_owned())
}

/// Puts the entry that boots first: the default if one matches, then the newest version.
pub(super) fn order(entries: &mut [BlsEntry], default: Option<&str>) {
    let wanted = |e: &BlsEntry| {
        default.is_some_and(|pattern| {
            let pattern = pattern.strip_suffix(".conf").unwrap_or(pattern);
            match pattern.strip_suffix('*') {
                Some(prefix) => e.id.starts_with(prefix),
                None => e.id == pattern,
            }
        })
    };
    // A boot counter that has run out ("+0" in the name) marks an entry that failed to boot; rescue
    // entries come last of all.
    let usable = |e: &BlsEntry| !e.id.contains("+0") && !e.id.contains("rescue");
    entries.sort_by(|a, b| {
        (wanted(b), usable(b))
            .cmp(&(wanted(a), usable(a)))
            .then_with(|| compare_versions(&b.version, &a.version))
            .then_with(|| compare_versions(&b.id, &a.id))
    });
}

/// Compares version strings: runs of digits by value, the rest by bytes.
pub(super) fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (x, rest_a) = digits(a);
                let (y, rest_b) = digits(b);
                // Without leading zeros the longer number is the larger one.
                let by_value = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
                if by_value.is_ne() {
                    return by_value;
                }
                (a, b) = (rest_a, rest_b);
            }
            (Some(x), Some(y)) => {
                // "~" sorts before everything, even the end, as package versions have it; here it is
                // enough that it sorts before other bytes.
                if x != y {
                    return if *x == b'~' {
                        Ordering::Less
                    } else if *y == b'~' {
                        Ordering::Greater
                    } else {
                        x.cmp(y)
                    };
                }
                (a, b) = (&a[1..], &b[1..]);
            }
        }
    }
}

fn digits(s: &[u8]) -> (&[u8], &[u8]) {
    let end = s.iter().position(|c| !c.is_ascii_digit()).unwrap_or(s.len());
    let (number, rest) = s.split_at(end);
    let zeros = number.iter().take_while(|c| **c == b'0').count();
    (&number[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read() {
        let text = "# comment\ntitle Fedora 40\nversion 6.8.5\nlinux /vmlinuz-6.8.5\n\
                    initrd /initramfs-6.8.5.img $tuned_initrd\noptions root=UUID=1 ro\noptions quiet\n";
        let e = parse_entry("abc-6.8.5.conf", text).unwrap();
        assert_eq!(e.title, "Fedora 40");
        assert_eq!(e.linux, "/vmlinuz-6.8.5");
        assert_eq!(e.initrds, ["/initramfs-6.8.5.img", "$tuned_initrd"]);
        assert_eq!(e.options, "root=UUID=1 ro quiet");
        assert_eq!(parse_entry("x.conf", "title EFI shell\nefi /shell.efi\n"), None);
        assert_eq!(parse_entry("x.txt", text), None);
    }

    #[test]
    fn newest_first_unless_a_default_is_set() {
        let make = |id: &str, version: &str| BlsEntry {
            id: id.into(),
            version: version.into(),
            ..BlsEntry::default()
        };
        let mut all = [make("a", "6.9.9"), make("0-rescue", "9"), make("b", "6.10.1")];
        order(&mut all, None);
        assert_eq!(all.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["b", "a", "0-rescue"]);
        order(&mut all, Some("a*"));
        assert_eq!(all[0].id, "a");
        assert_eq!(parse_default("timeout 3\ndefault a*\n"), Some("a*".into()));
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(compare_versions("6.1.0-56", "6.1.0-9"), Ordering::Greater);
        assert_eq!(compare_versions("6.01", "6.1"), Ordering::Equal);
        assert_eq!(compare_versions("6.1", "6.1.1"), Ordering::Less);
    }
}
