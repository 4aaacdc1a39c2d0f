//! SNMP messages off the wire: which they are, and what is wrong with the others.

use std::net::Ipv4Addr;

use super::ber::{self, Bytes, Fault};
use super::value::{Value, Variable};

/// The first two variables of every SNMPv2 notification (RFC 3416 §4.2.6).
const SYS_UP_TIME: &str = "1.3.6.1.2.1.1.3.0";
const SNMP_TRAP_OID: &str = "1.3.6.1.6.3.1.1.4.1.0";

const GET: u8 = 0xa0;
const RESPONSE: u8 = 0xa2;
const TRAP_V1: u8 = 0xa4;
const INFORM: u8 = 0xa6;
const TRAP_V2: u8 = 0xa7;
const REPORT: u8 = 0xa8;

/// The version of SNMP that a message is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// SNMPv1
    V1,
    /// SNMPv2c
    V2c,
}

impl Version {
    /// As after `snmptrap -v`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2c => "2c",
        }
    }
}

/// Why a datagram is no trap that is understood here; the names are label values of
/// `callhome_integrator_malformed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// It ends before the message does.
    #[error("truncated")]
    Truncated,
    /// No SNMP message: a tag, length or value that it does not have.
    #[error("not_snmp")]
    NotSnmp,
    /// SNMPv3 or a version unknown.
    #[error("unsupported_version")]
    UnsupportedVersion,
    /// A request, response or report: well formed, but nothing a receiver of traps is for.
    #[error("not_a_trap")]
    NotATrap,
    /// A notification without `sysUpTime.0` and `snmpTrapOID.0` in front.
    #[error("no_trap_oid")]
    NoTrapOid,
}

impl Malformed {
    /// The label value.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::NotSnmp => "not_snmp",
            Self::UnsupportedVersion => "unsupported_version",
            Self::NotATrap => "not_a_trap",
            Self::NoTrapOid => "no_trap_oid",
        }
    }
}

impl From<Fault> for Malformed {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Truncated => Self::Truncated,
            Fault::Invalid => Self::NotSnmp,
        }
    }
}

/// A trap or inform as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The version it is written in.
    pub version: Version,
    /// A shared secret in all but name: never logged.
    pub community: Vec<u8>,
    /// What it says.
    pub notification: Notification,
    /// The datagram that answers it, where it asks for one.
    pub response: Option<Vec<u8>>,
}

/// What a trap says, in SNMPv2's terms (RFC 3584 §3.1 for SNMPv1).
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// snmpTrapOID, dotted.
    pub trap: String,
    /// sysUpTime, hundredths of a second.
    pub uptime: u32,
    /// SNMPv1's agent-addr, unless it is 0.0.0.0.
    pub agent_address: Option<Ipv4Addr>,
    /// Without sysUpTime and snmpTrapOID.
    pub variables: Vec<Variable>,
}

/// Reads one datagram. What stands behind the message in it is left alone.
pub fn read(datagram: &[u8]) -> Result<Message, Malformed> {
    let mut outer = Bytes(datagram);
    let mut message = Bytes(outer.tagged(0x30)?);
    let version = match message.integer()? {
        0 => Version::V1,
        1 => Version::V2c,
        _ => return Err(Malformed::UnsupportedVersion),
    };
    let community = message.tagged(0x04)?.to_vec();
    let pdu_at = offset_in(datagram, message.0);
    let (tag, pdu) = message.any()?;
    let notification = match (version, tag) {
        (Version::V1, TRAP_V1) => read_v1(pdu)?,
        (Version::V2c, TRAP_V2 | INFORM) => read_v2(pdu)?,
        (_, GET..=REPORT) => return Err(Malformed::NotATrap),
        _ => return Err(Malformed::NotSnmp),
    };
    let response = (tag == INFORM).then(|| {
        let end = offset_in(datagram, outer.0).unwrap_or(datagram.len());
        respond(datagram.get(..end).unwrap_or(datagram), pdu_at)
    });
    Ok(Message { version, community, notification, response })
}

/// Where `rest`, which is a part of `datagram` up to the end of some value in it, begins.
fn offset_in(datagram: &[u8], rest: &[u8]) -> Option<usize> {
    let start = rest.as_ptr().addr().checked_sub(datagram.as_ptr().addr())?;
    (start <= datagram.len()).then_some(start)
}

/// The Response to an inform is the inform with another tag: same request-id, same variables, and
/// an error-status of zero, which it has already (RFC 3416 §4.2.7).
fn respond(inform: &[u8], pdu_at: Option<usize>) -> Vec<u8> {
    let mut response = inform.to_vec();
    if let Some(tag) = pdu_at.and_then(|at| response.get_mut(at)) {
        *tag = RESPONSE;
    }
    response
}

fn read_v1(pdu: &[u8]) -> Result<Notification, Malformed> {
    let mut fields = Bytes(pdu);
    let enterprise = ber::oid(fields.tagged(0x06)?)?;
    let agent = match Value::read(0x40, fields.tagged(0x40)?)? {
        Value::Address(address) => address,
        _ => return Err(Malformed::NotSnmp),
    };
    let generic = fields.integer()?;
    let specific = fields.integer()?;
    let uptime = ber::unsigned32(fields.tagged(0x43)?)?;
    let variables = Variable::read_list(fields.tagged(0x30)?)?;
    let trap = match generic {
        0..=5 => format!("1.3.6.1.6.3.1.1.5.{}", generic + 1),
        6 => format!("{enterprise}.0.{}", u32::try_from(specific).map_err(|_| Fault::Invalid)?),
        _ => return Err(Malformed::NotSnmp),
    };
    let agent_address = (!agent.is_unspecified()).then_some(agent);
    Ok(Notification { trap, uptime, agent_address, variables })
}

fn read_v2(pdu: &[u8]) -> Result<Notification, Malformed> {
    let mut fields = Bytes(pdu);
    let (_request_id, _error_status, _error_index) =
        (fields.integer()?, fields.integer()?, fields.integer()?);
    let mut variables = Variable::read_list(fields.tagged(0x30)?)?;
    let (uptime, trap) = match variables.as_slice() {
        [Variable { oid: first, value: uptime }, Variable { oid: second, value }, ..]
            if first == SYS_UP_TIME && second == SNMP_TRAP_OID =>
        {
            match (uptime, value) {
                (Value::TimeTicks(uptime), Value::Oid(trap)) => (*uptime, trap.clone()),
                _ => return Err(Malformed::NoTrapOid),
            }
        }
        _ => return Err(Malformed::NoTrapOid),
    };
    variables.drain(..2);
    Ok(Notification { trap, uptime, agent_address: None, variables })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    use proptest::prelude::*;

    fn captured(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snmp/captured");
        std::fs::read(folder.join(name)).unwrap()
    }

    fn shown(message: &Message) -> Vec<(String, &'static str, String)> {
        let variables = message.notification.variables.iter();
        variables.map(|v| (v.oid.clone(), v.value.letter(), v.value.text())).collect()
    }

    // EXT-2
    #[test]
    fn every_captured_v1_and_v2c_trap_is_read() {
        let cases = [
            ("snmpd-authfail-v1.bin", Version::V1, "1.3.6.1.6.3.1.1.5.5"),
            ("snmpd-authfail-v2c.bin", Version::V2c, "1.3.6.1.6.3.1.1.5.5"),
            ("snmpd-coldstart-v1.bin", Version::V1, "1.3.6.1.6.3.1.1.5.1"),
            ("snmpd-coldstart-v2c.bin", Version::V2c, "1.3.6.1.6.3.1.1.5.1"),
            ("snmpd-shutdown-v1.bin", Version::V1, "1.3.6.1.4.1.8072.4.0.2"),
            ("snmpd-shutdown-v2c.bin", Version::V2c, "1.3.6.1.4.1.8072.4.0.2"),
            ("v1-cold-start.bin", Version::V1, "1.3.6.1.6.3.1.1.5.1"),
            ("v1-enterprise-specific-sun.bin", Version::V1, "1.3.6.1.4.1.42.2.12.2.1.0.3"),
            ("v1-linkdown.bin", Version::V1, "1.3.6.1.6.3.1.1.5.3"),
            ("v2c-all-types.bin", Version::V2c, "1.3.6.1.4.1.8072.2.3.0.1"),
            ("v2c-authfail.bin", Version::V2c, "1.3.6.1.6.3.1.1.5.5"),
            ("v2c-inform.bin", Version::V2c, "1.3.6.1.6.3.1.1.5.3"),
        ];
        for (name, version, trap) in cases {
            let message = read(&captured(name)).unwrap();
            assert_eq!(
                (message.version, message.notification.trap.as_str()),
                (version, trap),
                "{name}"
            );
            assert!(!message.community.is_empty(), "{name}");
            assert_eq!(message.response.is_some(), name == "v2c-inform.bin", "{name}");
        }
    }

    #[test]
    fn every_captured_v3_message_is_refused_for_its_version() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snmp/captured");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with("v3-") {
                assert_eq!(read(&captured(&name)), Err(Malformed::UnsupportedVersion), "{name}");
                seen += 1;
            }
        }
        assert_eq!(seen, 8);
    }

    #[test]
    fn every_type_of_value_is_read() {
        let message = read(&captured("v2c-all-types.bin")).unwrap();
        let shown = shown(&message);
        let values: Vec<_> =
            shown.iter().map(|(_, letter, text)| (*letter, text.as_str())).collect();
        for expected in [
            ("i", "-7"),
            ("u", "4294967295"),
            ("c", "4294967295"),
            ("C", "18446744073709551615"),
            ("x", "0x00fffe0a"),
            ("n", ""),
        ] {
            assert!(values.contains(&expected), "{expected:?} in {values:?}");
        }
    }

    #[test]
    fn response_is_the_inform_with_another_tag() {
        let inform = captured("v2c-inform.bin");
        let mut with_garbage = inform.clone();
        with_garbage.extend_from_slice(&[0xde, 0xad]);
        let response = read(&with_garbage).unwrap().response.unwrap();
        assert_eq!(response.len(), inform.len());
        let differing: Vec<_> =
            inform.iter().zip(&response).filter(|(a, b)| a != b).map(|(a, b)| (*a, *b)).collect();
        assert_eq!(differing, [(INFORM, RESPONSE)]);
    }

    #[test]
    fn every_cut_of_a_message_is_refused() {
        let whole = captured("v1-linkdown.bin");
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Err(Malformed::Truncated), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_trap_with_wrong_bytes_is_read_or_refused(
            name in prop::sample::select(
                vec!["v2c-all-types.bin", "v1-linkdown.bin", "v2c-inform.bin"]
            ),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = captured(name);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(message) = read(&bytes) {
                for variable in &message.notification.variables {
                    let _ = (variable.value.letter(), variable.value.text());
                }
            }
        }
    }
}
