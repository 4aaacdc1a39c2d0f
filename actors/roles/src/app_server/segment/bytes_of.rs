//! A segment in the rows of a store: dictionaries, columns, and texts in parts.
use bytes::Bytes;

use super::{Columns, Names, SEGMENT_MESSAGES, Segment, Words, segment_of};
use crate::app_server::rows::{from_row, to_row};

/// What the row of [`tags::WHOLE`] holds; another version is built anew from the runs.
pub const ROWS_VERSION: u8 = 1;
/// Bytes of texts in one row: what a search holds in RAM at a time.
const WORDS_ROW_BYTES: usize = 1 << 20;

/// First letters of keys.
pub mod tags {
    /// The segment is there: [`super::ROWS_VERSION`].
    pub const WHOLE: u8 = b'n';
    /// [`super::Names`].
    pub const NAMES: u8 = b'd';
    /// [`super::Columns`].
    pub const COLUMNS: u8 = b'c';
    /// A part of [`super::Words`]; the part's number stands behind that of the segment.
    pub const WORDS: u8 = b't';
}

/// Key of a row of a segment.
pub fn key(tag: u8, segment: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(tag);
    key.extend_from_slice(&segment.to_be_bytes());
    key
}

impl Names {
    /// Reads a row.
    pub fn of_row(row: &[u8]) -> Option<Self> {
        from_row(row)
    }
}

impl Columns {
    fn row(&self) -> Bytes {
        let mut row = Vec::with_capacity(10 * self.kind.len());
        for column in [&self.kind, &self.about, &self.text] {
            column.iter().for_each(|entry| row.extend(entry.to_le_bytes()));
        }
        self.second.iter().for_each(|second| row.extend(second.to_le_bytes()));
        row.into()
    }

    /// Reads a row.
    pub fn of_row(row: &[u8]) -> Option<Self> {
        let length = row.len() / 10;
        if !row.len().is_multiple_of(10) || length as u64 > SEGMENT_MESSAGES {
            return None;
        }
        let (entries, seconds) = row.split_at(6 * length);
        let (entries, rest) = entries.as_chunks::<2>();
        let (seconds, more) = seconds.as_chunks::<4>();
        if !rest.is_empty() || !more.is_empty() {
            return None;
        }
        let column = |at: usize| {
            let column = &entries[at * length..(at + 1) * length];
            column.iter().map(|entry| u16::from_le_bytes(*entry)).collect()
        };
        let second = seconds.iter().map(|second| u32::from_le_bytes(*second)).collect();
        Some(Self { kind: column(0), about: column(1), text: column(2), second })
    }
}

impl Words {
    /// Rows of at most [`WORDS_ROW_BYTES`] and one text: count, ends, texts.
    fn rows(&self) -> Vec<Bytes> {
        let (mut rows, mut from) = (Vec::new(), 0);
        while from < self.len() {
            let begin = from.checked_sub(1).map_or(0, |before| self.ends[before] + 1);
            let most = begin.saturating_add(WORDS_ROW_BYTES as u32);
            let to = self.ends.partition_point(|end| *end < most).max(from + 1);
            let ends = &self.ends[from..to];
            let mut row = Vec::with_capacity(4 + 4 * ends.len() + WORDS_ROW_BYTES);
            row.extend((ends.len() as u32).to_le_bytes());
            ends.iter().for_each(|end| row.extend((end - begin).to_le_bytes()));
            let end = ends.last().map_or(begin, |end| end + 1);
            row.extend_from_slice(&self.texts[begin as usize..end as usize]);
            rows.push(row.into());
            from = to;
        }
        rows
    }

    /// Reads a row.
    pub fn of_row(row: &[u8]) -> Option<Self> {
        let (count, rest) = row.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let (ends, texts) = rest.split_at_checked(count.checked_mul(4)?)?;
        let (ends, _) = ends.as_chunks::<4>();
        let ends: Vec<u32> = ends.iter().map(|end| u32::from_le_bytes(*end)).collect();
        let rise = ends.is_sorted() && ends.last().is_none_or(|end| (*end as usize) < texts.len());
        rise.then(|| Self { texts: texts.to_vec(), ends })
    }
}

impl Segment {
    /// The rows of the segment, by their keys.
    pub fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let segment = segment_of(self.first);
        let of = |tag: u8| Bytes::from(key(tag, segment));
        let mut rows = vec![
            (of(tags::WHOLE), Bytes::from_static(&[ROWS_VERSION])),
            (of(tags::NAMES), to_row(&self.names)),
            (of(tags::COLUMNS), self.columns.row()),
        ];
        for (part, row) in (0_u32..).zip(self.words.rows()) {
            let mut key = key(tags::WORDS, segment);
            key.extend_from_slice(&part.to_be_bytes());
            rows.push((key.into(), row));
        }
        rows
    }
}
