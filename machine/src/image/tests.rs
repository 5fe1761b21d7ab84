//! Images made on the spot: with mke2fs, which `make deps` installs, and the partition and FAT crates.

use super::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::process::Command;

const MIB: u64 = 1 << 20;
const UUID: &str = "12345678-1234-4321-abcd-123456789abc";

/// Bytes that pass for a kernel, told apart by `tag`.
fn kernel(tag: u8) -> Vec<u8> {
    let mut bytes = vec![tag; 2048];
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes
}

/// A directory tree: files with their content, links as `name -> target`.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    fn link(self, name: &str, target: &str) -> Self {
        std::os::unix::fs::symlink(target, self.0.path().join(name)).unwrap();
        self
    }

    /// The tree as an ext4 filesystem.
    fn ext4(self) -> Vec<u8> {
        let image = tempfile::NamedTempFile::new().unwrap();
        let sbin = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
        let made = Command::new("mke2fs")
            .env("PATH", sbin)
            .args(["-q", "-F", "-t", "ext4", "-U", UUID, "-d"])
            .arg(self.0.path())
            .arg(image.path())
            .arg("4M")
            .output()
            .expect("mke2fs is installed (package e2fsprogs, see make deps)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::read(image.path()).unwrap()
    }
}

fn fat(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; 4 * MIB as usize]);
    let options = fatfs::FormatVolumeOptions::new().volume_id(0xabcd_1234);
    fatfs::format_volume(&mut disk, options).unwrap();
    let fs = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
    for (name, bytes) in files {
        let mut dir = fs.root_dir();
        let (dirs, name) = name.rsplit_once('/').unwrap_or(("", name));
        for part in dirs.split('/').filter(|p| !p.is_empty()) {
            dir = dir.create_dir(part).unwrap();
        }
        dir.create_file(name).unwrap().write_all(bytes).unwrap();
    }
    fs.unmount().unwrap();
    disk.into_inner()
}

fn gpt_disk(parts: &[&[u8]]) -> Vec<u8> {
    let mut disk =
        Cursor::new(vec![0; (4 * MIB) as usize + parts.iter().map(|p| p.len()).sum::<usize>()]);
    let sectors = (disk.get_ref().len() / 512 - 1) as u32;
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut disk).unwrap();
    let mut table =
        gpt::GptConfig::new().writable(true).create_from_device(&mut disk, None).unwrap();
    let mut starts = Vec::new();
    for part in parts {
        let kind = gpt::partition_types::LINUX_FS;
        let id = table.add_partition("p", part.len() as u64, kind, 0, Some(2048)).unwrap();
        starts.push(table.partitions()[&id].first_lba);
    }
    table.write_inplace().unwrap();
    drop(table);
    for (start, part) in starts.into_iter().zip(parts) {
        disk.seek(SeekFrom::Start(start * 512)).unwrap();
        disk.write_all(part).unwrap();
    }
    disk.into_inner()
}

/// MBR with the second partition inside an extended one.
fn mbr_disk(primary: &[u8], logical: &[u8]) -> Vec<u8> {
    let entry = |kind: u8, start: u32, len: u32| {
        let mut e = [0; 16];
        e[4] = kind;
        e[8..12].copy_from_slice(&start.to_le_bytes());
        e[12..].copy_from_slice(&len.to_le_bytes());
        e
    };
    let sectors = |b: &[u8]| (b.len() / 512) as u32;
    let extended = 2048 + sectors(primary);
    let mut disk = vec![0; 2048 * 512];
    disk.extend(primary);
    disk[446..462].copy_from_slice(&entry(0x83, 2048, sectors(primary)));
    disk[462..478].copy_from_slice(&entry(5, extended, 2048 + sectors(logical)));
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut table = vec![0; 2048 * 512];
    table[446..462].copy_from_slice(&entry(0x83, 2048, sectors(logical)));
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(table);
    disk.extend(logical);
    disk
}

fn open(bytes: &[u8]) -> Result<GuestSource, ImageError> {
    open_with(bytes, &Overrides::default())
}

fn open_with(bytes: &[u8], overrides: &Overrides) -> Result<GuestSource, ImageError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    open_guest(file.path(), overrides)
}

fn grub_cfg(prefix: &str) -> String {
    format!(
        "set default=0\nmenuentry 'Debian' {{\n search --no-floppy --fs-uuid --set=root {UUID}\n \
         linux {prefix}/vmlinuz-6.1 root=UUID={UUID} ro quiet\n initrd {prefix}/initrd.img-6.1\n}}\n"
    )
}

#[test]
fn grub_on_a_bare_filesystem() {
    let image = Tree::new()
        .file("boot/grub/grub.cfg", grub_cfg("/boot"))
        .file("boot/vmlinuz-6.1", kernel(1))
        .file("boot/initrd.img-6.1", b"initrd")
        .ext4();
    let guest = open(&image).unwrap();
    assert_eq!(guest.kernel, kernel(1));
    assert_eq!(guest.initrd.as_deref(), Some(b"initrd".as_slice()));
    assert_eq!(guest.cmdline, format!("root=UUID={UUID} ro quiet console=ttyS0"));
    assert_eq!(guest.found_by, "GRUB entry 'Debian' on the whole disk");
    assert_eq!(guest.disk.unwrap().len, 4 * MIB);
}

#[test]
fn grub_with_boot_on_a_partition_of_its_own() {
    let boot = Tree::new()
        .file("grub/grub.cfg", grub_cfg(""))
        .file("vmlinuz-6.1", kernel(2))
        .file("initrd.img-6.1", b"i")
        .ext4();
    let esp = fat(&[("EFI/debian/grub.cfg", b"search.fs_uuid x root\n")]);
    let root = fat(&[("etc/fstab", b"")]);
    for image in [gpt_disk(&[&esp, &boot, &root]), mbr_disk(&esp, &boot)] {
        let guest = open(&image).unwrap();
        assert_eq!(guest.kernel, kernel(2));
        assert!(
            guest.found_by.starts_with("GRUB entry 'Debian' on partition "),
            "{}",
            guest.found_by
        );
    }
}

#[test]
fn extlinux_bls_links_and_newest() {
    let extlinux = Tree::new()
        .file(
            "boot/extlinux/extlinux.conf",
            "default l\nlabel l\n linux ../vmlinuz-1\n initrd ../i\n append root=/dev/vda console=hvc0\n",
        )
        .file("boot/vmlinuz-1", kernel(3))
        .file("boot/i", b"ii")
        .ext4();
    let guest = open(&extlinux).unwrap();
    assert_eq!((guest.kernel, guest.cmdline.as_str()), (kernel(3), "root=/dev/vda console=hvc0"));

    let bls = fat(&[
        (
            "loader/entries/a.conf",
            b"title A\nversion 1\nlinux /k1\noptions root=/dev/vda2\n".as_slice(),
        ),
        ("k1", &kernel(4)),
    ]);
    let guest = open(&gpt_disk(&[&bls])).unwrap();
    assert_eq!(guest.found_by, "boot loader entry 'A' on partition 1");
    assert_eq!((guest.kernel, guest.initrd), (kernel(4), None));

    let links = Tree::new()
        .file("boot/vmlinuz-6.1", kernel(5))
        .file("boot/initrd.img-6.1", b"x")
        .link("vmlinuz", "boot/vmlinuz-6.1")
        .link("initrd.img", "/boot/initrd.img-6.1")
        .ext4();
    let guest = open(&links).unwrap();
    assert_eq!((guest.kernel, guest.initrd), (kernel(5), Some(b"x".to_vec())));
    assert_eq!(guest.cmdline, "root=/dev/vda ro console=ttyS0");

    let newest = Tree::new()
        .file("boot/vmlinuz-6.9", kernel(6))
        .file("boot/vmlinuz-6.10", kernel(7))
        .file("boot/initrd.img-6.10", b"y")
        .file("etc/fstab", "")
        .ext4();
    let guest = open(&gpt_disk(&[&newest])).unwrap();
    assert_eq!((guest.kernel, guest.initrd), (kernel(7), Some(b"y".to_vec())));
    assert_eq!(guest.cmdline, "root=/dev/vda1 ro console=ttyS0");
}

#[test]
fn an_entry_without_its_kernel_is_passed_over() {
    let image = Tree::new()
        .file("boot/grub/grub.cfg", grub_cfg("/gone"))
        .file("boot/vmlinuz-5", kernel(8))
        .ext4();
    assert_eq!(open(&image).unwrap().kernel, kernel(8));
}

#[test]
fn a_kernel_is_a_guest_without_disk() {
    let guest = open(&kernel(1)).unwrap();
    assert_eq!((guest.kernel, guest.disk), (kernel(1), None));
}

#[test]
fn overrides_replace_what_the_image_says() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("k");
    std::fs::write(&own, kernel(9)).unwrap();
    let empty = Tree::new().file("etc/fstab", "").ext4();
    let overrides =
        Overrides { kernel: Some(own.clone()), append: Some("a b".into()), initrd: None };
    let guest = open_with(&empty, &overrides).unwrap();
    assert_eq!((guest.kernel, guest.cmdline.as_str()), (kernel(9), "a b"));
    assert!(guest.disk.is_some());
    std::fs::write(&own, b"no kernel").unwrap();
    assert!(matches!(open_with(&empty, &overrides), Err(ImageError::NotAKernel { .. })));
}

#[test]
fn bad_input_gets_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let none = Overrides::default();
    let err = |path: &Path| open_guest(path, &none).unwrap_err().to_string();
    assert!(err(&dir.path().join("none")).ends_with("no such file"));
    assert!(err(dir.path()).contains("is a directory"));
    assert!(open(b"").unwrap_err().to_string().contains("is empty"));
    assert!(open(b"garbage").unwrap_err().to_string().contains("--kernel"));
    let qcow = open(b"QFI\xfb\0\0\0\x03 and so on").unwrap_err().to_string();
    assert!(qcow.contains("qemu-img convert -O raw"), "{qcow}");
    let xfs = open(&[b"XFSB".as_slice(), &[0; 9000]].concat()).unwrap_err().to_string();
    assert!(xfs.contains("XFS"), "{xfs}");
    let empty = open(&Tree::new().file("etc/hostname", "x").ext4()).unwrap_err().to_string();
    for wanted in ["grub.cfg", "/vmlinuz", "extlinux", "/loader/entries", "--kernel"] {
        assert!(empty.contains(wanted), "{empty}");
    }
}

#[test]
fn truncated_images_are_refused() {
    let ext = Tree::new().file("boot/vmlinuz-1", kernel(1)).ext4();
    for image in
        [&ext, &fat(&[("vmlinuz-1", &kernel(1))]), &gpt_disk(&[&ext]), &mbr_disk(&ext, &ext)]
    {
        assert!(open(image).is_ok());
        let cut = open(&image[..image.len() - image.len() / 3]).unwrap_err();
        assert!(matches!(cut, ImageError::Truncated { .. }), "{cut}");
        for len in [1, 511, 513, 1024, 1500, 4096, 70_000] {
            assert!(open(&image[..len]).is_err(), "{len} bytes");
        }
    }
}

/// Bytes changed at random: any result will do, but no panic and no endless loop.
#[test]
fn damaged_images_end_in_a_result() {
    let tree = || {
        Tree::new()
            .file("boot/grub/grub.cfg", grub_cfg("/boot"))
            .file("boot/vmlinuz-6.1", kernel(1))
    };
    let ext = tree().ext4();
    let images =
        [gpt_disk(&[&ext]), mbr_disk(&ext, &ext), ext, fat(&[("boot/vmlinuz-1", &kernel(1))])];
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let file = tempfile::NamedTempFile::new().unwrap();
    for image in &images {
        for _ in 0..60 {
            let mut bad = image.clone();
            // Where tables and superblocks are.
            for _ in 0..rng.random_range(1..40) {
                let reach = [1024, 4096, 65536, bad.len()][rng.random_range(0..4)];
                let at = rng.random_range(0..reach);
                bad[at] = rng.random();
            }
            std::fs::write(file.path(), &bad).unwrap();
            drop(open_guest(file.path(), &Overrides::default()));
        }
    }
}

/// Boot configurations out of pieces that mean something, in any order.
#[test]
fn odd_configurations_end_in_a_result() {
    const PIECES: [&str; 34] = [
        "menuentry ",
        "submenu ",
        "{",
        "}",
        "'a'",
        "\"",
        "'",
        "$",
        "${",
        "}",
        "if ",
        "[ ",
        "]; then\n",
        "elif ",
        "else\n",
        "fi\n",
        "for x in a; do ",
        "done\n",
        "function f ",
        "linux /k a\n",
        "initrd /i\n",
        "search --set",
        " --fs-uuid ",
        "set a=$a$a\n",
        "set default=a>b>0\n",
        "\\",
        "\n",
        ";",
        "label x\n",
        "append initrd=\n",
        "title \n",
        "options $x\n",
        "! ",
        "é",
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..20_000 {
        let text: String = (0..rng.random_range(0..60))
            .map(|_| PIECES[rng.random_range(0..PIECES.len())])
            .collect();
        grub::parse(&text, &grub::parse_grubenv(&text));
        extlinux::parse(&text);
        if let Some(e) = bls::parse_entry("x.conf", &text) {
            bls::order(&mut [e.clone(), e], Some(&text));
        }
    }
    let deep = "submenu a {".repeat(3000);
    grub::parse(&deep, &Default::default());
    grub::parse(&"if true; then\n".repeat(3000), &Default::default());
    grub::parse(&format!("if [ {} ]; then\n fi", "! ".repeat(100_000)), &Default::default());
}

#[test]
fn identity_is_of_the_content_not_of_its_holes() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let sparse = dir.path().join("sparse");
    let file = File::create_new(&sparse).unwrap();
    file.set_len(40 * MIB + 17).unwrap();
    file.write_all_at(b"data", 20 * MIB - 2).unwrap();
    let full = dir.path().join("full");
    std::fs::write(&full, std::fs::read(&sparse).unwrap()).unwrap();
    let mut last = 0;
    let id = identify(&sparse, &mut |done, _| last = done).unwrap();
    assert_eq!(last, 40 * MIB + 17);
    assert_eq!(id, identify(&full, &mut |_, _| {}).unwrap());
    file.write_all_at(b"x", 40 * MIB + 16).unwrap();
    assert_ne!(id, identify(&sparse, &mut |_, _| {}).unwrap());
    file.set_len(40 * MIB + 16).unwrap();
    assert_ne!(id, identify(&sparse, &mut |_, _| {}).unwrap());
}
