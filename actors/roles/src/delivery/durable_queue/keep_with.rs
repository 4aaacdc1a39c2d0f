//! Keeping messages with changes that hang on each of them, and counting what was dropped.
use std::sync::PoisonError;

use actix::prelude::*;
use bytes::Bytes;
use extension::storage::{Change, StoreError};
use protocol::{Refusal, RemoteId};

use super::{DurableQueue, Group};
use crate::delivery::{
    orders::{Keep, KeepWith, Kept, NoteDropped, Noted, unbroken},
    state::STATE,
};

/// Key of the node's id in the table of its own small rows.
const ID_KEY: &[u8] = b"id";

impl DurableQueue {
    pub(super) fn plan_keep_with(
        &mut self,
        order: KeepWith,
        group: &mut Group,
    ) -> Result<Vec<Result<Kept, Refusal>>, StoreError> {
        let kept = self.plan_keep(order.keep, group)?;
        let is_kept = |at: &usize| kept.get(*at).is_some_and(Result::is_ok);
        group.changes.extend(order.each.into_iter().filter(|(at, _)| is_kept(at)).map(|e| e.1));
        if let Some(Noted { table, prefix, numbers }) = order.noted {
            let numbers = numbers.iter().filter(|(at, _)| is_kept(at)).map(|(_, number)| *number);
            group.changes.extend(unbroken(numbers).into_iter().map(|(first, last)| {
                let key = [&prefix[..], &first.to_be_bytes()].concat().into();
                Change::PutRow { table, key, value: Bytes::copy_from_slice(&last.to_be_bytes()) }
            }));
        }
        Ok(kept)
    }

    /// The node has its id: the numbers start anew under it, those of this commit, too. What the
    /// disk says counts: a commit may have been made and its outcome not be known.
    pub(super) fn plan_adopt(&mut self, id: RemoteId, group: &mut Group) -> Result<(), StoreError> {
        self.adopting = Some(id);
        let known = self.settings.store.row(STATE, ID_KEY)?;
        if known.is_some_and(|known| known == id.as_bytes()) {
            return Ok(());
        }
        self.state.sequence = [0; 3];
        group.state_changed = true;
        let (key, value) = (Bytes::from_static(ID_KEY), id.as_bytes().to_vec().into());
        group.changes.push(Change::PutRow { table: STATE, key, value });
        Ok(())
    }

    /// The id is on disk: from now on the node goes by it.
    pub(super) fn adopted(&mut self) {
        if let Some(id) = self.adopting.take() {
            self.settings.identity.lock().unwrap_or_else(PoisonError::into_inner).id = id;
        }
    }
}

impl From<Keep> for KeepWith {
    fn from(keep: Keep) -> Self {
        Self { keep, each: Vec::new(), noted: None }
    }
}

impl Handler<NoteDropped> for DurableQueue {
    type Result = ();

    fn handle(&mut self, dropped: NoteDropped, _: &mut Context<Self>) {
        self.state.account.dropped += dropped.0;
    }
}
