//! Frames of a stream of syslog (RFC 6587): octet counting, or lines that end with LF or NUL.

/// Bytes of one frame that are kept; what is longer is cut, and counted as cut. Vendors send up to
/// 16 KiB, and a line must fit into the data of a message with room to spare.
pub const FRAME_BYTES: usize = 64 * 1024;
/// Bytes an octet count may promise: what promises more is no syslog, or wants us to wait for ever.
pub const COUNT_BYTES: usize = 1024 * 1024;
/// Digits of a number that may be meant as a count.
const COUNT_DIGITS: usize = 10;

/// Why a stream is no syslog: its connection is closed, since what follows cannot be found.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FramingError {
    /// Where an octet count should stand, something else does.
    #[error("no octet count behind a counted frame; the count before it was wrong")]
    NoCount,
    /// The count is above [`COUNT_BYTES`].
    #[error("an octet count above {COUNT_BYTES}; send shorter messages")]
    CountTooLarge,
    /// The stream ended before the counted octets had come.
    #[error("the stream ended within a counted frame; the rest of it is missing")]
    Incomplete,
}

impl FramingError {
    /// The value of label `reason` of `callhome_integrator_malformed_total`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoCount => "no_count",
            Self::CountTooLarge => "count_too_large",
            Self::Incomplete => "incomplete",
        }
    }
}

/// One message as it stood in the stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// The message, without what framed it.
    pub bytes: Vec<u8>,
    /// Whether it was longer than [`FRAME_BYTES`] and its end is missing.
    pub cut: bool,
}

/// Cuts a stream into frames. A sender should keep to one way (RFC 6587 §3.4), but relays mix both
/// in one connection, so each frame's beginning says what it is: `LENGTH SP <` a counted one, `<` a
/// line, anything else a line too, unless the frame before was counted. Holds at most one frame and
/// the bytes pushed last.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Bytes at the start of the buffer that are done with.
    done: usize,
    /// Whether the last frame was counted.
    counted: bool,
    /// Bytes of the present frame that are still to come and are not kept.
    skip: usize,
    /// Within a line that was cut: everything up to its end goes.
    skip_line: bool,
}

/// What begins at the start of the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Begins {
    /// Too few bytes to say.
    Unsure,
    /// A frame of so many octets, behind so many of its count.
    Counted(usize, usize),
    /// A line.
    Line,
}

impl Framer {
    /// Adds bytes that were received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The stream is not framed: close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FramingError> {
        loop {
            if !self.skipped() {
                return Ok(None);
            }
            // Empty lines, and what some senders put behind a counted frame, say nothing.
            self.done += self.rest().iter().take_while(|byte| is_end(**byte)).count();
            let found = match self.begins()? {
                Begins::Unsure => None,
                Begins::Counted(length, used) => self.take_counted(length, used),
                Begins::Line => self.take_line(),
            };
            match found {
                Some(frame) if frame.bytes.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    /// What is left when the stream ends: a last line without an end is a message. Call it when
    /// [`Self::next_frame`] has no more.
    ///
    /// # Errors
    /// It ended within a counted frame.
    pub fn finish(mut self) -> Result<Option<Frame>, FramingError> {
        if self.within_frame() {
            return Err(FramingError::Incomplete);
        }
        let bytes = self.buffer.split_off(self.done);
        Ok((!self.skip_line && !bytes.is_empty()).then_some(Frame { bytes, cut: false }))
    }

    /// Whether the rest of a counted frame is still to come.
    #[must_use]
    pub fn within_frame(&self) -> bool {
        let begun = match self.begins() {
            Ok(Begins::Counted(..)) => true,
            Ok(Begins::Unsure) => self.counted && !self.rest().is_empty(),
            _ => false,
        };
        self.skip > 0 || (!self.skip_line && begun)
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.done..]
    }

    /// Passes over what is left of a frame that was cut; true when it is over.
    fn skipped(&mut self) -> bool {
        let over = self.skip.min(self.rest().len());
        self.done += over;
        self.skip -= over;
        if self.skip_line {
            match self.rest().iter().position(|byte| is_end(*byte)) {
                Some(end) => {
                    self.done += end + 1;
                    self.skip_line = false;
                }
                None => self.done = self.buffer.len(),
            }
        }
        self.skip == 0 && !self.skip_line
    }

    fn begins(&self) -> Result<Begins, FramingError> {
        let rest = self.rest();
        let digits = rest.iter().take(COUNT_DIGITS).take_while(|byte| byte.is_ascii_digit());
        let digits = digits.count();
        if digits > 0 && rest[0] != b'0' {
            // "12 monkeys" is a line; a count stands before the "<" of a priority.
            match (rest.get(digits), rest.get(digits + 1)) {
                (None, _) | (Some(b' '), None) => return Ok(Begins::Unsure),
                (Some(b' '), Some(next)) if self.counted || *next == b'<' => {
                    let value = |sum: usize, digit: &u8| sum * 10 + usize::from(digit - b'0');
                    let length = rest[..digits].iter().fold(0, value);
                    if length > COUNT_BYTES {
                        return Err(FramingError::CountTooLarge);
                    }
                    return Ok(Begins::Counted(length, digits + 1));
                }
                _ => {}
            }
        }
        match rest.first() {
            None => Ok(Begins::Unsure),
            Some(b'<') => Ok(Begins::Line),
            Some(_) if self.counted => Err(FramingError::NoCount),
            Some(_) => Ok(Begins::Line),
        }
    }

    fn take_counted(&mut self, length: usize, used: usize) -> Option<Frame> {
        let kept = length.min(FRAME_BYTES);
        let bytes = self.rest().get(used..used + kept)?.to_vec();
        self.done += used + kept;
        self.skip = length - kept;
        self.counted = true;
        Some(Frame { bytes, cut: kept < length })
    }

    fn take_line(&mut self) -> Option<Frame> {
        let rest = self.rest();
        let within = &rest[..rest.len().min(FRAME_BYTES + 1)];
        if let Some(end) = within.iter().position(|byte| is_end(*byte)) {
            let frame = Frame { bytes: rest[..end].to_vec(), cut: false };
            self.done += end + 1;
            self.counted = false;
            return Some(frame);
        }
        if rest.len() <= FRAME_BYTES {
            return None;
        }
        let frame = Frame { bytes: rest[..FRAME_BYTES].to_vec(), cut: true };
        self.done += FRAME_BYTES;
        self.skip_line = true;
        self.counted = false;
        Some(frame)
    }
}

/// What ends a line: LF, or NUL as some vendors do (RFC 6587 §3.4.2).
const fn is_end(byte: u8) -> bool {
    byte == b'\n' || byte == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]
    use proptest::prelude::*;

    use super::*;

    /// Pushes in pieces; gives the frames and how it ended.
    fn run(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FramingError>) {
        let (mut framer, mut frames) = (Framer::default(), Vec::new());
        for bytes in stream.chunks(piece) {
            framer.push(bytes);
            loop {
                match framer.next_frame() {
                    Ok(Some(frame)) => frames.push(frame.bytes),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        match framer.finish() {
            Ok(frame) => (frames.into_iter().chain(frame.map(|f| f.bytes)).collect(), None),
            Err(error) => (frames, Some(error)),
        }
    }

    fn texts(stream: &str) -> (Vec<String>, Option<FramingError>) {
        let whole = run(stream.as_bytes(), stream.len().max(1));
        assert_eq!(whole, run(stream.as_bytes(), 1), "pieces of one byte: {stream:?}");
        (whole.0.into_iter().map(|f| String::from_utf8(f).unwrap()).collect(), whole.1)
    }

    #[test]
    fn counted_frames_may_hold_line_ends_and_follow_without_one() {
        let (frames, error) = texts("5 <1>a\n4 <1>b\n10 <1>c d e f");
        assert_eq!((frames.len(), error), (3, None));
        assert_eq!(frames, ["<1>a\n", "<1>b", "<1>c d e f"]);
    }

    #[test]
    fn lines_end_with_lf_or_nul_and_the_last_needs_none() {
        let (frames, error) = texts("<1>a\n\n<2>b\0<3>c\r\n17 no count\nlast");
        assert_eq!(error, None);
        assert_eq!(frames, ["<1>a", "<2>b", "<3>c\r", "17 no count", "last"]);
    }

    #[test]
    fn text_that_begins_with_digits_is_a_line() {
        assert_eq!(texts("12 monkeys\n").0, ["12 monkeys"]);
        assert_eq!(texts("2026-11-21 x\n").0, ["2026-11-21 x"]);
        assert_eq!(texts("0 <1>a\n").0, ["0 <1>a"]);
        assert_eq!(texts("17").0, ["17"]);
    }

    #[test]
    fn a_relay_may_mix_counted_frames_and_lines() {
        let (frames, error) = texts("5 <1>ab<2>c d\n4 <3>e<4>f");
        assert_eq!((frames.join("|").as_str(), error), ("<1>ab|<2>c d|<3>e|<4>f", None));
    }

    #[test]
    fn framing_errors_are_told_apart() {
        assert_eq!(texts("16 <1>2").1, Some(FramingError::Incomplete));
        assert_eq!(texts("4 <1>axyz").1, Some(FramingError::NoCount));
        assert_eq!(texts("99999999 <1>").1, Some(FramingError::CountTooLarge));
        assert_eq!(texts("1048577 <1>").1, Some(FramingError::CountTooLarge));
        assert_eq!(texts("4 <1>a0 <1>").1, Some(FramingError::NoCount));
    }

    #[test]
    fn what_is_too_long_is_cut_and_the_next_message_is_found() {
        let long = "x".repeat(FRAME_BYTES);
        let streams =
            [format!("<1>{long}yy\n<2>b\n"), format!("{} <1>{long}yy4 <2>b", FRAME_BYTES + 5)];
        for stream in streams {
            let (frames, error) = run(stream.as_bytes(), 1000);
            assert_eq!((frames.len(), error), (2, None));
            assert_eq!(frames[0].len(), FRAME_BYTES);
            assert_eq!(frames[1], b"<2>b");
        }
        let exact = format!("{long}\n");
        assert_eq!(run(exact.as_bytes(), 7777).0, [long.into_bytes()]);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_frames(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b' '), Just(b'<'), b'0'..=b'9', any::<u8>()], 0..200),
            piece in 1_usize..50,
        ) {
            prop_assert_eq!(run(&bytes, 200), run(&bytes, piece));
        }
    }
}
