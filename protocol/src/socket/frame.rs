//! Frames: four bytes of length, then one MessagePack-RPC array.
use bytes::{Bytes, BytesMut};

use super::fields::{Map, raw_text};
use crate::{
    codec::{Reader, Writer},
    limits::{DEPTH_MAX, FRAME_BYTES_MAX, NAME_BYTES_MAX},
};

/// Bytes that are no frame. The connection they came on has no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFrame(pub &'static str);

/// One frame, its maps not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `[0, id, method, params]`
    Request {
        /// Unique among the unanswered of this side.
        id: u32,
        /// What is asked.
        method: String,
        /// A map.
        params: Bytes,
    },
    /// `[1, id, error, result]`
    Answer {
        /// The request's.
        id: u32,
        /// The map of the result, or that of the error.
        result: Result<Bytes, Bytes>,
    },
    /// `[2, method, params]`
    Notice {
        /// What is told.
        method: String,
        /// A map.
        params: Bytes,
    },
}

/// An empty map.
const EMPTY: &[u8] = &[0x80];

impl Frame {
    /// Reads the body of a frame (without its length).
    pub fn read(body: &Bytes) -> Result<Self, BadFrame> {
        let mut reader = Reader::new(body);
        let items = reader.array_len().ok_or(BadFrame("a frame is an array"))?;
        let kind = reader.uint().ok_or(BadFrame("a frame begins with 0, 1 or 2"))?;
        let frame = match (kind, items) {
            (0, 4) => Self::Request {
                id: id(&mut reader)?,
                method: method(&mut reader)?,
                params: map(body, &mut reader, "params are a map")?,
            },
            (1, 4) => {
                let id = id(&mut reader)?;
                let result = if reader.nil() {
                    let none = reader.nil();
                    Ok(match none {
                        true => Bytes::from_static(EMPTY),
                        false => map(body, &mut reader, "a result is a map")?,
                    })
                } else {
                    let error = map(body, &mut reader, "an error is a map")?;
                    reader.skip(DEPTH_MAX).ok_or(BadFrame("an answer has four items"))?;
                    Err(error)
                };
                Self::Answer { id, result }
            }
            (2, 3) => Self::Notice {
                method: method(&mut reader)?,
                params: map(body, &mut reader, "params are a map")?,
            },
            _ => {
                return Err(BadFrame(
                    "a frame is a request, an answer or a notice: [0, …] [1, …] of 4, [2, …] of 3",
                ));
            }
        };
        match reader.is_empty() {
            true => Ok(frame),
            false => Err(BadFrame("bytes follow the array of a frame")),
        }
    }

    /// The bytes of a request, length included.
    pub fn request(id: u32, method: &str, params: Map) -> Vec<u8> {
        let mut to = start();
        to.array(4).uint(0).uint(id.into()).text(method);
        params.write(&mut to);
        finish(to)
    }

    /// The bytes of an answer that has a result.
    pub fn result(id: u32, result: Map) -> Vec<u8> {
        let mut to = Vec::new();
        Self::answer_on(&mut to, id, Ok(result));
        to
    }

    /// The bytes of an answer that is an error.
    pub fn error(id: u32, error: Map) -> Vec<u8> {
        let mut to = Vec::new();
        Self::answer_on(&mut to, id, Err(error));
        to
    }

    /// Appends the bytes of an answer: those of calls that were answered together are written
    /// together.
    pub fn answer_on(to: &mut Vec<u8>, id: u32, result: Result<Map, Map>) {
        let from = to.len();
        let mut frame = Writer::on(std::mem::take(to));
        frame.raw(&[0; 4]).array(4).uint(1).uint(id.into());
        match result {
            Ok(result) => result.write(frame.nil()),
            Err(error) => {
                error.write(&mut frame);
                frame.nil();
            }
        }
        *to = frame.into_vec();
        set_length(&mut to[from..]);
    }

    /// The bytes of a notice.
    pub fn notice(method: &str, params: Map) -> Vec<u8> {
        let mut to = start();
        to.array(3).uint(2).text(method);
        params.write(&mut to);
        finish(to)
    }

    /// The bytes of a request whose params are encoded already.
    pub fn request_raw(id: u32, method: &str, params: &[u8]) -> Vec<u8> {
        let mut to = start();
        to.array(4).uint(0).uint(id.into()).text(method).raw(params);
        finish(to)
    }
}

fn start() -> Writer {
    let mut to = Writer::new();
    to.raw(&[0; 4]);
    to
}

fn finish(to: Writer) -> Vec<u8> {
    let mut frame = to.into_vec();
    set_length(&mut frame);
    frame
}

fn set_length(frame: &mut [u8]) {
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

fn id(reader: &mut Reader<'_>) -> Result<u32, BadFrame> {
    let id = reader.uint().and_then(|n| u32::try_from(n).ok());
    id.ok_or(BadFrame("an id is a whole number below 2^32"))
}

fn method(reader: &mut Reader<'_>) -> Result<String, BadFrame> {
    const WHAT: BadFrame = BadFrame("a method is text");
    let (bytes, rest) = raw_text(reader.rest()).ok_or(WHAT)?;
    *reader = Reader::new(rest);
    let name = std::str::from_utf8(bytes).map_err(|_| WHAT)?;
    match name.len() <= NAME_BYTES_MAX {
        true => Ok(name.to_owned()),
        false => Err(WHAT),
    }
}

/// Takes one map off the reader and checks that it is whole.
fn map(body: &Bytes, reader: &mut Reader<'_>, what: &'static str) -> Result<Bytes, BadFrame> {
    let before = reader.rest();
    let is_map = matches!(before.first(), Some(0x80..=0x8f | 0xde | 0xdf));
    if !is_map {
        return Err(BadFrame(what));
    }
    reader.skip(DEPTH_MAX).ok_or(BadFrame("a frame's values are whole and 16 deep at most"))?;
    let from = body.len() - before.len();
    let to = body.len() - reader.rest().len();
    Ok(body.slice(from..to))
}

/// Cuts a stream of bytes into frames. Holds at most what was pushed into it.
#[derive(Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Starts with nothing read.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where bytes that were read go, at the end.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The body of the next frame; `None`: more bytes are needed.
    pub fn next_body(&mut self) -> Result<Option<Bytes>, BadFrame> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(BadFrame("a frame has 1 to 1048576 bytes"));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(4 + length).freeze();
        Ok(Some(frame.split_off(4)))
    }

    /// The next frame; `None`: more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        self.next_body()?.map(|body| Frame::read(&body)).transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bye_is_the_contracts_bytes() {
        let bye = Frame::request(7, "bye", Map::new());
        assert_eq!(bye, [0, 0, 0, 8, 0x94, 0, 7, 0xa3, b'b', b'y', b'e', 0x80]);
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_come_in() {
        let one = Frame::request(1, "bye", Map::new());
        let two = Frame::notice("stopping", Map::new());
        let all = [one.clone(), two].concat();
        let mut frames = Frames::new();
        let mut got = Vec::new();
        for byte in all {
            frames.buffer().extend_from_slice(&[byte]);
            got.extend(frames.next_frame().unwrap());
        }
        assert_eq!(got.len(), 2);
        assert!(matches!(&got[0], Frame::Request { id: 1, method, .. } if method == "bye"));
        assert!(matches!(&got[1], Frame::Notice { method, .. } if method == "stopping"));
    }

    #[test]
    fn lengths_outside_the_bounds_are_bad_frames() {
        for length in [0_u32, (1 << 20) + 1, u32::MAX] {
            let mut frames = Frames::new();
            frames.buffer().extend_from_slice(&length.to_be_bytes());
            assert!(frames.next_body().is_err(), "{length}");
        }
    }

    #[test]
    fn what_is_no_rpc_array_is_a_bad_frame() {
        for body in [
            &[0x80][..],
            &[0x90],
            &[0x94, 0, 1, 0xa1, b'x'],
            &[0x94, 0, 1, 0xa1, b'x', 0x90],
            &[0x94, 0, 1, 0xa1, b'x', 0x80, 0],
            &[0x94, 3, 1, 0xa1, b'x', 0x80],
            &[0x94, 0, 0xff, 0xa1, b'x', 0x80],
            &[0x94, 0, 1, 0xa1, 0xff, 0x80],
            &[0x93, 2, 1, 0x80],
        ] {
            assert!(Frame::read(&Bytes::copy_from_slice(body)).is_err(), "{body:x?}");
        }
    }
}
