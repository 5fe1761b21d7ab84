//! `grub.cfg`: enough of GRUB's script language to find what the default menu entry boots.
//!
//! Variables, quoting, `if`/`elif`/`else` over `[ ... ]`, `search`, `set`, nested menus. Loops and
//! functions are skipped. Anything else is a command without effect here.

use std::collections::BTreeMap;

/// Nesting beyond this is no configuration that anybody wrote.
const MAX_DEPTH: usize = 24;
/// Longer words are no configuration either.
const MAX_WORD: usize = 16 << 10;

/// A file on a device, both in GRUB's words: the device is empty, `hd0,gpt1`, `UUID=...`, `LABEL=...` or
/// `FILE=...` (the device that has this file).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrubPath {
    pub device: String,
    pub path: String,
}

/// What a menu entry boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrubEntry {
    pub title: String,
    pub linux: GrubPath,
    pub args: String,
    pub initrds: Vec<GrubPath>,
}

type Env = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A word, its parts still unexpanded.
    Word(Vec<Part>),
    /// `;` or the end of a line.
    End,
    Open,
    Close,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Var(String),
}

#[derive(Debug)]
struct Item {
    title: String,
    id: Option<String>,
    kind: ItemKind,
}

#[derive(Debug)]
enum ItemKind {
    Entry { body: Vec<Token>, env: Env },
    Submenu(Vec<Item>),
}

/// Reads `key=value` lines of a `grubenv` block.
pub(super) fn parse_grubenv(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Finds the entries that boot Linux, the default one first, then the others in the order of the menu.
pub(super) fn parse(text: &str, grubenv: &BTreeMap<String, String>) -> Vec<GrubEntry> {
    let tokens = tokenize(text);
    let mut env = grubenv.clone();
    for (key, value) in [
        ("feature_menuentry_id", "y"),
        ("feature_platform_search_hint", "y"),
        ("grub_platform", "pc"),
    ] {
        env.insert(key.to_owned(), value.to_owned());
    }
    let mut menu = Vec::new();
    let mut run = Run { env, menu: &mut menu, linux: None };
    run.block(&tokens, 0);
    let top = run.linux.take();
    let env = run.env;
    let default = env.get("default").map(String::as_str).unwrap_or("0");
    let chosen = choose(&menu, default);
    let mut entries = Vec::new();
    if let Some(item) = chosen {
        collect(item, &mut entries);
    }
    // A configuration may boot without any menu.
    entries.extend(top);
    for item in &menu {
        collect(item, &mut entries);
    }
    let mut unique: Vec<GrubEntry> = Vec::new();
    for entry in entries {
        if !unique.contains(&entry) {
            unique.push(entry);
        }
    }
    unique
}

/// The menu item that `default` names: a number, a title or an id, nested with `>`.
fn choose<'a>(menu: &'a [Item], default: &str) -> Option<&'a Item> {
    let (head, rest) = match default.split_once('>') {
        Some((head, rest)) => (head.trim(), Some(rest)),
        None => (default.trim(), None),
    };
    let by_name = menu.iter().find(|i| i.id.as_deref() == Some(head) || i.title == head);
    // Titles may contain '>' themselves; the whole string wins then.
    let item = menu
        .iter()
        .find(|i| i.title == default)
        .or(by_name)
        .or_else(|| head.parse::<usize>().ok().and_then(|n| menu.get(n)))?;
    match (&item.kind, rest) {
        (ItemKind::Submenu(items), Some(rest)) => choose(items, rest),
        _ => Some(item),
    }
}

fn collect(item: &Item, into: &mut Vec<GrubEntry>) {
    match &item.kind {
        ItemKind::Submenu(items) => items.iter().for_each(|i| collect(i, into)),
        ItemKind::Entry { body, env } => {
            let mut run = Run { env: env.clone(), menu: &mut Vec::new(), linux: None };
            run.block(body, 0);
            into.extend(run.linux.map(|e| GrubEntry { title: item.title.clone(), ..e }));
        }
    }
}

/// Executes statements.
struct Run<'a> {
    env: Env,
    menu: &'a mut Vec<Item>,
    linux: Option<GrubEntry>,
}

impl Run<'_> {
    fn block(&mut self, tokens: &[Token], depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        let mut at = 0;
        while at < tokens.len() {
            let end = statement_end(tokens, at);
            match keyword(tokens, at) {
                Some("if") => at = self.conditional(tokens, at, depth),
                Some("for" | "while" | "until") => at = skip_to_done(tokens, at),
                Some("function") => at = after_braces(tokens, at),
                Some(word @ ("menuentry" | "submenu")) => {
                    let submenu = word == "submenu";
                    at = self.menu_item(tokens, at, submenu, depth);
                }
                _ => {
                    let words = self.expand(&tokens[at..end]);
                    self.command(&words);
                    at = end + 1;
                }
            }
        }
    }

    fn expand(&self, tokens: &[Token]) -> Vec<String> {
        tokens
            .iter()
            .filter_map(|t| match t {
                Token::Word(parts) => Some(self.expand_word(parts)),
                _ => None,
            })
            .collect()
    }

    fn expand_word(&self, parts: &[Part]) -> String {
        let mut word = String::new();
        for part in parts {
            word.push_str(match part {
                Part::Text(text) => text.as_str(),
                Part::Var(name) => self.env.get(name).map_or("", String::as_str),
            });
            // "set a=$a$a" doubles at each line: stop where no command line can be.
            if word.len() > MAX_WORD {
                return String::new();
            }
        }
        word
    }

    /// Runs the branch that holds; returns the place after `fi`.
    fn conditional(&mut self, tokens: &[Token], at: usize, depth: usize) -> usize {
        let mut done = false;
        let mut condition = at + 1;
        let mut at = at + 1;
        let mut branch = None;
        let mut nested = 0;
        while at < tokens.len() {
            match keyword(tokens, at) {
                Some("if") => nested += 1,
                Some("fi") if nested > 0 => nested -= 1,
                Some("then") if nested == 0 && branch.is_none() => {
                    let words = self.expand(&tokens[condition..at]);
                    branch = Some((at + 1, test(&words)));
                }
                Some(word @ ("elif" | "else" | "fi")) if nested == 0 => {
                    if let Some((from, true)) = branch
                        && !done
                    {
                        self.block(&tokens[from..at], depth + 1);
                        done = true;
                    }
                    match word {
                        "fi" => return at + 1,
                        "else" => branch = Some((at + 1, !done)),
                        _ => (branch, condition) = (None, at + 1),
                    }
                }
                _ => {}
            }
            at += 1;
        }
        at
    }

    /// Takes in `menuentry 'title' --id x { ... }`; returns the place after it.
    fn menu_item(&mut self, tokens: &[Token], at: usize, submenu: bool, depth: usize) -> usize {
        let Some(open) = tokens[at..].iter().position(|t| *t == Token::Open).map(|i| at + i) else {
            return tokens.len();
        };
        let after = after_braces(tokens, at);
        let body = &tokens[open + 1..(after.saturating_sub(1)).max(open + 1)];
        let mut words = self.expand(&tokens[at + 1..open]).into_iter();
        let mut title = None;
        let mut id = None;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--id" => id = words.next(),
                // Debian writes "$menuentry_id_option 'id'"; the variable is unset here and expands to "".
                "" => id = words.next().or(id),
                "--class" | "--users" | "--hotkey" => drop(words.next()),
                w if w.starts_with("--id=") => id = Some(w[5..].to_owned()),
                w if w.starts_with("--") => {}
                _ if title.is_none() => title = Some(word),
                _ => {}
            }
        }
        let kind = if submenu {
            let mut items = Vec::new();
            let mut run = Run { env: self.env.clone(), menu: &mut items, linux: None };
            run.block(body, depth + 1);
            ItemKind::Submenu(items)
        } else {
            ItemKind::Entry { body: body.to_vec(), env: self.env.clone() }
        };
        self.menu.push(Item { title: title.unwrap_or_default(), id, kind });
        after
    }

    fn command(&mut self, words: &[String]) {
        let Some((name, args)) = words.split_first() else { return };
        match name.as_str() {
            "set" | "export" => {
                if let Some((key, value)) = args.first().and_then(|a| a.split_once('=')) {
                    self.env.insert(key.to_owned(), value.to_owned());
                }
            }
            "unset" => args.iter().for_each(|key| drop(self.env.remove(key))),
            "search" | "search.fs_uuid" | "search.fs_label" | "search.file" => {
                self.search(name, args);
            }
            "linux" | "linuxefi" | "linux16" | "kernel" => {
                let Some((path, args)) = args.split_first() else { return };
                let linux = self.locate(path);
                self.linux = Some(GrubEntry {
                    title: String::new(),
                    linux,
                    args: args.join(" "),
                    initrds: Vec::new(),
                });
            }
            "initrd" | "initrdefi" | "initrd16" => {
                let files: Vec<_> = args.iter().map(|path| self.locate(path)).collect();
                if let Some(entry) = &mut self.linux {
                    entry.initrds = files;
                }
            }
            _ => {
                if let Some((key, value)) = name.split_once('=')
                    && args.is_empty()
                {
                    self.env.insert(key.to_owned(), value.to_owned());
                }
            }
        }
    }

    /// `search --fs-uuid --set=root VALUE`, and the older `search.fs_uuid VALUE root`.
    fn search(&mut self, name: &str, args: &[String]) {
        let mut kind = match name {
            "search.fs_uuid" => "UUID",
            "search.fs_label" => "LABEL",
            _ => "FILE",
        };
        let dotted = name.contains('.');
        let mut var = "root".to_owned();
        let mut plain = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-u" | "--fs-uuid" => kind = "UUID",
                "-l" | "--label" | "--fs-label" => kind = "LABEL",
                "-f" | "--file" => kind = "FILE",
                "--set" | "-s" => {
                    let more = args.as_slice();
                    if more.len() > 1 && !more[0].starts_with('-') {
                        var = args.next().cloned().unwrap_or_default();
                    }
                }
                "--hint" | "-h" => drop(args.next()),
                a if a.starts_with("--set=") => a[6..].clone_into(&mut var),
                a if a.starts_with('-') => {}
                a => plain.push(a.to_owned()),
            }
        }
        let mut plain = plain.into_iter();
        let Some(value) = plain.next() else { return };
        if dotted && let Some(name) = plain.next() {
            var = name;
        }
        self.env.insert(var, format!("{kind}={value}"));
    }

    /// Splits `(device)/path`; a path without device lies on `$root`.
    fn locate(&self, path: &str) -> GrubPath {
        if let Some((device, path)) = path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            return GrubPath { device: device.to_owned(), path: path.to_owned() };
        }
        let device = self.env.get("root").cloned().unwrap_or_default();
        GrubPath { device, path: path.to_owned() }
    }
}

/// `[ ... ]`: strings and their equality; files are taken to be there.
fn test(words: &[String]) -> bool {
    let words = words.iter().map(String::as_str).filter(|w| !matches!(*w, "[" | "]" | "test"));
    let negations = words.clone().take_while(|w| *w == "!").count();
    let words: Vec<&str> = words.skip(negations).collect();
    let holds = match words.as_slice() {
        ["-s" | "-f" | "-e" | "-d", _] => true,
        ["-n", s] => !s.is_empty(),
        ["-z", s] => s.is_empty(),
        [a, "=" | "==", b] => a == b,
        [a, "!=", b] => a != b,
        ["true"] => true,
        ["false"] | [] => false,
        [one] => !one.is_empty(),
        _ => false,
    };
    holds != (negations % 2 == 1)
}

/// The word at `at` if it stands where a command can stand and is plain text.
fn keyword(tokens: &[Token], at: usize) -> Option<&str> {
    let first = match at.checked_sub(1).and_then(|before| tokens.get(before)) {
        None | Some(Token::End | Token::Open | Token::Close) => true,
        Some(Token::Word(parts)) => {
            matches!(parts.as_slice(), [Part::Text(t)] if t == "then" || t == "else")
        }
    };
    match tokens.get(at)? {
        Token::Word(parts) if first => match parts.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn statement_end(tokens: &[Token], at: usize) -> usize {
    tokens[at..].iter().position(|t| !matches!(t, Token::Word(_))).map_or(tokens.len(), |i| at + i)
}

fn skip_to_done(tokens: &[Token], at: usize) -> usize {
    let mut nested = 0;
    for i in at..tokens.len() {
        match keyword(tokens, i) {
            Some("for" | "while" | "until") => nested += 1,
            Some("done") => {
                nested -= 1;
                if nested == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The place after the next `{ ... }`.
fn after_braces(tokens: &[Token], at: usize) -> usize {
    let mut nested = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Open => nested += 1,
            Token::Close if nested <= 1 => return i + 1,
            Token::Close => nested -= 1,
            _ => {}
        }
    }
    tokens.len()
}

fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<Vec<Part>> = None;
    let mut chars = text.chars().peekable();
    let push_char = |word: &mut Option<Vec<Part>>, c: char| {
        let parts = word.get_or_insert_default();
        match parts.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => parts.push(Part::Text(c.to_string())),
        }
    };
    let mut double = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => push_char(&mut word, c),
            },
            '"' => {
                double = !double;
                // Also an empty string is a word.
                word.get_or_insert_default();
            }
            '\'' if !double => {
                word.get_or_insert_default();
                for c in chars.by_ref().take_while(|c| *c != '\'') {
                    push_char(&mut word, c);
                }
            }
            '$' => {
                let name = variable(&mut chars);
                word.get_or_insert_default().push(Part::Var(name));
            }
            c if double => push_char(&mut word, c),
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' | ';' | '{' | '}' => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(match c {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                });
            }
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            c => push_char(&mut word, c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}

fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    if chars.next_if_eq(&'{').is_some() {
        return chars.by_ref().take_while(|c| *c != '}').collect();
    }
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = r#"
set menuentry_id_option=""
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set boot_once=true
else
   set default="0"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
  fi
}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
insmod part_gpt
fi
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-1234' {
	insmod ext2
	set root='hd0,gpt1'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 1234-abcd
	else
	  search --no-floppy --fs-uuid --set=root 1234-abcd
	fi
	echo	'Loading Linux 6.1.0 ...'
	linux	/boot/vmlinuz-6.1.0 root=UUID=1234-abcd ro  quiet
	initrd	/boot/initrd.img-6.1.0
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced' {
	menuentry 'Old' --id 'old' {
		set root='hd0,gpt2'
		linux ($root)/vmlinuz-5 single
		initrd /a /b
	}
}
"#;

    #[test]
    fn debians_configuration_is_understood() {
        let all = parse(DEBIAN, &BTreeMap::new());
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].title, "Debian GNU/Linux");
        assert_eq!(all[0].linux.device, "UUID=1234-abcd");
        assert_eq!(all[0].linux.path, "/boot/vmlinuz-6.1.0");
        assert_eq!(all[0].args, "root=UUID=1234-abcd ro quiet");
        assert_eq!(all[0].initrds[0].path, "/boot/initrd.img-6.1.0");
    }

    #[test]
    fn the_environment_block_chooses() {
        let env =
            parse_grubenv("# GRUB Environment Block\nnext_entry=gnulinux-advanced>old\n####\n");
        let all = parse(DEBIAN, &env);
        assert_eq!(all[0].title, "Old");
        assert_eq!(all[0].linux, GrubPath { device: "hd0,gpt2".into(), path: "/vmlinuz-5".into() });
        assert_eq!(all[0].initrds.len(), 2);
        let env = parse_grubenv("next_entry=1>0\n");
        assert_eq!(parse(DEBIAN, &env)[0].title, "Old");
    }

    #[test]
    fn search_variants_set_the_device() {
        let all = parse(
            "search.fs_uuid aa-bb boot hd0,gpt1\nlinux ($boot)/k a=\"b c\" 'd\n",
            &BTreeMap::new(),
        );
        assert_eq!(all[0].linux, GrubPath { device: "UUID=aa-bb".into(), path: "/k".into() });
        let all = parse("search --set root --label boot\nlinux /k\n", &BTreeMap::new());
        assert_eq!(all[0].linux.device, "LABEL=boot");
    }
}
