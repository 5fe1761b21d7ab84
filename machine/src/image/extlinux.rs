//! `extlinux.conf` and `syslinux.cfg`.

/// One `LABEL` that boots a kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ExtlinuxEntry {
    pub label: String,
    pub kernel: String,
    pub initrds: Vec<String>,
    pub append: String,
}

/// Reads a configuration; the entry that boots by default comes first.
pub(super) fn parse(text: &str) -> Vec<ExtlinuxEntry> {
    let mut entries: Vec<ExtlinuxEntry> = Vec::new();
    let mut default = None;
    let mut menu_default = None;
    // APPEND before the first LABEL holds for entries that have none.
    let mut global_append = String::new();
    for line in text.lines() {
        let line = line.trim();
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        match (key.to_ascii_lowercase().as_str(), entries.last_mut()) {
            ("label", _) => {
                let append = global_append.clone();
                entries.push(ExtlinuxEntry { label: value.into(), append, ..Default::default() });
            }
            ("default", _) => default = Some(value.to_owned()),
            ("append", None) => value.clone_into(&mut global_append),
            ("kernel" | "linux", Some(e)) => value.clone_into(&mut e.kernel),
            ("initrd", Some(e)) => e.initrds = value.split(',').map(str::to_owned).collect(),
            // "APPEND -" takes back the global one.
            ("append", Some(e)) => {
                e.append = if value == "-" { String::new() } else { value.into() }
            }
            ("menu", Some(e)) if value.eq_ignore_ascii_case("default") => {
                menu_default = Some(e.label.clone());
            }
            _ => {}
        }
    }
    for e in &mut entries {
        take_initrd_argument(e);
    }
    entries.retain(|e| !e.kernel.is_empty());
    let first = menu_default.or(default);
    if let Some(i) = first.and_then(|label| entries.iter().position(|e| e.label == label)) {
        entries[..=i].rotate_right(1);
    }
    entries
}

/// `APPEND initrd=FILE ...` names the initrd in the loader's words, not the kernel's.
fn take_initrd_argument(e: &mut ExtlinuxEntry) {
    let mut rest = Vec::new();
    for word in e.append.split_whitespace() {
        match word.strip_prefix("initrd=") {
            Some(files) if e.initrds.is_empty() => {
                e.initrds = files.split(',').map(str::to_owned).collect();
            }
            Some(_) => {}
            None => rest.push(word),
        }
    }
    e.append = rest.join(" ");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_entry_comes_first() {
        let text = "DEFAULT linux2\nPROMPT 0\nlabel linux1\n kernel /vmlinuz.old\n\
                    LABEL linux2\n  LINUX ../vmlinuz\n  INITRD ../initrd.img,/extra\n  APPEND root=/dev/vda ro\n";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].label, "linux2");
        assert_eq!(all[0].kernel, "../vmlinuz");
        assert_eq!(all[0].initrds, ["../initrd.img", "/extra"]);
        assert_eq!(all[0].append, "root=/dev/vda ro");
    }

    #[test]
    fn initrd_may_stand_in_append() {
        let all = parse("label a\nkernel k\nappend initrd=i.img quiet\nmenu default\n");
        assert_eq!(all[0].initrds, ["i.img"]);
        assert_eq!(all[0].append, "quiet");
    }
}
