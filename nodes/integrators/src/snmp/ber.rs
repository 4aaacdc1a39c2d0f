//! Reads BER as SNMP agents write it: definite lengths, low tag numbers, forgiving on integers.
//!
//! Own code and not a general ASN.1 decoder, because agents in the field write unsigned values
//! without their leading zero and integers with needless ones, which must not cost an alarm.

/// Arcs of one OID (RFC 2578 §3.5).
const ARCS_MAX: usize = 128;

/// Why bytes are no BER that SNMP could mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They end before the value does.
    Truncated,
    /// A tag, length or value that SNMP does not have.
    Invalid,
}

/// What is left to read; each reading takes one value off its front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'b>(pub(crate) &'b [u8]);

impl<'b> Bytes<'b> {
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next value: its tag and its content.
    pub(crate) fn any(&mut self) -> Result<(u8, &'b [u8]), Fault> {
        let (&tag, rest) = self.0.split_first().ok_or(Fault::Truncated)?;
        if tag & 0x1f == 0x1f {
            return Err(Fault::Invalid); // The long form of a tag: SNMP has none.
        }
        let (&first, rest) = rest.split_first().ok_or(Fault::Truncated)?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let (octets, rest) = rest.split_at_checked(count).ok_or(Fault::Truncated)?;
                (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
            }
            _ => return Err(Fault::Invalid), // Indefinite, or beyond any datagram.
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok((tag, content))
    }

    /// The content of the next value, which must have this tag.
    pub(crate) fn tagged(&mut self, wanted: u8) -> Result<&'b [u8], Fault> {
        match self.0.first() {
            Some(tag) if *tag != wanted => Err(Fault::Invalid),
            _ => self.any().map(|(_, content)| content),
        }
    }

    /// The next value, an INTEGER.
    pub(crate) fn integer(&mut self) -> Result<i64, Fault> {
        signed(self.tagged(0x02)?)
    }
}

/// The content of an INTEGER, of at most eight octets.
pub(crate) fn signed(content: &[u8]) -> Result<i64, Fault> {
    let first = content.first().ok_or(Fault::Invalid)?;
    if content.len() > 8 {
        return Err(Fault::Invalid);
    }
    let sign = if first & 0x80 == 0 { 0 } else { -1 };
    Ok(content.iter().fold(sign, |value, octet| value << 8 | i64::from(*octet)))
}

/// The content of an unsigned type. A set top bit is taken for the value's own: agents forget the
/// leading zero.
pub(crate) fn unsigned(content: &[u8]) -> Result<u64, Fault> {
    let significant = match content {
        [] => return Err(Fault::Invalid),
        [0, rest @ ..] => rest,
        all => all,
    };
    if significant.len() > 8 {
        return Err(Fault::Invalid);
    }
    Ok(significant.iter().fold(0, |value, octet| value << 8 | u64::from(*octet)))
}

/// The content of an unsigned type of 32 bits.
pub(crate) fn unsigned32(content: &[u8]) -> Result<u32, Fault> {
    u32::try_from(unsigned(content)?).map_err(|_| Fault::Invalid)
}

/// The content of an OBJECT IDENTIFIER, dotted without a leading dot. An empty one, which agents
/// send for "none", is `0.0`.
pub(crate) fn oid(content: &[u8]) -> Result<String, Fault> {
    if content.is_empty() {
        return Ok("0.0".to_owned());
    }
    let mut dotted = String::new();
    let (mut arc, mut arcs, mut in_arc) = (0_u64, 0, false);
    for octet in content {
        arc = arc << 7 | u64::from(octet & 0x7f);
        // The first number holds two arcs: 40 times the first, and the second.
        if arc > u64::from(u32::MAX) + 80 {
            return Err(Fault::Invalid);
        }
        in_arc = octet & 0x80 != 0;
        if in_arc {
            continue;
        }
        if arcs == 0 {
            let root = (arc / 40).min(2);
            dotted = format!("{root}.{}", arc - root * 40);
            arcs = 2;
        } else {
            dotted.push('.');
            dotted.push_str(&arc.to_string());
            arcs += 1;
        }
        arc = 0;
        if arcs > ARCS_MAX {
            return Err(Fault::Invalid);
        }
    }
    if in_arc { Err(Fault::Truncated) } else { Ok(dotted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_agents_write_them() {
        assert_eq!(signed(&[0xf9]), Ok(-7));
        assert_eq!(signed(&[0, 0, 0, 7]), Ok(7));
        assert_eq!(signed(&[]), Err(Fault::Invalid));
        assert_eq!(signed(&[1; 9]), Err(Fault::Invalid));
        assert_eq!(unsigned32(&[0, 0xff, 0xff, 0xff, 0xff]), Ok(u32::MAX));
        assert_eq!(unsigned32(&[0xff, 0xff, 0xff, 0xff]), Ok(u32::MAX));
        assert_eq!(unsigned32(&[1, 0, 0, 0, 0]), Err(Fault::Invalid));
        assert_eq!(unsigned(&[0, 255, 255, 255, 255, 255, 255, 255, 255]), Ok(u64::MAX));
    }

    #[test]
    fn oids_are_dotted_without_a_leading_dot() {
        assert_eq!(oid(&[0x2b, 6, 1]).as_deref(), Ok("1.3.6.1"));
        assert_eq!(oid(&[0x2b, 0x87, 0x67]).as_deref(), Ok("1.3.999"));
        assert_eq!(oid(&[0x88, 0x37]).as_deref(), Ok("2.999"));
        assert_eq!(oid(&[]).as_deref(), Ok("0.0"));
        assert_eq!(oid(&[0x2b, 0x87]), Err(Fault::Truncated));
        assert_eq!(oid(&[0xff; 12]), Err(Fault::Invalid));
        assert_eq!(oid(&[1; 200]), Err(Fault::Invalid));
    }

    #[test]
    fn lengths_beyond_the_bytes_are_refused() {
        for bytes in
            [&[][..], &[0x30], &[0x30, 2, 0], &[0x30, 0x82, 1], &[0x30, 0x84, 255, 255, 255, 255]]
        {
            assert_eq!(Bytes(bytes).any(), Err(Fault::Truncated), "{bytes:?}");
        }
        for bytes in [&[0x30, 0x80, 0, 0][..], &[0x1f, 1, 0], &[0x30, 0x85, 0, 0, 0, 0, 0]] {
            assert_eq!(Bytes(bytes).any(), Err(Fault::Invalid), "{bytes:?}");
        }
    }
}
