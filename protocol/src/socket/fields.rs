//! Maps of params and results: read by key, written in the order of the contract.
use bytes::Bytes;
use rmp::Marker;

use super::answer::CallError;
use crate::{
    codec::{Reader, Writer},
    limits::DEPTH_MAX,
};

/// Keys in one map; the largest we know has 14.
const KEYS_MAX: u32 = 64;

/// Bytes reserved for a map: the answer to a message fits, and grows no buffer.
const MAP_BYTES: usize = 128;

/// A map that is being written.
pub struct Map {
    count: u8,
    to: Writer,
}

impl Default for Map {
    fn default() -> Self {
        Self::new()
    }
}

impl Map {
    /// An empty map.
    pub fn new() -> Self {
        Self { count: 0, to: Writer::on(Vec::with_capacity(MAP_BYTES)) }
    }

    fn key(&mut self, key: &str) -> &mut Writer {
        self.count += 1;
        self.to.text(key)
    }

    /// Text.
    pub fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key).text(value);
        self
    }

    /// Text, left out where it is empty: that is its default.
    pub fn text_or_empty(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.text(key, value) }
    }

    /// Text, or left out.
    pub fn text_if(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// Text, or nil.
    pub fn text_or_nil(mut self, key: &str, value: Option<&str>) -> Self {
        self.key(key).optional(value, |to, v| {
            to.text(v);
        });
        self
    }

    /// A whole number.
    pub fn int(mut self, key: &str, value: i64) -> Self {
        self.key(key).int(value);
        self
    }

    /// A whole number from 0 on.
    pub fn uint(mut self, key: &str, value: u64) -> Self {
        self.key(key).uint(value);
        self
    }

    /// A whole number, or left out.
    pub fn uint_if(self, key: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.uint(key, value),
            None => self,
        }
    }

    /// A whole number, or nil.
    pub fn uint_or_nil(mut self, key: &str, value: Option<u64>) -> Self {
        self.key(key).optional(value, |to, v| {
            to.uint(v);
        });
        self
    }

    /// True or false.
    pub fn boolean(mut self, key: &str, value: bool) -> Self {
        self.key(key).boolean(value);
        self
    }

    /// Bytes.
    pub fn bin(mut self, key: &str, value: &[u8]) -> Self {
        self.key(key).bin(value);
        self
    }

    /// A map.
    pub fn map(mut self, key: &str, value: Map) -> Self {
        value.write(self.key(key));
        self
    }

    /// A list, each item written by `write`.
    pub fn list<T>(mut self, key: &str, items: &[T], write: impl FnMut(&mut Writer, &T)) -> Self {
        self.key(key).list(items, write);
        self
    }

    /// Writes the map.
    pub fn write(self, to: &mut Writer) {
        // No type writes more than 14 keys, so one byte counts them.
        match self.count {
            count @ 0..=15 => to.raw(&[0x80 | count]),
            count => to.raw(&[0xde, 0, count]),
        };
        to.raw(&self.to.into_vec());
    }

    /// The bytes of the map.
    pub fn into_bytes(self) -> Bytes {
        let mut to = Writer::new();
        self.write(&mut to);
        to.into_bytes()
    }
}

/// A map that was read: unknown keys stay unread, the last of a repeated key counts, nil is as
/// good as absent.
pub struct Fields<'a> {
    pairs: Vec<(&'a str, &'a [u8])>,
}

/// The bytes of a text and what follows it.
pub(super) fn raw_text(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = from.split_first()?;
    let sized = |width: usize| {
        let (length, rest) = rest.split_at_checked(width)?;
        let length = length.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b));
        Some((length, rest))
    };
    let (length, rest) = match Marker::from_u8(*head) {
        Marker::FixStr(n) => (usize::from(n), rest),
        Marker::Str8 => sized(1)?,
        Marker::Str16 => sized(2)?,
        Marker::Str32 => sized(4)?,
        _ => return None,
    };
    rest.split_at_checked(length)
}

impl<'a> Fields<'a> {
    /// Reads a map.
    pub fn read(map: &'a [u8]) -> Result<Self, CallError> {
        let broken = || CallError::malformed("params are not a map of at most 64 keys");
        let (head, rest) = map.split_first().ok_or_else(broken)?;
        let sized = |width: usize| {
            let (count, rest) = rest.split_at_checked(width)?;
            Some((count.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b)), rest))
        };
        let (count, rest) = match Marker::from_u8(*head) {
            Marker::FixMap(n) => (u32::from(n), rest),
            Marker::Map16 => sized(2).ok_or_else(broken)?,
            Marker::Map32 => sized(4).ok_or_else(broken)?,
            _ => return Err(broken()),
        };
        if count > KEYS_MAX {
            return Err(broken());
        }
        let mut reader = Reader::new(rest);
        let mut pairs = Vec::with_capacity(count as usize);
        for _ in 0..count {
            // A key that is no text is an unknown one.
            let key = raw_text(reader.rest()).and_then(|(k, _)| std::str::from_utf8(k).ok());
            reader.skip(DEPTH_MAX).ok_or_else(broken)?;
            let value = reader.rest();
            reader.skip(DEPTH_MAX).ok_or_else(broken)?;
            let value = &value[..value.len() - reader.rest().len()];
            if let Some(key) = key {
                pairs.push((key, value));
            }
        }
        Ok(Self { pairs })
    }

    /// The bytes of a value.
    pub fn get(&self, key: &str) -> Option<&'a [u8]> {
        let found = self.pairs.iter().rev().find(|(k, _)| *k == key);
        found.map(|(_, value)| *value).filter(|value| *value != [0xc0])
    }

    /// The keys that are text, as they stand.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().map(|(key, _)| *key)
    }

    /// Text of at most `most` bytes, if there is any.
    pub fn text(&self, key: &str, most: usize) -> Result<Option<&'a str>, CallError> {
        self.get(key).map(|value| text(key, value, most)).transpose()
    }

    /// Text of at most `most` bytes that must be there.
    pub fn needed_text(&self, key: &str, most: usize) -> Result<&'a str, CallError> {
        self.text(key, most)?.ok_or_else(|| missing(key))
    }

    /// A word of an enum, if there is one.
    pub fn word<T: std::str::FromStr<Err = String>>(
        &self,
        key: &str,
    ) -> Result<Option<T>, CallError> {
        let Some(word) = self.text(key, crate::limits::NAME_BYTES_MAX)? else { return Ok(None) };
        let value = word.parse().map_err(|e| CallError::malformed(format!("{key} {e}")));
        value.map(Some)
    }

    /// A text form of an id or the like, if there is one.
    pub fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, CallError>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.text(key, crate::limits::NAME_BYTES_MAX)? else { return Ok(None) };
        let value = text.parse().map_err(|e| CallError::malformed(format!("{key} is {e}")));
        value.map(Some)
    }

    /// A whole number, if there is one.
    pub fn int(&self, key: &str) -> Result<Option<i64>, CallError> {
        self.number(key, |r| r.int())
    }

    /// A whole number from 0 on, if there is one.
    pub fn uint(&self, key: &str) -> Result<Option<u64>, CallError> {
        self.number(key, |r| r.uint())
    }

    /// A whole number from 0 and below 2^32, if there is one.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, CallError> {
        self.number(key, |r| r.uint().and_then(|n| n.try_into().ok()))
    }

    fn number<T>(
        &self,
        key: &str,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Result<Option<T>, CallError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = read(&mut Reader::new(value));
        let wrong = || CallError::malformed(format!("{key} is not a whole number that fits"));
        number.ok_or_else(wrong).map(Some)
    }

    /// True or false, if it is there.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, CallError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let value = Reader::new(value).boolean();
        value.ok_or_else(|| CallError::malformed(format!("{key} is not true or false"))).map(Some)
    }

    /// Bytes, if there are any; text counts as its bytes, for clients whose language mixes them.
    pub fn bin(&self, key: &str, most: usize) -> Result<Option<&'a [u8]>, CallError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let bytes = Reader::new(value).bin().or_else(|| raw_text(value).map(|(text, _)| text));
        let bytes = bytes.ok_or_else(|| CallError::malformed(format!("{key} is not bytes")))?;
        fits(key, bytes.len(), most)?;
        Ok(Some(bytes))
    }

    /// A map, if there is one.
    pub fn map(&self, key: &str) -> Result<Option<Fields<'a>>, CallError> {
        let wrong = |_| CallError::malformed(format!("{key} is not a map"));
        self.get(key).map(|value| Fields::read(value).map_err(wrong)).transpose()
    }

    /// The items of a list of at most `most`, none where the key is absent.
    pub fn list(&self, key: &str, most: usize) -> Result<Vec<&'a [u8]>, CallError> {
        let wrong = || CallError::malformed(format!("{key} is not a list"));
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let mut reader = Reader::new(value);
        let count = reader.array_len().ok_or_else(wrong)? as usize;
        if count > most {
            let detail = format!("{key} has {count} items; at most {most}");
            return Err(CallError::too_large(detail));
        }
        let mut items = Vec::with_capacity(count.min(reader.rest().len()));
        for _ in 0..count {
            let item = reader.rest();
            reader.skip(DEPTH_MAX).ok_or_else(wrong)?;
            items.push(&item[..item.len() - reader.rest().len()]);
        }
        Ok(items)
    }

    /// The texts of a list, each of at most `longest` bytes.
    pub fn texts(&self, key: &str, most: usize, longest: usize) -> Result<Vec<String>, CallError> {
        let items = self.list(key, most)?;
        items.into_iter().map(|item| text(key, item, longest).map(str::to_owned)).collect()
    }
}

/// That a key is not there.
pub(super) fn missing(key: &str) -> CallError {
    CallError::malformed(format!("{key} is missing"))
}

/// Whether a value of `length` bytes fits.
pub(super) fn fits(key: &str, length: usize, most: usize) -> Result<(), CallError> {
    match length <= most {
        true => Ok(()),
        false => Err(CallError::too_large(format!("{key} has {length} bytes; at most {most}"))),
    }
}

fn text<'a>(key: &str, value: &'a [u8], most: usize) -> Result<&'a str, CallError> {
    let bytes =
        raw_text(value).ok_or_else(|| CallError::malformed(format!("{key} is not text")))?;
    fits(key, bytes.0.len(), most)?;
    std::str::from_utf8(bytes.0).map_err(|_| CallError::bad_text(format!("{key} is not UTF-8")))
}
