//! Bytes to values and back: MessagePack arrays, borrowed on the way in (`delivery.md` §12).
//!
//! Every type is an array in a fixed order. Later versions append; [`Reader::array`] therefore
//! takes an array that is longer than known and skips the rest.
use rmp::Marker;

use crate::{RemoteId, limits};

mod writer;

pub use writer::Writer;

/// Why bytes are not what they should be. The text says what was expected, never what was found:
/// the bytes are somebody's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct Malformed(pub &'static str);

/// Reads MessagePack without copying.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// Reads one array: knows how many of its items are left.
pub struct Items<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: u32,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Length of an array whose items follow.
    pub fn array_len(&mut self) -> Option<u32> {
        match Marker::from_u8(self.byte()?) {
            Marker::FixArray(n) => Some(u32::from(n)),
            Marker::Array16 => self.number().map(|n| u32::from(u16::from_be_bytes(n))),
            Marker::Array32 => self.number().map(u32::from_be_bytes),
            _ => None,
        }
    }

    /// Reads an array of at least `known` items with `read`, and skips what a later version
    /// appended.
    pub fn array<T>(
        &mut self,
        what: &'static str,
        known: u32,
        read: impl FnOnce(&mut Items<'_, 'a>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let left = self.array_len().filter(|n| *n >= known).ok_or(Malformed(what))?;
        let mut items = Items { reader: self, left, what };
        let value = read(&mut items)?;
        let unknown = items.left;
        for _ in 0..unknown {
            self.skip(limits::DEPTH_MAX).ok_or(Malformed(what))?;
        }
        Ok(value)
    }

    /// Reads an array as [`Self::array`] does, after which nothing may follow.
    pub fn only<T>(
        mut self,
        what: &'static str,
        known: u32,
        read: impl FnOnce(&mut Items<'_, 'a>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let value = self.array(what, known, read)?;
        if self.is_empty() { Ok(value) } else { Err(Malformed(what)) }
    }

    /// Reads a list of at most `most` items, each with `read`.
    pub fn list<T>(
        &mut self,
        what: &'static str,
        most: usize,
        mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.array_len().ok_or(Malformed(what))? as usize;
        // A count above what the bytes can hold is a lie; nothing is reserved for it.
        if count > most || count > self.rest.len() {
            return Err(Malformed(what));
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// An unsigned integer in any of its forms, a non-negative signed one too.
    pub fn uint(&mut self) -> Option<u64> {
        match Marker::from_u8(self.byte()?) {
            Marker::FixPos(n) => Some(u64::from(n)),
            Marker::U8 => self.number().map(|[n]| u64::from(n)),
            Marker::U16 => self.number().map(|n| u64::from(u16::from_be_bytes(n))),
            Marker::U32 => self.number().map(|n| u64::from(u32::from_be_bytes(n))),
            Marker::U64 => self.number().map(u64::from_be_bytes),
            Marker::I8 => self.number().and_then(|[n]: [u8; 1]| u64::try_from(n as i8).ok()),
            Marker::I16 => self.number().and_then(|n| i16::from_be_bytes(n).try_into().ok()),
            Marker::I32 => self.number().and_then(|n| i32::from_be_bytes(n).try_into().ok()),
            Marker::I64 => self.number().and_then(|n| i64::from_be_bytes(n).try_into().ok()),
            _ => None,
        }
    }

    /// A signed integer in any of its forms.
    pub fn int(&mut self) -> Option<i64> {
        let mut negative = *self;
        let found = match Marker::from_u8(negative.byte()?) {
            Marker::FixNeg(n) => Some(i64::from(n)),
            Marker::I8 => negative.number().map(|[n]: [u8; 1]| i64::from(n as i8)),
            Marker::I16 => negative.number().map(|n| i64::from(i16::from_be_bytes(n))),
            Marker::I32 => negative.number().map(|n| i64::from(i32::from_be_bytes(n))),
            Marker::I64 => negative.number().map(i64::from_be_bytes),
            _ => return self.uint().and_then(|n| n.try_into().ok()),
        };
        *self = negative;
        found
    }

    /// A boolean.
    pub fn boolean(&mut self) -> Option<bool> {
        match Marker::from_u8(self.byte()?) {
            Marker::True => Some(true),
            Marker::False => Some(false),
            _ => None,
        }
    }

    /// UTF-8 text.
    pub fn text(&mut self) -> Option<&'a str> {
        let len = match Marker::from_u8(self.byte()?) {
            Marker::FixStr(n) => usize::from(n),
            Marker::Str8 => self.number().map(|[n]| usize::from(n))?,
            Marker::Str16 => self.number().map(|n| usize::from(u16::from_be_bytes(n)))?,
            Marker::Str32 => self.number().map(|n| u32::from_be_bytes(n) as usize)?,
            _ => return None,
        };
        std::str::from_utf8(self.take(len)?).ok()
    }

    /// Bytes.
    #[inline]
    pub fn bin(&mut self) -> Option<&'a [u8]> {
        let len = match Marker::from_u8(self.byte()?) {
            Marker::Bin8 => self.number().map(|[n]| usize::from(n))?,
            Marker::Bin16 => self.number().map(|n| usize::from(u16::from_be_bytes(n)))?,
            Marker::Bin32 => self.number().map(|n| u32::from_be_bytes(n) as usize)?,
            _ => return None,
        };
        self.take(len)
    }

    /// Takes a nil if there is one.
    pub fn nil(&mut self) -> bool {
        let nil = self.rest.first() == Some(&Marker::Null.to_u8());
        if nil {
            self.rest = &self.rest[1..];
        }
        nil
    }

    /// Skips one value of any kind, nested at most `depth` deep.
    pub fn skip(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let mut bytes = 0;
        let mut values = 0_u64;
        match Marker::from_u8(self.byte()?) {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
            }
            Marker::U8 | Marker::I8 => bytes = 1,
            Marker::U16 | Marker::I16 => bytes = 2,
            Marker::U32 | Marker::I32 | Marker::F32 => bytes = 4,
            Marker::U64 | Marker::I64 | Marker::F64 => bytes = 8,
            Marker::FixStr(n) => bytes = usize::from(n),
            Marker::Str8 | Marker::Bin8 => bytes = usize::from(self.byte()?),
            Marker::Str16 | Marker::Bin16 => {
                bytes = usize::from(u16::from_be_bytes(self.number()?))
            }
            Marker::Str32 | Marker::Bin32 => bytes = u32::from_be_bytes(self.number()?) as usize,
            Marker::FixArray(n) => values = u64::from(n),
            Marker::Array16 => values = u64::from(u16::from_be_bytes(self.number()?)),
            Marker::Array32 => values = u64::from(u32::from_be_bytes(self.number()?)),
            Marker::FixMap(n) => values = 2 * u64::from(n),
            Marker::Map16 => values = 2 * u64::from(u16::from_be_bytes(self.number()?)),
            Marker::Map32 => values = 2 * u64::from(u32::from_be_bytes(self.number()?)),
            Marker::FixExt1 => bytes = 2,
            Marker::FixExt2 => bytes = 3,
            Marker::FixExt4 => bytes = 5,
            Marker::FixExt8 => bytes = 9,
            Marker::FixExt16 => bytes = 17,
            Marker::Ext8 => bytes = 1 + usize::from(self.byte()?),
            Marker::Ext16 => bytes = 1 + usize::from(u16::from_be_bytes(self.number()?)),
            Marker::Ext32 => bytes = 1 + u32::from_be_bytes(self.number()?) as usize,
            Marker::Reserved => return None,
        }
        self.take(bytes)?;
        for _ in 0..values {
            self.skip(depth)?;
        }
        Some(())
    }
}

impl<'a> Items<'_, 'a> {
    fn next<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Result<T, Malformed> {
        self.left = self.left.checked_sub(1).ok_or(Malformed(self.what))?;
        read(self.reader).ok_or(Malformed(self.what))
    }

    /// Whether items are left, which a later version appended.
    pub fn more(&self) -> bool {
        self.left > 0
    }

    /// The next item, an unsigned integer.
    pub fn uint(&mut self) -> Result<u64, Malformed> {
        self.next(Reader::uint)
    }

    /// The next item, an unsigned integer below 2^32.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.next(|r| r.uint().and_then(|n| n.try_into().ok()))
    }

    /// The next item, an unsigned integer below 256.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.next(|r| r.uint().and_then(|n| n.try_into().ok()))
    }

    /// The next item, a signed integer.
    pub fn int(&mut self) -> Result<i64, Malformed> {
        self.next(Reader::int)
    }

    /// The next item, a boolean.
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        self.next(Reader::boolean)
    }

    /// The next item, text of at most `most` bytes.
    pub fn text(&mut self, most: usize) -> Result<&'a str, Malformed> {
        self.next(|r| r.text().filter(|t| t.len() <= most))
    }

    /// The next item, bytes.
    pub fn bin(&mut self) -> Result<&'a [u8], Malformed> {
        self.next(Reader::bin)
    }

    /// The next item, a remote services id.
    pub fn id(&mut self) -> Result<RemoteId, Malformed> {
        self.next(|r| RemoteId::from_bytes(r.bin()?).ok())
    }

    /// The next item, or nil.
    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.left > 0 && self.reader.nil() {
            self.left -= 1;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// The next item, one of an enum's numbers.
    pub fn one_of<T>(&mut self, from: impl FnOnce(u8) -> Option<T>) -> Result<T, Malformed> {
        let number = self.u8()?;
        from(number).ok_or(Malformed(self.what))
    }

    /// The next item, read by somebody else's function.
    pub fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        self.left = self.left.checked_sub(1).ok_or(Malformed(self.what))?;
        read(self.reader)
    }

    /// The next item, a list; see [`Reader::list`].
    pub fn list<T>(
        &mut self,
        most: usize,
        read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let what = self.what;
        self.nested(|r| r.list(what, most, read))
    }
}
