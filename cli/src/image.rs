//! `ft-pair image`: makes a guest image from Debian packages, with the recipes of this repository.

use crate::args::ImageArgs;
use crate::failure::{FAILED, wrong_use};
use anyhow::{Context as _, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The recipes by name.
const RECIPES: [(&str, &str); 1] = [(
    "base",
    "Debian 12: its cloud kernel and a small userland, root without a password, 512 MiB",
)];

/// A file of the recipes: path below images/, mode, content.
type RecipeFile = (&'static str, u32, &'static str);

macro_rules! recipe_files {
    ($($mode:literal $path:literal),* $(,)?) => {
        [$(($path, $mode, include_str!(concat!("../../images/", $path)))),*]
    };
}

/// Everything in images/, so that the command works without the repository.
const FILES: [RecipeFile; 21] = recipe_files![
    0o755 "debian.sh",
    0o755 "finish.sh",
    0o755 "guest/etc/ft/console",
    0o755 "guest/etc/ft/rcS",
    0o755 "guest/etc/ft/shutdown",
    0o644 "guest/etc/initramfs-tools/conf.d/ft",
    0o755 "guest/etc/initramfs-tools/hooks/zz-ft",
    0o755 "guest/etc/initramfs-tools/scripts/init-bottom/ft-dev",
    0o644 "guest/etc/inittab",
    0o755 "guest/usr/local/lib/ft/bench",
    0o755 "guest/usr/local/lib/ft/compile",
    0o755 "guest/usr/local/lib/ft/forkexec",
    0o755 "guest/usr/local/lib/ft/idle",
    0o755 "guest/usr/local/lib/ft/memdirty",
    0o755 "guest/usr/local/lib/ft/mixed",
    0o755 "guest/usr/local/lib/ft/sha256",
    0o644 "guest/usr/share/initramfs-tools/modules.d/ft",
    0o644 "src/ledger.c",
    0o644 "src/loops.c",
    0o644 "src/memdirty.c",
    0o644 "src/powerbutton.c",
];

/// A directory that is removed again.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Lists the recipes or makes an image.
pub fn image(args: &ImageArgs) -> anyhow::Result<ExitCode> {
    if args.name == "list" {
        for (name, what) in RECIPES {
            println!("{name:<10}{what}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !RECIPES.iter().any(|(name, _)| *name == args.name) {
        let names: Vec<_> = RECIPES.iter().map(|(name, _)| *name).collect();
        return Err(wrong_use(format!(
            "no recipe `{}`; there is: {}",
            args.name,
            names.join(", ")
        )));
    }
    // Beside the result, so that it can be renamed into place.
    let result = args
        .output
        .clone()
        .unwrap_or_else(|| Path::new("var/images").join(format!("{}.img", args.name)));
    if result.is_dir() {
        return Err(wrong_use(format!("{} is a directory: name a file", result.display())));
    }
    let dir = result.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let dir = std::fs::canonicalize(dir)?;
    let work = Work(dir.join(format!(".ft-pair-image.{}", std::process::id())));
    write_recipe(&work.0.join("images"))?;

    let images = if args.output.is_some() { work.0.join("out") } else { dir };
    let mut command = Command::new(work.0.join("images/debian.sh"));
    let status = command.arg(&args.name).env("FT_IMAGES", &images).status();
    let status = status.context("cannot run the recipe: bash is needed")?;
    if !status.success() {
        return Ok(ExitCode::from(FAILED));
    }
    if args.output.is_some() {
        let made = images.join(format!("{}.img", args.name));
        std::fs::rename(&made, &result).with_context(|| result.display().to_string())?;
    }
    println!("{}", result.display());
    Ok(ExitCode::SUCCESS)
}

fn write_recipe(dir: &Path) -> anyhow::Result<()> {
    for (path, mode, content) in FILES {
        let path = dir.join(path);
        let Some(parent) = path.parent() else { bail!("a recipe file lies in a directory") };
        let write = || {
            std::fs::create_dir_all(parent)?;
            std::fs::write(&path, content)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
        };
        write().with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn all_of_the_recipes_is_in_the_command() {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
        let mut found = Vec::new();
        walk(&images, &mut found);
        found.sort();
        let embedded: Vec<PathBuf> = FILES.iter().map(|(path, ..)| images.join(path)).collect();
        assert_eq!(found, embedded, "keep FILES as images/ is");
        for (path, mode, _) in FILES {
            let actual = std::fs::metadata(images.join(path)).unwrap().permissions().mode();
            assert_eq!(actual & 0o100, mode & 0o100, "{path}: the bit for execution");
        }
    }
}
