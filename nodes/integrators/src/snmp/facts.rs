//! The named values of a trap, as rules see them, and its variables as JSON.

use std::borrow::Cow;
use std::net::IpAddr;

use protocol::limits;

use super::message::{Notification, Version};
use super::value::{Value, Variable};
use crate::rules::{self, Facts, TestInput};

/// The agent's address when a trap was forwarded or translated (RFC 3584 §3.1).
const SNMP_TRAP_ADDRESS: &str = "1.3.6.1.6.3.18.1.3.0";

/// Where a test or `--try` comes from when it does not say.
const TEST_SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A trap with all that rules may ask of it.
#[derive(Clone, Debug)]
pub struct TrapFacts {
    /// `1`, `2c` or `3`.
    pub version: &'static str,
    /// The sender's address, IPv4 as such even on an IPv6 socket.
    pub source: IpAddr,
    /// The agent's own address.
    pub agent: IpAddr,
    /// Whether the message says whose it is, and the sender's address was not taken for it.
    pub agent_is_told: bool,
    /// As it was sent, where it is text.
    pub community: Option<String>,
    /// What the trap says.
    pub notification: Notification,
}

impl TrapFacts {
    /// Of a message in that version from `source`.
    pub fn new(
        version: Version,
        source: IpAddr,
        community: &[u8],
        notification: Notification,
    ) -> Self {
        let told = notification.agent_address.or_else(|| {
            notification.variables.iter().find_map(|variable| match &variable.value {
                Value::Address(address) if variable.oid == SNMP_TRAP_ADDRESS => {
                    (!address.is_unspecified()).then_some(*address)
                }
                _ => None,
            })
        });
        let source = source.to_canonical();
        Self {
            version: version.name(),
            source,
            agent: told.map_or(source, IpAddr::V4),
            agent_is_told: told.is_some(),
            community: String::from_utf8(community.to_vec()).ok(),
            notification,
        }
    }

    /// The variables as JSON, `[["1.3.6…","i","7"],…]`: at most as many as fit a message.
    pub fn data(&self) -> Vec<u8> {
        let mut json = vec![b'['];
        for variable in &self.notification.variables {
            let row = (&variable.oid, variable.value.letter(), variable.value.text());
            // Three strings can always be written as JSON.
            let row = serde_json::to_vec(&row).unwrap_or_default();
            if json.len() + row.len() + 2 > limits::DATA_BYTES_MAX {
                break;
            }
            if json.len() > 1 {
                json.push(b',');
            }
            json.extend_from_slice(&row);
        }
        json.push(b']');
        json
    }

    /// All variables in one line, `OID=VALUE` and commas between; as much as a text can hold.
    fn variables_in_a_line(&self) -> String {
        let mut line = String::new();
        for Variable { oid, value } in &self.notification.variables {
            if line.len() > limits::TEXT_BYTES_MAX {
                break;
            }
            if !line.is_empty() {
                line.push_str(", ");
            }
            line.push_str(oid);
            line.push('=');
            line.push_str(&value.text());
        }
        line
    }
}

impl Facts for TrapFacts {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "trap" => Some(Cow::Borrowed(self.notification.trap.as_str())),
            "source" => Some(self.source.to_string().into()),
            "agent" => Some(self.agent.to_string().into()),
            "version" => Some(self.version.into()),
            "uptime" => Some(self.notification.uptime.to_string().into()),
            "community" => self.community.as_deref().map(Cow::Borrowed),
            "vars" => Some(self.variables_in_a_line().into()),
            _ => None,
        }
    }

    fn below(&self, oid: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
        self.notification.variables.iter().find_map(|variable| {
            let rest = variable.oid.strip_prefix(oid)?;
            let index = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
            Some((variable.value.text().into(), Cow::Borrowed(index)))
        })
    }
}

/// Facts of a `[[test]]` or of `--try`.
pub fn facts_of(input: &TestInput) -> Result<Box<dyn Facts>, String> {
    let TestInput::Trap { trap, vars, agent, version } = input else {
        return Err("it is a line, not a trap".to_owned());
    };
    let oid = |text: &str| rules::read_oid(text).ok_or_else(|| format!("{text:?} is not an OID"));
    let variables = vars.iter().map(|[name, letter, text]| {
        let value = Value::from_notation(letter, text).map_err(|why| format!("{name}: {why}"))?;
        Ok(Variable { oid: oid(name)?, value })
    });
    let notification = Notification {
        trap: oid(trap)?,
        uptime: 0,
        agent_address: None,
        variables: variables.collect::<Result<_, String>>()?,
    };
    let version = match version.as_deref().map(|v| v.strip_prefix('v').unwrap_or(v)) {
        Some("1") => "1",
        Some("2c") | None => "2c",
        Some("3") => "3",
        Some(other) => return Err(format!("version {other:?} is none of 1 2c 3")),
    };
    let mut facts = TrapFacts::new(Version::V2c, TEST_SOURCE, b"public", notification);
    facts.version = version;
    if let Some(agent) = agent {
        (facts.agent, facts.agent_is_told) = (*agent, true);
    }
    Ok(Box::new(facts))
}

/// The words after `--try`: `TRAP-OID OID TYPE VALUE …`, as words of their own or in one.
pub fn read_try(words: &[String]) -> Result<TestInput, String> {
    let words = match words {
        [one] => split_words(one)?,
        many => many.to_vec(),
    };
    let usage = "--try takes TRAP-OID OID TYPE VALUE …, as snmptrap does";
    let (trap, rest) = words.split_first().ok_or(usage)?;
    let triples = rest.chunks_exact(3);
    if !triples.remainder().is_empty() {
        return Err(format!("{usage}: a variable is three words, OID TYPE VALUE"));
    }
    let vars = triples.filter_map(|triple| <[String; 3]>::try_from(triple.to_vec()).ok());
    Ok(TestInput::Trap { trap: trap.clone(), vars: vars.collect(), agent: None, version: None })
}

/// Words of a line; quotes, single or double, keep blanks together.
fn split_words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn variable(oid: &str, letter: &str, text: &str) -> Variable {
        Variable { oid: oid.to_owned(), value: Value::from_notation(letter, text).unwrap() }
    }

    fn facts(agent_address: Option<&str>, variables: Vec<Variable>) -> TrapFacts {
        let notification = Notification {
            trap: "1.3.6".to_owned(),
            uptime: 7,
            agent_address: agent_address.map(|address| address.parse().unwrap()),
            variables,
        };
        let source = "::ffff:198.51.100.9".parse().unwrap();
        TrapFacts::new(Version::V1, source, b"public", notification)
    }

    #[test]
    fn agent_is_agent_addr_else_snmp_trap_address_else_the_sender() {
        let by_variable = || vec![variable(SNMP_TRAP_ADDRESS, "a", "203.0.113.5")];
        let cases = [
            (facts(Some("192.0.2.2"), by_variable()), "192.0.2.2"),
            (facts(None, by_variable()), "203.0.113.5"),
            (facts(None, vec![variable(SNMP_TRAP_ADDRESS, "a", "0.0.0.0")]), "198.51.100.9"),
            (facts(None, Vec::new()), "198.51.100.9"),
        ];
        for (facts, agent) in cases {
            assert_eq!(facts.value("agent").as_deref(), Some(agent));
            assert_eq!(facts.value("source").as_deref(), Some("198.51.100.9"));
        }
    }

    #[test]
    fn name_finds_the_first_variable_at_or_below_its_oid() {
        let facts = facts(
            None,
            vec![
                variable("1.3.61.1", "s", "neighbour"),
                variable("1.3.6.7.3", "i", "3"),
                variable("1.3.6.8", "i", "8"),
            ],
        );
        let below = |oid| facts.below(oid).map(|(v, i)| (v.into_owned(), i.into_owned()));
        assert_eq!(below("1.3.6"), Some(("3".to_owned(), "7.3".to_owned())));
        assert_eq!(below("1.3.6.8"), Some(("8".to_owned(), String::new())));
        assert_eq!(below("1.3.7"), None);
    }

    #[test]
    fn data_is_the_variables_as_json() {
        let facts =
            facts(None, vec![variable("1.3.6.1", "i", "7"), variable("1.3.6.2", "s", "a\"b")]);
        let json = String::from_utf8(facts.data()).unwrap();
        assert_eq!(json, r#"[["1.3.6.1","i","7"],["1.3.6.2","s","a\"b"]]"#);
    }

    #[test]
    fn words_after_try_are_one_trap() {
        let one = read_try(&["1.3.6 1.3.6.1 s 'a b' 1.3.6.2 i 7".to_owned()]).unwrap();
        let many: Vec<_> =
            ["1.3.6", "1.3.6.1", "s", "a b", "1.3.6.2", "i", "7"].map(str::to_owned).to_vec();
        assert_eq!(one, read_try(&many).unwrap());
        assert!(read_try(&["1.3.6 1.3.6.1 s".to_owned()]).is_err());
        assert!(read_try(&[]).is_err());
    }
}
