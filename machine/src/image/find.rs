//! Finds kernel, initrd and command line on the filesystems of an image.
//!
//! In this order, each on every filesystem before the next: Boot Loader Specification entries,
//! extlinux/syslinux, GRUB, the links /vmlinuz and /initrd.img, the newest /boot/vmlinuz-*. The first that
//! names a kernel which is there wins.

use super::fs::{self, GuestFs, Kind};
use super::volume::{self, Volume};
use super::{GuestSource, ImageError, bls, extlinux, grub, is_kernel};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Places of entry directories.
const BLS_DIRS: [&str; 2] = ["/loader/entries", "/boot/loader/entries"];
/// Places of extlinux and syslinux configurations.
const EXTLINUX: [&str; 9] = [
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/syslinux/syslinux.cfg",
    "/syslinux.cfg",
    "/boot/syslinux/extlinux.conf",
    "/isolinux/isolinux.cfg",
];
/// Places of GRUB configurations.
const GRUB: [&str; 4] =
    ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"];
/// Kernel links with the initrd links that belong to them.
const LINKS: [(&str, &[&str]); 3] = [
    ("/vmlinuz", &["/initrd.img", "/initrd"]),
    ("/boot/vmlinuz", &["/boot/initrd.img", "/boot/initrd", "/boot/initramfs.img"]),
    ("/boot/vmlinuz-linux", &["/boot/initramfs-linux.img"]),
];

struct Found {
    kernel: Vec<u8>,
    initrd: Option<Vec<u8>>,
    cmdline: String,
    by: String,
}

struct Mounted {
    volume: Volume,
    fs: GuestFs,
}

struct Search {
    mounted: Vec<Mounted>,
    looked_for: Vec<String>,
}

/// Looks through an image. Without `need_kernel` only the command line and the disk matter, and an image
/// that boots nothing by itself is fine.
pub(super) fn find(
    path: &Path,
    file: &File,
    len: u64,
    need_kernel: bool,
) -> Result<GuestSource, ImageError> {
    let volumes = volume::volumes(path, file, len)?;
    let mut search = Search { mounted: Vec::new(), looked_for: Vec::new() };
    let mut unreadable = Vec::new();
    for volume in volumes {
        match GuestFs::open(path, &volume) {
            Ok(Some(fs)) => search.mounted.push(Mounted { volume, fs }),
            Ok(None) => {
                let kind = match fs::detect(&volume) {
                    Some(Kind::Other(name)) => name,
                    _ => "nothing known",
                };
                unreadable.push((volume.name(), kind));
            }
            // With --kernel the guest may use what is not understood here.
            Err(_) if !need_kernel => {}
            Err(e) => return Err(e),
        }
    }
    if search.mounted.is_empty() && need_kernel {
        let found: Vec<_> = unreadable.iter().map(|(at, what)| format!("{at}: {what}")).collect();
        let found = if found.is_empty() { "no partitions".to_owned() } else { found.join(", ") };
        return Err(ImageError::UnknownFilesystem { path: path.to_owned(), found });
    }
    let found = search.run();
    match found {
        Some(f) => Ok(GuestSource {
            kernel: f.kernel,
            initrd: f.initrd,
            cmdline: with_console(f.cmdline),
            found_by: f.by,
            disk: None,
        }),
        None if need_kernel => {
            let mut looked_for = search.looked_for;
            looked_for.extend(
                unreadable.iter().map(|(at, what)| format!("  {at}: not readable ({what})")),
            );
            Err(ImageError::NoKernel { path: path.to_owned(), looked_for })
        }
        None => Ok(GuestSource {
            kernel: Vec::new(),
            initrd: None,
            cmdline: with_console(format!("root={} ro", search.root_device(0))),
            found_by: String::new(),
            disk: None,
        }),
    }
}

/// The serial port is the machine's only console; without the argument the guest would stay silent.
fn with_console(cmdline: String) -> String {
    let named = cmdline.split_whitespace().any(|word| word.starts_with("console="));
    match (named, cmdline.is_empty()) {
        (true, _) => cmdline,
        (false, true) => "console=ttyS0".to_owned(),
        (false, false) => format!("{cmdline} console=ttyS0"),
    }
}

impl Search {
    fn run(&mut self) -> Option<Found> {
        let steps: [fn(&mut Self, usize) -> Option<Found>; 5] =
            [Self::bls, Self::extlinux, Self::grub, Self::links, Self::newest];
        steps.into_iter().find_map(|step| (0..self.mounted.len()).find_map(|i| step(self, i)))
    }

    fn fs(&self, i: usize) -> &GuestFs {
        &self.mounted[i].fs
    }

    fn place(&self, i: usize) -> String {
        self.mounted[i].volume.name()
    }

    /// Notes a search without result; one line each.
    fn note(&mut self, i: usize, what: &str) {
        let line = format!("  {}: {what}", self.place(i));
        self.looked_for.push(line);
    }

    fn bls(&mut self, i: usize) -> Option<Found> {
        for dir in BLS_DIRS {
            let fs = self.fs(i);
            let mut entries: Vec<_> = fs
                .list(dir)
                .iter()
                .filter_map(|name| {
                    let text = fs.read_text(&format!("{dir}/{name}"))?;
                    bls::parse_entry(name, &text)
                })
                .collect();
            let loader_conf = format!("{}/loader.conf", dir.trim_end_matches("/entries"));
            let default = fs.read_text(&loader_conf).and_then(|t| bls::parse_default(&t));
            bls::order(&mut entries, default.as_deref());
            if entries.is_empty() {
                self.note(i, &format!("no entries in {dir}"));
            }
            let env = self.grubenv(i);
            for e in entries {
                let by = format!("boot loader entry '{}' on {}", e.title, self.place(i));
                // Fedora: "$kernelopts" from grubenv, "$tuned_initrd" that is mostly empty.
                let initrds: Vec<_> = e.initrds.iter().filter(|f| !f.starts_with('$')).collect();
                let options = e
                    .options
                    .split_whitespace()
                    .map(|w| {
                        w.strip_prefix('$').map_or(w, |v| env.get(v).map_or("", String::as_str))
                    })
                    .filter(|w| !w.is_empty())
                    .collect::<Vec<_>>()
                    .join(" ");
                let initrds = initrds.into_iter().map(|f| (i, f.as_str())).collect::<Vec<_>>();
                let found = self.load((i, &e.linux), &initrds, &options, by);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    fn extlinux(&mut self, i: usize) -> Option<Found> {
        for file in EXTLINUX {
            let Some(text) = self.fs(i).read_text(file) else {
                continue;
            };
            let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
            let entries = extlinux::parse(&text);
            if entries.is_empty() {
                self.note(i, &format!("{file} boots no kernel"));
            }
            for e in entries {
                let by = format!("{file} entry '{}' on {}", e.label, self.place(i));
                let absolute = |f: &str| normalise(dir, f);
                let initrds: Vec<_> = e.initrds.iter().map(|f| absolute(f)).collect();
                let initrds: Vec<_> = initrds.iter().map(|f| (i, f.as_str())).collect();
                let found = self.load((i, &absolute(&e.kernel)), &initrds, &e.append, by);
                if found.is_some() {
                    return found;
                }
            }
        }
        self.note(i, "no extlinux.conf or syslinux.cfg with a kernel");
        None
    }

    fn grubenv(&self, i: usize) -> BTreeMap<String, String> {
        GRUB.iter()
            .map(|cfg| cfg.replace("grub.cfg", "grubenv"))
            .find_map(|file| self.fs(i).read_text(&file))
            .map(|text| grub::parse_grubenv(&text))
            .unwrap_or_default()
    }

    fn grub(&mut self, i: usize) -> Option<Found> {
        let mut any = false;
        for file in GRUB {
            let Some(text) = self.fs(i).read_text(file) else { continue };
            let entries = grub::parse(&text, &self.grubenv(i));
            any = true;
            if entries.is_empty() {
                self.note(i, &format!("{file} has no entry with a kernel"));
            }
            for e in entries {
                let on = self.device(&e.linux, i);
                let by = format!("GRUB entry '{}' on {}", e.title, self.place(i));
                let initrds: Vec<_> =
                    e.initrds.iter().map(|p| (self.device(p, i), p.path.as_str())).collect();
                let found = self.load((on, &e.linux.path), &initrds, &e.args, by);
                if found.is_some() {
                    return found;
                }
            }
        }
        if !any {
            self.note(i, &format!("none of {}", GRUB.join(", ")));
        }
        None
    }

    /// The filesystem that a GRUB device name means, `or` if it means none here.
    fn device(&self, path: &grub::GrubPath, or: usize) -> usize {
        let position = |f: &dyn Fn(&Mounted) -> bool| self.mounted.iter().position(f);
        let found = match path.device.split_once('=') {
            Some(("UUID", uuid)) => position(&|m| m.fs.uuid.eq_ignore_ascii_case(uuid)),
            Some(("LABEL", label)) => position(&|m| m.fs.label == label),
            Some(("FILE", file)) => position(&|m| m.fs.exists(file)),
            // "hd0,gpt1", "hd0,msdos1", "hd0,1"
            _ => path.device.split_once(',').and_then(|(_, part)| {
                let number = part.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
                position(&|m| m.volume.number == Some(number))
            }),
        };
        found.unwrap_or(or)
    }

    fn links(&mut self, i: usize) -> Option<Found> {
        for (kernel, initrds) in LINKS {
            // A link may lead into a /boot that is a partition of its own.
            let target = self.fs(i).link(kernel);
            let Some((on, name)) = self.locate(i, kernel, target.as_deref()) else { continue };
            let initrd = initrds.iter().find_map(|initrd| {
                let target = self.fs(i).link(initrd);
                self.locate(i, initrd, target.as_deref())
            });
            let by = format!("{kernel} on {}", self.place(i));
            let cmdline = format!("root={} ro", self.root_device(i));
            let initrds: Vec<_> = initrd.iter().map(|(on, name)| (*on, name.as_str())).collect();
            let found = self.load((on, &name), &initrds, &cmdline, by);
            if found.is_some() {
                return found;
            }
        }
        self.note(i, "no /vmlinuz, /boot/vmlinuz");
        None
    }

    fn locate(&self, i: usize, name: &str, target: Option<&str>) -> Option<(usize, String)> {
        if self.fs(i).exists(name) {
            return Some((i, name.to_owned()));
        }
        let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
        let full = normalise(dir, target?);
        let inside = full.strip_prefix("/boot")?;
        let on = (0..self.mounted.len()).find(|n| *n != i && self.fs(*n).exists(inside))?;
        Some((on, inside.to_owned()))
    }

    fn newest(&mut self, i: usize) -> Option<Found> {
        for dir in ["/boot", ""] {
            let names = self.fs(i).list(if dir.is_empty() { "/" } else { dir });
            let mut versions: Vec<_> = names
                .iter()
                .filter_map(|n| n.strip_prefix("vmlinuz-"))
                .filter(|v| !v.contains("rescue"))
                .collect();
            versions.sort_by(|a, b| bls::compare_versions(b, a));
            for version in versions {
                let kernel = format!("{dir}/vmlinuz-{version}");
                let initrd = [
                    format!("initrd.img-{version}"),
                    format!("initramfs-{version}.img"),
                    format!("initrd-{version}"),
                ]
                .into_iter()
                .find(|n| names.contains(n))
                .map(|n| format!("{dir}/{n}"));
                let by = format!("{kernel} on {}, the newest there", self.place(i));
                let cmdline = format!("root={} ro", self.root_device(i));
                let initrds: Vec<_> = initrd.iter().map(|f| (i, f.as_str())).collect();
                let found = self.load((i, &kernel), &initrds, &cmdline, by);
                if found.is_some() {
                    return found;
                }
            }
        }
        self.note(i, "no /boot/vmlinuz-*, /vmlinuz-*");
        None
    }

    /// The guest's name for its root: the volume that looks like one, else `kernel_on`.
    fn root_device(&self, kernel_on: usize) -> String {
        let is_root = |m: &&Mounted| {
            ["/sbin/init", "/etc/fstab", "/usr/lib/systemd/systemd", "/bin/sh"]
                .iter()
                .any(|f| m.fs.exists(f) || m.fs.link(f).is_some())
        };
        let on_kernel = self.mounted.get(kernel_on).filter(is_root);
        on_kernel
            .or_else(|| self.mounted.iter().find(is_root))
            .or_else(|| self.mounted.get(kernel_on))
            .map_or_else(|| "/dev/vda".to_owned(), |m| m.volume.device())
    }

    /// Reads the files that an entry names. An entry whose files are not there is noted and passed over.
    fn load(
        &mut self,
        kernel: (usize, &str),
        initrds: &[(usize, &str)],
        cmdline: &str,
        by: String,
    ) -> Option<Found> {
        match self.try_load(kernel, initrds, cmdline, by.clone()) {
            Ok(found) => Some(found),
            Err(why) => {
                self.looked_for.push(format!("  {by}: {why}"));
                None
            }
        }
    }

    fn try_load(
        &self,
        (on, name): (usize, &str),
        initrds: &[(usize, &str)],
        cmdline: &str,
        by: String,
    ) -> Result<Found, String> {
        let kernel = self.read(on, name)?;
        if !is_kernel(&kernel) {
            return Err(format!("{name} is no x86-64 kernel"));
        }
        let mut initrd = Vec::new();
        for (on, name) in initrds {
            // The kernel takes concatenated archives, each from a multiple of four bytes.
            initrd.resize(initrd.len().next_multiple_of(4), 0);
            initrd.extend(self.read(*on, name)?);
        }
        let initrd = (!initrd.is_empty()).then_some(initrd);
        Ok(Found { kernel, initrd, cmdline: cmdline.trim().to_owned(), by })
    }

    /// Reads a file as a boot configuration names it: relative to the filesystem's root, where a /boot of
    /// its own may be meant.
    fn read(&self, on: usize, name: &str) -> Result<Vec<u8>, String> {
        let name = normalise("", name);
        let in_boot = format!("/boot{name}");
        let candidates = [Some(name.as_str()), Some(&in_boot), name.strip_prefix("/boot")];
        for candidate in candidates.into_iter().flatten() {
            if let Some(bytes) = self.fs(on).read(candidate)? {
                return Ok(bytes);
            }
        }
        Err(format!("{name} is not there"))
    }
}

/// An absolute path without `.` and `..`.
fn normalise(dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let from_dir = if path.starts_with('/') { "" } else { dir };
    for part in from_dir.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
