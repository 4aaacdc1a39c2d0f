//! Is this the store that this machine had last? If not, a new epoch is drawn (delivery.md §1).
//!
//! Beside the store lies a proof: machine, a nonce drawn at each opening, and after a clean end the
//! identity of the store's file, with its time of last change, which no program can set. The store
//! holds the nonce, too, and the identity of the proof's file. So:
//!
//! - after a clean end the store is proved by its own identity: any copy, restored or cloned, also
//!   one written into the same file, has another;
//! - after a kill or a power cut the store's file has changed since, but it must be the same file,
//!   and the proof's file must be the very one the store names: whoever restores both changes the
//!   proof's time of change, whoever restores one breaks the nonce.
//!
//! Not seen: a store written over, in place, with a copy taken in the very opening that then was
//! killed, the proof untouched; and a machine rolled back with its disk under the same machine id.
//! Those are found by the parent (delivery.md §7, §10).
use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    examine::Examined,
    home::{self, Identity, STORE},
    open::Options,
};

/// The file beside the store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// The machine, hashed: the id itself is nobody's business.
    pub(crate) machine: u64,
    /// Drawn at each opening; stands in the store, too.
    pub(crate) nonce: u64,
    /// Seed of the store's digests, so that salvage needs no tree.
    pub(crate) seed: u64,
    /// The store's file when it was opened.
    pub(crate) opened: Identity,
    /// The store's file after a clean end.
    pub(crate) closed: Option<Identity>,
    /// Openings since the last clean end or whole check.
    pub(crate) unclean: u32,
}

/// What the store holds of the proof.
#[derive(Serialize, Deserialize)]
struct Inside {
    nonce: u64,
    proof: Identity,
}

/// Why the store is not proved; `None`: it is.
pub(crate) fn unproved(
    dir: &Path,
    options: &Options,
    proof: Option<&Proof>,
    examined: &Examined,
) -> Option<String> {
    if examined.draw {
        return Some("the epoch ordered at an earlier opening was not drawn yet".into());
    }
    let Some(proof) = proof else { return Some("there is no proof beside it".into()) };
    let Ok(inside) = serde_json::from_slice::<Inside>(&examined.proof) else {
        return Some("there is no proof in it".into());
    };
    if proof.machine != machine(options) {
        return Some("it comes from another machine".into());
    }
    if proof.nonce != inside.nonce {
        return Some("it is not of one opening with the proof beside it".into());
    }
    let store = Identity::of(&dir.join(STORE)).ok();
    match &proof.closed {
        Some(closed) if store.as_ref() == Some(closed) => None,
        Some(_) => Some("its file is not the one that was closed: copied or restored".into()),
        None if !store.is_some_and(|store| store.same_file(&proof.opened)) => {
            Some("its file is not the one that was open: copied or restored".into())
        }
        None if Identity::of(&home::proof_path(dir)).ok() != Some(inside.proof) => {
            Some("the proof beside it was copied or restored".into())
        }
        None => None,
    }
}

/// Writes the proof of this opening; answers it and what is to stand in the store.
pub(crate) fn write(
    dir: &Path,
    options: &Options,
    (nonce, seed): (u64, u64),
    unclean: u32,
) -> io::Result<(Proof, Vec<u8>)> {
    let opened = Identity::of(&dir.join(STORE))?;
    let machine = machine(options);
    let proof = Proof { machine, nonce, seed, opened, closed: None, unclean };
    let path = home::proof_path(dir);
    home::write_private(&path, &serde_json::to_vec(&proof)?)?;
    let inside = Inside { nonce, proof: Identity::of(&path)? };
    Ok((proof, serde_json::to_vec(&inside)?))
}

pub(crate) fn random() -> io::Result<u64> {
    getrandom::u64().map_err(|e| io::Error::other(e.to_string()))
}

/// A number for this machine.
fn machine(options: &Options) -> u64 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let name = options
        .machine
        .clone()
        .unwrap_or_else(|| read("/etc/machine-id") + &read("/sys/class/dmi/id/product_uuid"));
    xxh3_64(name.as_bytes())
}
