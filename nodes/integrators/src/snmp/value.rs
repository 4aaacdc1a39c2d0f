//! Values of SNMP variables: read from BER, and shown in the notation of net-snmp.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::ber::{self, Bytes, Fault};

/// The value of one variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// INTEGER, Integer32
    Integer(i64),
    /// OCTET STRING, BITS, NsapAddress and opaque bytes
    Octets(Vec<u8>),
    /// NULL
    Null,
    /// OBJECT IDENTIFIER, dotted
    Oid(String),
    /// IpAddress
    Address(Ipv4Addr),
    /// Counter32
    Counter32(u32),
    /// Gauge32, Unsigned32
    Unsigned32(u32),
    /// TimeTicks, hundredths of a second
    TimeTicks(u32),
    /// Counter64
    Counter64(u64),
    /// Opaque float of net-snmp
    Float(f32),
    /// Opaque double of net-snmp
    Double(f64),
    /// Opaque signed 64 bits of net-snmp
    Signed64(i64),
    /// Opaque unsigned 64 bits of net-snmp
    Unsigned64(u64),
    /// noSuchObject, noSuchInstance, endOfMibView
    Absent,
}

/// One variable of a trap.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Dotted, without a leading dot.
    pub oid: String,
    /// Its value.
    pub value: Value,
}

impl Value {
    /// Reads the content of a value by its tag (RFC 3416 §3, and net-snmp's opaque types).
    pub(crate) fn read(tag: u8, content: &[u8]) -> Result<Self, Fault> {
        Ok(match tag {
            0x02 => Self::Integer(ber::signed(content)?),
            0x04 | 0x45 => Self::Octets(content.to_vec()),
            0x05 => Self::Null,
            0x06 => Self::Oid(ber::oid(content)?),
            0x40 => {
                let octets: [u8; 4] = content.try_into().map_err(|_| Fault::Invalid)?;
                Self::Address(octets.into())
            }
            0x41 => Self::Counter32(ber::unsigned32(content)?),
            0x42 | 0x47 => Self::Unsigned32(ber::unsigned32(content)?),
            0x43 => Self::TimeTicks(ber::unsigned32(content)?),
            0x44 => Self::opaque(content),
            0x46 => Self::Counter64(ber::unsigned(content)?),
            0x80..=0x82 => Self::Absent,
            _ => return Err(Fault::Invalid),
        })
    }

    /// Opaque is bytes unless they are one of net-snmp's numbers: `9f`, type, length, content.
    fn opaque(content: &[u8]) -> Self {
        let bytes = || Self::Octets(content.to_vec());
        match content {
            [0x9f, 0x78, 4, float @ ..] => match <[u8; 4]>::try_from(float) {
                Ok(octets) => Self::Float(f32::from_be_bytes(octets)),
                Err(_) => bytes(),
            },
            [0x9f, 0x79, 8, double @ ..] => match <[u8; 8]>::try_from(double) {
                Ok(octets) => Self::Double(f64::from_be_bytes(octets)),
                Err(_) => bytes(),
            },
            [0x9f, 0x7a, length, rest @ ..] if usize::from(*length) == rest.len() => {
                ber::signed(rest).map_or_else(|_| bytes(), Self::Signed64)
            }
            [0x9f, 0x76 | 0x7b, length, rest @ ..] if usize::from(*length) == rest.len() => {
                ber::unsigned(rest).map_or_else(|_| bytes(), Self::Unsigned64)
            }
            _ => bytes(),
        }
    }

    /// Reads a value in the notation of `snmptrap`; the error says what is wrong.
    pub fn from_notation(letter: &str, text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not of type {letter}");
        Ok(match letter {
            "i" => Self::Integer(text.parse().map_err(|_| wrong())?),
            "u" => Self::Unsigned32(text.parse().map_err(|_| wrong())?),
            "c" => Self::Counter32(text.parse().map_err(|_| wrong())?),
            "C" => Self::Counter64(text.parse().map_err(|_| wrong())?),
            "t" => Self::TimeTicks(text.parse().map_err(|_| wrong())?),
            "a" => Self::Address(text.parse().map_err(|_| wrong())?),
            "o" => Self::Oid(crate::rules::read_oid(text).ok_or_else(wrong)?),
            "s" => Self::Octets(text.as_bytes().to_vec()),
            "x" => Self::Octets(from_hex(text).ok_or_else(wrong)?),
            "d" => Self::Octets(from_decimals(text).ok_or_else(wrong)?),
            "b" => Self::Octets(from_bits(text).ok_or_else(wrong)?),
            "n" => Self::Null,
            "F" => Self::Float(text.parse().map_err(|_| wrong())?),
            "D" => Self::Double(text.parse().map_err(|_| wrong())?),
            "I" => Self::Signed64(text.parse().map_err(|_| wrong())?),
            "U" => Self::Unsigned64(text.parse().map_err(|_| wrong())?),
            _ => return Err(format!("type {letter:?} is none of i u c C t a o s x d b n F D I U")),
        })
    }

    /// The letter by which net-snmp's tools know the type.
    pub fn letter(&self) -> &'static str {
        match self {
            Self::Integer(_) => "i",
            Self::Octets(octets) if readable(octets).is_some() => "s",
            Self::Octets(_) => "x",
            Self::Null | Self::Absent => "n",
            Self::Oid(_) => "o",
            Self::Address(_) => "a",
            Self::Counter32(_) => "c",
            Self::Unsigned32(_) => "u",
            Self::TimeTicks(_) => "t",
            Self::Counter64(_) => "C",
            Self::Float(_) => "F",
            Self::Double(_) => "D",
            Self::Signed64(_) => "I",
            Self::Unsigned64(_) => "U",
        }
    }

    /// As templates see it: integers in decimal, OIDs dotted, strings as UTF-8 or else `0x…`,
    /// time ticks as they are.
    pub fn text(&self) -> String {
        match self {
            Self::Integer(value) | Self::Signed64(value) => value.to_string(),
            Self::Octets(octets) => match readable(octets) {
                Some(text) => text.to_owned(),
                None => octets.iter().fold("0x".to_owned(), |mut hex, octet| {
                    // Writing to a String cannot fail.
                    let _ = write!(hex, "{octet:02x}");
                    hex
                }),
            },
            Self::Null | Self::Absent => String::new(),
            Self::Oid(oid) => oid.clone(),
            Self::Address(address) => address.to_string(),
            Self::Counter32(value) | Self::Unsigned32(value) | Self::TimeTicks(value) => {
                value.to_string()
            }
            Self::Counter64(value) | Self::Unsigned64(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
        }
    }
}

impl Variable {
    /// Reads a VarBindList; what stands behind the two parts of a variable is skipped.
    pub(crate) fn read_list(content: &[u8]) -> Result<Vec<Self>, Fault> {
        let mut list = Bytes(content);
        let mut variables = Vec::new();
        while !list.is_empty() {
            let mut pair = Bytes(list.tagged(0x30)?);
            let oid = ber::oid(pair.tagged(0x06)?)?;
            let (tag, content) = pair.any()?;
            variables.push(Self { oid, value: Value::read(tag, content)? });
        }
        Ok(variables)
    }
}

/// The text that octets are: UTF-8 without control characters, but for tab and line ends. One NUL
/// at the end is cut, which agents in C send.
fn readable(octets: &[u8]) -> Option<&str> {
    let octets = octets.strip_suffix(&[0]).unwrap_or(octets);
    let text = std::str::from_utf8(octets).ok()?;
    let plain = |c: char| !c.is_control() || matches!(c, '\t' | '\r' | '\n');
    text.chars().all(plain).then_some(text)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, ' ' | ':' | '-'))
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| u8::try_from(pair.iter().fold(0, |n, digit| n * 16 + digit)).ok()).collect()
}

fn from_decimals(text: &str) -> Option<Vec<u8>> {
    text.split([' ', '.']).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}

/// BITS by the numbers of those that are set, the highest bit of the first octet being 0.
fn from_bits(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    for part in text.split([' ', ',']).filter(|part| !part.is_empty()) {
        let bit: u8 = part.parse().ok()?;
        let at = usize::from(bit / 8);
        if octets.len() <= at {
            octets.resize(at + 1, 0);
        }
        if let Some(octet) = octets.get_mut(at) {
            *octet |= 0x80 >> (bit % 8);
        }
    }
    Some(octets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn notation_of_snmptrap_is_read_and_shown_again() {
        let cases = [
            ("i", "-7", "i", "-7"),
            ("u", "4294967295", "u", "4294967295"),
            ("c", "1", "c", "1"),
            ("C", "18446744073709551615", "C", "18446744073709551615"),
            ("t", "12345", "t", "12345"),
            ("a", "192.0.2.7", "a", "192.0.2.7"),
            ("o", ".1.3.6", "o", "1.3.6"),
            ("s", "Lüfter 3", "s", "Lüfter 3"),
            ("s", "line\n", "s", "line\n"),
            ("s", "c\0", "s", "c"),
            ("x", "00 FF fe:0a", "x", "0x00fffe0a"),
            ("x", "0x6162", "s", "ab"),
            ("d", "7 230.11", "x", "0x07e60b"),
            ("b", "0, 15", "x", "0x8001"),
            ("n", "", "n", ""),
            ("D", "1.5", "D", "1.5"),
        ];
        for (letter, text, shown_letter, shown) in cases {
            let value = Value::from_notation(letter, text).unwrap();
            assert_eq!((value.letter(), value.text().as_str()), (shown_letter, shown), "{text}");
        }
        for (letter, text) in
            [("i", "x"), ("u", "-1"), ("a", "::1"), ("o", "a.b"), ("x", "abc"), ("z", "")]
        {
            assert!(Value::from_notation(letter, text).is_err(), "{letter} {text}");
        }
    }
}
