//! Reading an opened database: runs, rows, queues, each value checked by its digest.
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use extension::storage::{Place, QueueName, Value, Visit, VisitRow};
use protocol::Precedence;
use redb::{ReadOnlyTable, ReadableDatabase};

use crate::{
    engine::{Engine, ROWS, RUNS, as_slice},
    frame::{self, Kind},
    key,
    trouble::{Trouble, guarded, visiting},
};

/// Entries that are verified in one read transaction.
const VERIFY_AT_ONCE: u64 = 1000;

/// Which way a walk goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// The table of rows at one moment.
pub(crate) type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Engine {
    pub(crate) fn run(&self, queue: &QueueName, place: Place) -> Result<Option<Bytes>, Trouble> {
        let key = key::run(queue, place);
        guarded(|| {
            let table = self.db.begin_read()?.open_table(RUNS)?;
            let Some(value) = table.get(&key[..])? else { return Ok(None) };
            let frame = frame::read_at(value.value(), self.seed, Kind::Run, &key);
            let frame = frame.ok_or(Trouble::Row("runs"))?;
            Ok(Some(Bytes::copy_from_slice(frame.value)))
        })
    }

    /// The rows as they are now.
    pub(crate) fn rows(&self) -> Result<Rows, Trouble> {
        guarded(|| Ok(self.db.begin_read()?.open_table(ROWS)?))
    }

    pub(crate) fn row(
        &self,
        rows: &Rows,
        table: &'static str,
        key: &[u8],
    ) -> Result<Option<Bytes>, Trouble> {
        let key = key::row(table, key);
        guarded(|| {
            let Some(value) = rows.get(&key[..])? else { return Ok(None) };
            let frame = frame::read_at(value.value(), self.seed, Kind::Row, &key);
            let frame = frame.ok_or(Trouble::Row(table))?;
            Ok(Some(Bytes::copy_from_slice(frame.value)))
        })
    }

    pub(crate) fn walk_runs(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        (way, edge): (Way, u64),
        visit: Visit<'_, u64>,
    ) -> Result<(), Trouble> {
        let prefix = key::runs(queue, precedence);
        let at = Bound::Included(key::run(queue, Place { precedence, position: edge }));
        let range = match way {
            Way::Up => (at, key::above(&prefix)),
            Way::Down => (Bound::Included(prefix.clone()), at),
        };
        self.walk(Kind::Run, range, way, &mut |key, value| match key
            .get(prefix.len()..)
            .and_then(|rest| rest.try_into().ok())
        {
            Some(position) => visit(u64::from_be_bytes(position), value),
            None => ControlFlow::Continue(()),
        })
    }

    pub(crate) fn walk_rows(
        &self,
        table: &'static str,
        prefix: &[u8],
        (way, edge): (Way, &[u8]),
        visit: VisitRow<'_>,
    ) -> Result<(), Trouble> {
        let full = key::row(table, prefix);
        let edge_key = key::row(table, edge);
        let (low, high) = (Bound::Included(full.clone()), key::above(&full));
        let range = match way {
            Way::Up if edge_key > full => (Bound::Included(edge_key), high),
            Way::Down if !edge.is_empty() && beyond(&high, &edge_key) => {
                (low, Bound::Included(edge_key))
            }
            Way::Up | Way::Down => (low, high),
        };
        let mut damaged = false;
        self.walk(Kind::Row, range, way, &mut |key, value| match value {
            Value::Good(value) => visit(&key[table.len() + 1..], value),
            Value::Damaged(_) => {
                damaged = true;
                ControlFlow::Continue(())
            }
        })?;
        if damaged { Err(Trouble::Row(table)) } else { Ok(()) }
    }

    /// Every entry of a table in a range, by its whole key.
    fn walk(
        &self,
        kind: Kind,
        range: Range,
        way: Way,
        visit: &mut dyn for<'a> FnMut(&[u8], Value<'a>) -> ControlFlow<()>,
    ) -> Result<(), Trouble> {
        if empty(&range) {
            return Ok(());
        }
        guarded(|| {
            let definition = if kind == Kind::Run { RUNS } else { ROWS };
            let table = self.db.begin_read()?.open_table(definition)?;
            let mut entries = table.range::<&[u8]>((as_slice(&range.0), as_slice(&range.1)))?;
            loop {
                let entry = if way == Way::Up { entries.next() } else { entries.next_back() };
                let Some(entry) = entry else { return Ok(()) };
                let (key, bytes) = entry?;
                let (key, bytes) = (key.value(), bytes.value());
                let value = match frame::read_at(bytes, self.seed, kind, key) {
                    Some(frame) => Value::Good(frame.value),
                    None => Value::Damaged(bytes),
                };
                if visiting(|| visit(key, value)).is_break() {
                    return Ok(());
                }
            }
        })
    }

    /// Checks entries from a key on: value, order, and that a search finds each. Answers how many,
    /// and where to go on.
    pub(crate) fn verify(
        &self,
        kind: Kind,
        from: &[u8],
    ) -> Result<(u64, Option<Vec<u8>>), Trouble> {
        guarded(|| {
            let definition = if kind == Kind::Run { RUNS } else { ROWS };
            let table = self.db.begin_read()?.open_table(definition)?;
            let (mut count, mut last) = (0, from.to_vec());
            for entry in table.range::<&[u8]>(from..)? {
                let (key, bytes) = entry?;
                let (key, bytes) = (key.value(), bytes.value());
                if count == VERIFY_AT_ONCE {
                    return Ok((count, Some(key.to_vec())));
                }
                let rises = count == 0 || key > &last[..];
                let good = frame::read_at(bytes, self.seed, kind, key).is_some();
                let found = table.get(key)?.is_some_and(|found| found.value() == bytes);
                if !(rises && good && found) {
                    return Err(Trouble::Damaged("a value is not what was written".into()));
                }
                last = key.to_vec();
                count += 1;
            }
            Ok((count, None))
        })
    }

    pub(crate) fn queues(&self) -> Result<Vec<QueueName>, Trouble> {
        guarded(|| {
            let table = self.db.begin_read()?.open_table(RUNS)?;
            let mut names = Vec::new();
            let mut from: Vec<u8> = Vec::new();
            loop {
                let mut range = table.range::<&[u8]>(&from[..]..)?;
                let Some(entry) = range.next() else { return Ok(names) };
                let (key, _) = entry?;
                let (name, _) = key::parse_run(key.value())
                    .ok_or_else(|| Trouble::Damaged("a run stands under no key of ours".into()))?;
                from = [name.0.as_bytes(), &[1]].concat();
                names.push(name);
            }
        })
    }
}

fn beyond(high: &Bound<Vec<u8>>, key: &[u8]) -> bool {
    match high {
        Bound::Excluded(end) => key < &end[..],
        _ => true,
    }
}

/// redb panics where a range ends before it begins.
fn empty(range: &Range) -> bool {
    match range {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from), Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}
