//! One syslog message, of whatever form, as the rules see it.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::rules::{Facts, SYSLOG_FACILITIES, SYSLOG_SEVERITIES};

/// How a message is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// RFC 5424, with its version.
    Rfc5424(u16),
    /// RFC 3164 and what vendors make of it: a priority is there, the rest as far as found.
    Rfc3164,
    /// Without a priority: all of it is text.
    Text,
}

/// An element of structured data: its id and its parameters as written, escapes undone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Element {
    /// `origin`, `disk@32473`, …
    pub id: String,
    /// Names and values; a name may come twice.
    pub parameters: Vec<(String, String)>,
}

/// What a line says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// How it was written.
    pub form: Form,
    /// 0 to 23.
    pub facility: u8,
    /// 0 (worst) to 7.
    pub severity: u8,
    /// When, in milliseconds since 1970 UTC; none when it does not say.
    pub occurred_at_ms: Option<i64>,
    /// The host that it names.
    pub host: Option<String>,
    /// Program or tag.
    pub app: Option<String>,
    /// Process id, or whatever stands there.
    pub pid: Option<String>,
    /// Message id.
    pub msgid: Option<String>,
    /// Structured data.
    pub structured: Vec<Element>,
    /// The text; none when the message ends before it.
    pub text: Option<String>,
}

impl Message {
    /// All of it is text with `user.notice`.
    #[must_use]
    pub fn of_text(text: &[u8]) -> Self {
        Self {
            form: Form::Text,
            facility: 1,
            severity: 5,
            occurred_at_ms: None,
            host: None,
            app: None,
            pid: None,
            msgid: None,
            structured: Vec::new(),
            text: Some(String::from_utf8_lossy(text).into_owned()),
        }
    }

    /// The parameter of `sd.ID.PARAM`; ids may hold dots (`example.com@1`), so each cut is tried.
    fn parameter(&self, path: &str) -> Option<&str> {
        self.structured.iter().find_map(|element| {
            let name = path.strip_prefix(element.id.as_str())?.strip_prefix('.')?;
            element.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
        })
    }
}

/// A message and who sent it.
pub struct Received {
    /// What the line says.
    pub message: Message,
    /// The sender's address; none in a test that gives none.
    pub source: Option<IpAddr>,
}

impl Facts for Received {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let message = &self.message;
        let value = match name {
            "host" => message.host.as_deref()?,
            "app" => message.app.as_deref()?,
            "pid" => message.pid.as_deref()?,
            "msgid" => message.msgid.as_deref()?,
            "text" => message.text.as_deref()?,
            "facility" => SYSLOG_FACILITIES.get(usize::from(message.facility)).copied()?,
            "severity" => SYSLOG_SEVERITIES.get(usize::from(message.severity)).copied()?,
            "source" => return self.source.map(|address| address.to_string().into()),
            other => message.parameter(other.strip_prefix("sd.")?)?,
        };
        Some(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structured_data_is_found_by_id_and_parameter_though_ids_hold_dots() {
        let mut message = Message::of_text(b"x");
        message.structured = vec![
            Element { id: "a.b@1".into(), parameters: vec![("c".into(), "1".into())] },
            Element { id: "a".into(), parameters: vec![("b".into(), "2".into())] },
        ];
        let received = Received { message, source: Some([192, 0, 2, 1].into()) };
        assert_eq!(received.value("sd.a.b@1.c").as_deref(), Some("1"));
        assert_eq!(received.value("sd.a.b").as_deref(), Some("2"));
        assert_eq!(received.value("sd.a.c"), None);
        assert_eq!(received.value("source").as_deref(), Some("192.0.2.1"));
        assert_eq!(received.value("severity").as_deref(), Some("notice"));
        assert_eq!(received.value("facility").as_deref(), Some("user"));
        assert_eq!(received.value("host"), None);
        assert_eq!(received.value("nonsense"), None);
    }
}
