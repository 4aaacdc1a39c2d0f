//! Who a node is at its start: its id and the life of its store, read or drawn (`delivery.md` §1).
use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError};
use protocol::RemoteId;

use super::{
    orders::Identity,
    recount,
    state::{STATE, STATE_KEY, State},
};

const EPOCH: &[u8] = b"epoch";
const ID: &[u8] = b"id";

/// Draws an epoch: the upper half counts seconds and is above any known, the lower is random.
/// Never "the old one and 1": two restores of one backup would both take it.
pub fn draw_epoch(known: Option<u64>, now_ms: i64, random: u64) -> u64 {
    let seconds = (now_ms / 1000).clamp(0, i64::from(u32::MAX)) as u64;
    let above = known.map_or(0, |known| (known >> 32) + 1);
    (seconds.max(above).min(u64::from(u32::MAX)) << 32) | (random & 0xffff_ffff)
}

/// Reads who the node is. Where the store is new, or not `proved` to be the one this machine last
/// closed, a new epoch is drawn, and the numbers start anew under it. A `component` given by hand
/// restores a lost node (INS-10). Where the opening of the store cut something out, where it is not
/// proved or small, its counters are brought back to what stands on disk, in the same commit.
/// `Ok`: what was drawn and corrected is on disk.
pub fn open(
    store: &dyn QueueStore,
    customer: RemoteId,
    component: Option<u32>,
    proved: bool,
    now_ms: i64,
    random: u64,
) -> Result<Identity, StoreError> {
    let known = store.row(STATE, EPOCH)?;
    let known = known.and_then(|row| row[..].try_into().ok().map(u64::from_be_bytes));
    let id = store.row(STATE, ID)?.and_then(|row| RemoteId::from_bytes(&row).ok());
    let unregistered = customer.cut(0).child(component.unwrap_or(0)).unwrap_or(customer);
    let id = id.filter(|id| id.is_under(&customer.cut(0))).unwrap_or(unregistered);
    let row = store.row(STATE, STATE_KEY)?.and_then(|row| State::decode(&row));
    let mut state = row.unwrap_or_default();
    let mended = match recount::is_due(store, proved)? {
        true => recount::mend(store, &mut state, id)?,
        false => None,
    };
    let known_epoch = known.filter(|_| proved);
    if let (Some(epoch), true) = (known_epoch, mended.is_none()) {
        return Ok(Identity { id, epoch });
    }
    let epoch = known_epoch.unwrap_or_else(|| draw_epoch(known, now_ms, random));
    if known_epoch.is_none() {
        (state.sequence, state.order) = ([0; 3], 0);
    }
    let state = state.encode().map_err(|e| StoreError::Failed(e.to_string()))?;
    let put = |key: &'static [u8], value: Bytes| Change::PutRow {
        table: STATE,
        key: Bytes::from_static(key),
        value,
    };
    let mut changes = mended.unwrap_or_default();
    changes.push(put(EPOCH, Bytes::copy_from_slice(&epoch.to_be_bytes())));
    changes.push(put(STATE_KEY, state.into()));
    store.commit(&changes)?;
    Ok(Identity { id, epoch })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod tests {
    use module_memory::MemoryStore;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn epoch_is_kept_while_the_store_is_proved_and_only_then() {
        let store = MemoryStore::new();
        let customer = RemoteId::customer(Uuid::from_u128(7));
        let first = open(&store, customer, None, false, 5_000, 1).unwrap();
        assert!(first.id.is_unregistered());
        assert_eq!(open(&store, customer, None, true, 9_000, 2).unwrap(), first);
        let restored = open(&store, customer, None, false, 1_000, 3).unwrap();
        assert!(restored.epoch >> 32 > first.epoch >> 32, "above, though the clock went back");
    }
}
