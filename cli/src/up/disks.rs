//! The copies of a guest's disk, as the supervisor manages them: see `ft_pair_machine::disk::copies`.

use crate::failure::{OrWrongUse, wrong_use};
use crate::terminal;
use anyhow::Context as _;
use ft_pair_machine::disk::copies::survey;
use ft_pair_machine::disk::{CopyMeta, CopyPaths, CopyState, choose, finalise};
use ft_pair_machine::image::ImageLock;
use ft_pair_shared::{Epoch, Generation, PairId, Side};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Names of an image's copies; `slave_disk` is where the user wants the first of them.
pub fn paths(image: &Path, slave_disk: Option<&Path>) -> anyhow::Result<CopyPaths> {
    let image = std::fs::canonicalize(image).with_context(|| image.display().to_string());
    let image = image.or_wrong_use()?;
    let paths = match slave_disk {
        None => CopyPaths::new(&image, None),
        Some(dir) if dir.is_dir() => CopyPaths::new(&image, Some(&std::fs::canonicalize(dir)?)),
        Some(file) => {
            let file = std::path::absolute(file)?;
            let mut second = file.clone().into_os_string();
            second.push("2");
            CopyPaths { image: image.clone(), others: [file, second.into()] }
        }
    };
    if paths.others.contains(&image) {
        return Err(wrong_use("--slave-disk names the image itself: name another file"));
    }
    for path in &paths.others {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if !parent.is_dir() {
            let shown = parent.display();
            return Err(wrong_use(format!("no directory {shown} for the Slave's disk copy")));
        }
    }
    Ok(paths)
}

/// Makes the image the newest copy and removes the others. Nothing of the pair may run.
pub fn settle(paths: &CopyPaths) -> anyhow::Result<()> {
    let (image, others) = survey(paths)?;
    let image = image.with_context(|| format!("{}: no such file", paths.image.display()))?;
    if others.is_empty() && image.meta.is_none() {
        return Ok(());
    }
    let choice = choose(&image, &others)?;
    if let (false, Some(meta)) = (choice.is_image, choice.newest.meta) {
        finalise(&paths.image, &choice.newest.path, &meta)?;
    }
    for path in &choice.obsolete {
        std::fs::remove_file(path).with_context(|| path.display().to_string())?;
        CopyMeta::remove(path)?;
    }
    // Alone, the image is the newest without saying so.
    Ok(CopyMeta::remove(&paths.image)?)
}

/// Locks an image for this process and makes it the newest copy of its guest's disk.
pub fn lock_newest(image: &Path, slave_disk: Option<&Path>) -> anyhow::Result<ImageLock> {
    let paths = paths(image, slave_disk)?;
    let lock = ImageLock::acquire(&paths.image).or_wrong_use()?;
    settle(&paths).or_wrong_use()?;
    // A newer copy may have taken the image's name.
    drop(lock);
    ImageLock::acquire(&paths.image).or_wrong_use()
}

/// The copies of a running pair.
#[derive(Debug)]
pub struct Copies {
    paths: CopyPaths,
    pair: PairId,
    len: u64,
    /// Each side's copy.
    of: [Option<PathBuf>; 2],
    /// The newest generation that was written to a copy.
    generation: Generation,
    /// What is being written beside the copies right now.
    noting: Option<JoinHandle<()>>,
}

/// Writes what is known of a copy beside it.
fn note(path: &Path, meta: &CopyMeta) {
    if let Err(error) = meta.store(path) {
        terminal::line(&format!("ft-pair: {error}; after a crash the copies need your look"));
    }
}

const fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

impl Copies {
    /// Side A begins with the image.
    pub fn begin(paths: CopyPaths, pair: PairId) -> anyhow::Result<Self> {
        let len = std::fs::metadata(&paths.image)?.len();
        let of = [Some(paths.image.clone()), None];
        let copies = Self { paths, pair, len, of, generation: Generation(1), noting: None };
        copies.meta(CopyState::InUse, Epoch(0)).store(&copies.paths.image)?;
        Ok(copies)
    }

    const fn meta(&self, state: CopyState, epoch: Epoch) -> CopyMeta {
        let Self { pair, len, generation, .. } = self;
        CopyMeta { pair: *pair, generation: *generation, epoch, state, len: *len }
    }

    /// A side's copy.
    pub fn of(&self, side: Side) -> Option<&Path> {
        self.of[index(side)].as_deref()
    }

    /// Length of the disk, bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Names the copy of a new Slave on `side`. What is returned makes it, empty, and may take long: the
    /// Slave's synchronisation fills it.
    pub fn new_copy(
        &mut self,
        side: Side,
    ) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + Send + use<>> {
        self.noted();
        let live = self.of(side.other()).context("the live side has a disk")?;
        let path = self.paths.for_new_slave(live).to_owned();
        self.of[index(side)] = Some(path.clone());
        let meta = self.meta(CopyState::Syncing, Epoch(0));
        let (image, len) = (self.paths.image.clone(), self.len);
        let make = move || {
            meta.store(&path)?;
            let make = || {
                let file = File::create(&path)?;
                file.set_permissions(std::fs::metadata(&image)?.permissions())?;
                file.set_len(len)
            };
            make().with_context(|| format!("cannot make the Slave's disk copy {}", path.display()))
        };
        Ok(make)
    }

    /// A side won a generation: its copy says so before anything is released in it.
    pub fn granted(&mut self, generation: Generation, side: Side, epoch: Epoch) {
        self.noted();
        self.generation = generation;
        if let Some(path) = self.of(side) {
            note(path, &self.meta(CopyState::InUse, epoch));
        }
    }

    /// A side is in sync with the live one: both copies are equally good.
    ///
    /// Said in the background, since nothing waits for it: until it is said, a crash leaves the live
    /// side's copy as the only one, and that one has everything.
    pub fn in_sync(&mut self, side: Side, epoch: Epoch) {
        self.noted();
        let meta = self.meta(CopyState::InUse, epoch);
        let paths: Vec<PathBuf> =
            [side, side.other()].iter().filter_map(|side| self.of(*side)).map(Into::into).collect();
        self.noting = Some(std::thread::spawn(move || {
            for path in paths {
                note(&path, &meta);
            }
        }));
    }

    /// Waits for what is written in the background: an older word never replaces a newer one.
    fn noted(&mut self) {
        if let Some(noting) = self.noting.take() {
            // A panic there was printed; the next word is written all the same.
            drop(noting.join());
        }
    }

    /// Everything has ended, `live` was live last: the image becomes the newest, the other copies go.
    pub fn end(mut self, live: Option<Side>, epoch: Epoch) -> anyhow::Result<()> {
        self.noted();
        if let Some(path) = live.and_then(|live| self.of(live)) {
            // Ahead of a copy that is only in sync: that one may have been cut off.
            note(path, &self.meta(CopyState::InUse, epoch.next()));
        }
        settle(&self.paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn after_the_end_the_image_is_the_copy_that_was_live_last() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("guest.img");
        std::fs::write(&image, [1; 1024]).unwrap();
        let lock = lock_newest(&image, None).unwrap();
        let mut copies = Copies::begin(paths(&image, None).unwrap(), PairId([3; 16])).unwrap();
        copies.new_copy(Side::B).unwrap()().unwrap();
        let slave = copies.of(Side::B).unwrap().to_owned();
        assert_ne!(slave, std::fs::canonicalize(&image).unwrap());
        std::fs::write(&slave, [2; 1024]).unwrap();
        copies.in_sync(Side::B, Epoch(7));
        copies.granted(Generation(2), Side::B, Epoch(7));
        copies.new_copy(Side::A).unwrap()().unwrap();
        assert_ne!(copies.of(Side::A).unwrap(), slave);
        drop(lock);
        copies.end(Some(Side::B), Epoch(9)).unwrap();
        assert_eq!(std::fs::read(&image).unwrap(), [2; 1024]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the image is left");
    }

    #[test]
    fn a_copy_that_was_never_filled_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("guest.img");
        std::fs::write(&image, [1; 1024]).unwrap();
        let mut copies = Copies::begin(paths(&image, None).unwrap(), PairId([3; 16])).unwrap();
        copies.new_copy(Side::B).unwrap()().unwrap();
        copies.end(Some(Side::A), Epoch(9)).unwrap();
        assert_eq!(std::fs::read(&image).unwrap(), [1; 1024]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    fn number(path: &Path) -> u64 {
        let bytes = std::fs::read(path).unwrap();
        u64::from_le_bytes(bytes[..8].try_into().unwrap())
    }

    fn write(copies: &Copies, side: Side, number: u64) {
        use std::os::unix::fs::FileExt;
        let path = copies.of(side).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&number.to_le_bytes(), 0).unwrap();
    }

    /// A guest counts up in its disk; the world has seen `released`. Sides die and come, and in the end
    /// the supervisor dies, between any two of its steps.
    fn power_cycle(image: &Path, id: u8, rng: &mut ChaCha8Rng, released: &mut u64) {
        let paths = paths(image, None).unwrap();
        settle(&paths).unwrap();
        assert!(number(image) >= *released, "a restart finds all that was released");
        let mut copies = Copies::begin(paths, PairId([id; 16])).unwrap();
        let (mut live, mut slave) = (Side::A, None);
        let (mut generation, mut epoch) = (Generation(1), Epoch(0));
        let mut now = number(image);
        loop {
            epoch = epoch.next();
            match (rng.random_range(0..10), slave) {
                // The supervisor dies.
                (0, _) => break,
                // The guest goes on.
                (1..=4, _) => {
                    now += 1;
                    write(&copies, live, now);
                    if slave == Some(true) {
                        if rng.random_bool(0.2) {
                            // Neither committed nor released yet.
                            continue;
                        }
                        write(&copies, live.other(), now);
                    }
                    *released = now;
                }
                (5 | 6, None) => {
                    copies.new_copy(live.other()).unwrap()().unwrap();
                    slave = Some(false);
                }
                (5 | 6, Some(false)) => {
                    write(&copies, live.other(), now);
                    if rng.random_bool(0.2) {
                        // The witness knows, the copies do not yet.
                        break;
                    }
                    copies.in_sync(live.other(), epoch);
                    slave = Some(true);
                }
                (7, Some(synced)) => {
                    if synced {
                        generation = generation.next();
                        copies.granted(generation, live, epoch);
                    }
                    slave = None;
                }
                (8, Some(true)) => {
                    live = live.other();
                    now = number(copies.of(live).unwrap());
                    generation = generation.next();
                    copies.granted(generation, live, epoch);
                    slave = None;
                }
                (9, _) if rng.random_bool(0.3) => {
                    return copies.end(Some(live), epoch).unwrap();
                }
                _ => {}
            }
        }
        copies.noted();
    }

    #[test]
    fn whenever_the_supervisor_dies_the_copy_chosen_has_everything() {
        for seed in 0..100 {
            let dir = tempfile::tempdir().unwrap();
            let image = dir.path().join("guest.img");
            std::fs::write(&image, [0; 1024]).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut released = 0;
            for id in 1..8 {
                power_cycle(&image, id, &mut rng, &mut released);
            }
            settle(&paths(&image, None).unwrap()).unwrap();
            assert!(number(&image) >= released, "seed {seed}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the image is left");
        }
    }
}
