//! Which copy of a guest's disk may be used.
//!
//! * The first Master uses the image itself, its Slave `IMG.ft-slave`; a later Slave gets whichever name
//!   the live side does not use, so that a file which is the newest is never overwritten.
//! * A side that loses its peer wins a new generation and writes it to its copy's metadata before it
//!   releases anything that the peer has not committed. So among copies in use the one with the highest
//!   generation has everything that was released; of the same generation both have.
//! * A copy that is being filled ([`CopyState::Syncing`]) is never used; a dead Master's copy becomes one
//!   before it is filled again ([`super::resync_compare`]).
//! * After a clean end the image is the newest ([`super::finalise`]).

use super::metadata::{CopyMeta, CopyState, MetaError, with_suffix};
use std::path::{Path, PathBuf};

/// Names of a guest's copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPaths {
    /// The user's image.
    pub image: PathBuf,
    /// The other copies' names, in the order in which they are taken.
    pub others: [PathBuf; 2],
}

impl CopyPaths {
    /// Names beside the image, or in a directory of their own.
    pub fn new(image: &Path, dir: Option<&Path>) -> Self {
        let base = match (dir, image.file_name()) {
            (Some(dir), Some(name)) => dir.join(name),
            _ => image.to_owned(),
        };
        let others = [with_suffix(&base, ".ft-slave"), with_suffix(&base, ".ft-slave2")];
        Self { image: image.to_owned(), others }
    }

    /// Where a new Slave's copy goes while `live` is in use: never the image, which stays intact however
    /// the filling ends.
    pub fn for_new_slave(&self, live: &Path) -> &Path {
        let [first, second] = &self.others;
        if live == first { second } else { first }
    }
}

/// A copy as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub len: u64,
    /// Its metadata.
    pub meta: Option<CopyMeta>,
}

/// Which copy to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyChoice {
    /// The newest copy.
    pub newest: Candidate,
    /// True if that is the user's image.
    pub is_image: bool,
    /// Copies that hold nothing which the newest has not; they can be removed.
    pub obsolete: Vec<PathBuf>,
}

/// No copy can be used without somebody's decision.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The metadata of a copy cannot be read.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A copy is there that belongs to another guest, or to another state of the image.
    #[error(
        "{} holds a guest's disk that did not end cleanly, but not of the guest in {}; move the \
         former over the latter to use it, or delete {} and {} to go on without it",
        .copy.display(), .image.display(), .copy.display(), super::metadata::sidecar(.copy).display()
    )]
    Foreign {
        /// The user's image.
        image: PathBuf,
        /// The copy.
        copy: PathBuf,
    },
    /// The only copy is half filled.
    #[error(
        "{} was being filled from another copy when that ended, and no other copy is here; restore the \
         image from its source", .path.display()
    )]
    Incomplete {
        /// The copy.
        path: PathBuf,
    },
    /// A copy has changed in length.
    #[error(
        "{} has {len} bytes, its metadata say {expected}: it was changed by another program; if that \
         was intended, delete {}", .path.display(), super::metadata::sidecar(.path).display()
    )]
    Length {
        /// The copy.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// The length that its metadata name.
        expected: u64,
    },
}

/// Looks at the copies that are there. None if the image is not.
///
/// # Errors
/// When metadata cannot be read.
pub fn survey(paths: &CopyPaths) -> Result<(Option<Candidate>, Vec<Candidate>), CopyError> {
    let look = |path: &Path| -> Result<Option<Candidate>, CopyError> {
        let Ok(file) = std::fs::metadata(path) else { return Ok(None) };
        let meta = CopyMeta::load(path)?;
        Ok(Some(Candidate { path: path.to_owned(), len: file.len(), meta }))
    };
    let image = look(&paths.image)?;
    let mut others = Vec::new();
    for path in &paths.others {
        others.extend(look(path)?);
    }
    Ok((image, others))
}

/// Decides which copy is the newest.
///
/// # Errors
/// When that takes a person; the message says what can be done.
pub fn choose(image: &Candidate, others: &[Candidate]) -> Result<CopyChoice, CopyError> {
    let mut usable = Vec::new();
    let mut obsolete = Vec::new();
    for copy in others {
        match copy.meta {
            // Without metadata it was never completed: they are written when it is.
            None => obsolete.push(copy.path.clone()),
            Some(meta) if meta.state == CopyState::Syncing => obsolete.push(copy.path.clone()),
            Some(meta) => {
                let same_guest = image.meta.is_some_and(|i| i.pair == meta.pair);
                if same_guest {
                    usable.push((copy, meta));
                } else if meta.state == CopyState::Clean {
                    // Its guest's end was clean, so an image somewhere has all of it.
                    obsolete.push(copy.path.clone());
                } else {
                    let (image, copy) = (image.path.clone(), copy.path.clone());
                    return Err(CopyError::Foreign { image, copy });
                }
            }
        }
    }
    let rank = |meta: &CopyMeta| (meta.generation, meta.epoch);
    let image_rank = image.meta.filter(|m| m.state != CopyState::Syncing).map(|m| rank(&m));
    let best = usable.iter().max_by_key(|(_, meta)| rank(meta));
    // Of equals the image: nothing has to be moved at the end then.
    let newest = match best {
        Some((copy, meta)) if image_rank.is_none_or(|r| rank(meta) > r) => *copy,
        _ if image.meta.is_some_and(|m| m.state == CopyState::Syncing) => {
            return Err(CopyError::Incomplete { path: image.path.clone() });
        }
        _ => image,
    };
    if let Some(meta) = newest.meta.filter(|m| m.len != newest.len) {
        let path = newest.path.clone();
        return Err(CopyError::Length { path, len: newest.len, expected: meta.len });
    }
    let is_image = newest.path == image.path;
    obsolete.extend(usable.iter().map(|(c, _)| c.path.clone()).filter(|p| *p != newest.path));
    Ok(CopyChoice { newest: newest.clone(), is_image, obsolete })
}
