//! Values to bytes: MessagePack in its shortest form, into a buffer that grows.
use bytes::Bytes;

use crate::RemoteId;

/// Writes MessagePack into a buffer that grows.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Starts with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on at the end of `out`.
    pub fn on(out: Vec<u8>) -> Self {
        Self { out }
    }

    /// What was written.
    pub fn into_vec(self) -> Vec<u8> {
        self.out
    }

    /// What was written.
    pub fn into_bytes(self) -> Bytes {
        self.out.into()
    }

    /// What was written so far.
    pub fn written(&self) -> &[u8] {
        &self.out
    }

    /// Starts anew in the same buffer.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The head of an array of `len` items.
    pub fn array(&mut self, len: usize) -> &mut Self {
        match len {
            0..=15 => self.out.push(0x90 | len as u8),
            16..=0xffff => {
                self.out.push(0xdc);
                self.out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                self.out.push(0xdd);
                self.out.extend_from_slice(&(len as u32).to_be_bytes());
            }
        }
        self
    }

    /// An unsigned integer in its shortest form.
    pub fn uint(&mut self, n: u64) -> &mut Self {
        match n {
            0..=0x7f => self.out.push(n as u8),
            0x80..=0xff => self.out.extend_from_slice(&[0xcc, n as u8]),
            0x100..=0xffff => {
                self.out.push(0xcd);
                self.out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(0xce);
                self.out.extend_from_slice(&(n as u32).to_be_bytes());
            }
            _ => return self.u64(n),
        }
        self
    }

    /// An unsigned integer in eight bytes, so that it can be filled in later.
    pub fn u64(&mut self, n: u64) -> &mut Self {
        self.out.push(0xcf);
        self.out.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// A signed integer in its shortest form.
    pub fn int(&mut self, n: i64) -> &mut Self {
        if let Ok(n) = u64::try_from(n) {
            return self.uint(n);
        }
        match n {
            -32..=-1 => self.out.push(n as i8 as u8),
            -128..=-33 => self.out.extend_from_slice(&[0xd0, n as i8 as u8]),
            -32_768..=-129 => {
                self.out.push(0xd1);
                self.out.extend_from_slice(&(n as i16).to_be_bytes());
            }
            -2_147_483_648..=-32_769 => {
                self.out.push(0xd2);
                self.out.extend_from_slice(&(n as i32).to_be_bytes());
            }
            _ => {
                self.out.push(0xd3);
                self.out.extend_from_slice(&n.to_be_bytes());
            }
        }
        self
    }

    /// A boolean.
    pub fn boolean(&mut self, b: bool) -> &mut Self {
        self.out.push(if b { 0xc3 } else { 0xc2 });
        self
    }

    /// UTF-8 text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        match text.len() {
            len @ 0..=31 => self.out.push(0xa0 | len as u8),
            len @ 32..=0xff => self.out.extend_from_slice(&[0xd9, len as u8]),
            len @ 0x100..=0xffff => {
                self.out.push(0xda);
                self.out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                self.out.push(0xdb);
                self.out.extend_from_slice(&(len as u32).to_be_bytes());
            }
        }
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    /// Bytes.
    pub fn bin(&mut self, bytes: &[u8]) -> &mut Self {
        self.bin_head(bytes.len());
        self.out.extend_from_slice(bytes);
        self
    }

    /// The head of `len` bytes that are written apart.
    pub fn bin_head(&mut self, len: usize) -> &mut Self {
        match len {
            0..=0xff => self.out.extend_from_slice(&[0xc4, len as u8]),
            0x100..=0xffff => {
                self.out.push(0xc5);
                self.out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                self.out.push(0xc6);
                self.out.extend_from_slice(&(len as u32).to_be_bytes());
            }
        }
        self
    }

    /// Bytes that are MessagePack already.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// A remote services id.
    pub fn id(&mut self, id: &RemoteId) -> &mut Self {
        self.bin(id.as_bytes())
    }

    /// Absent.
    pub fn nil(&mut self) -> &mut Self {
        self.out.push(0xc0);
        self
    }

    /// A value, or nil.
    pub fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            Some(value) => write(self, value),
            None => {
                self.nil();
            }
        }
        self
    }

    /// A list, each item written by `write`.
    pub fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.array(items.len());
        for item in items {
            write(self, item);
        }
        self
    }
}
