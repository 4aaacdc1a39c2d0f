//! Turns calls into messages in the canonical form (pure, DAT-5, DAT-9, DAT-12).
//!
//! What a platform calls things is carried through: types, keys, event ids and names of instances
//! (API-16). Everything that is not the platform's own word has one form: texts are one line,
//! MIME types are lower case, severities are CIM's, times are UTC.
use bytes::Bytes;
use protocol::{
    RemoteId,
    message::{Classification, Persistence, SourceType},
    registration::{InstanceRegistration, Registration},
    service::{Alarm, Capabilities, Data, Event, Payload, Removal, Service},
    socket::Call,
};

use crate::delivery::author::Draft;

/// What a payload without a type is said to be.
const ANY_BYTES: &str = "application/octet-stream";
/// MIME type of capabilities documents.
const XML: &str = "application/xml";

/// What all messages of one integrator have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrator {
    /// Its id.
    pub id: RemoteId,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Integrator {
    /// A draft about the integrator, or about one of its instances by id and external name.
    pub fn draft<'a>(&'a self, instance: Option<(RemoteId, &'a str)>) -> Draft<'a> {
        let source = match instance {
            Some((id, _)) => (id, SourceType::Instance),
            None => (self.id, SourceType::Integrator),
        };
        Draft {
            source: Some(source),
            integrator: (&self.name, &self.version),
            external_id: instance.map(|(_, name)| name).unwrap_or_default(),
            ..Draft::default()
        }
    }

    /// The draft and the service block of a call that sends something; none for the others.
    pub fn normalize<'a>(
        &'a self,
        call: Call,
        instance: Option<(RemoteId, &'a str)>,
    ) -> Option<(Draft<'a>, Service)> {
        let precedence = call.precedence();
        let draft = Draft { precedence, ..self.draft(instance) };
        Some(match call {
            Call::Alarm(c) => {
                let draft = Draft {
                    classification: Classification::Monitoring,
                    persistence: c.qos.persistence,
                    time_to_live_s: c.qos.time_to_live_s,
                    answers: c.answers,
                    occurred_at: Some(c.occurred_at_ms),
                    ..draft
                };
                let alarm = Alarm {
                    kind: c.kind,
                    key: c.key,
                    severity: c.severity,
                    text: one_line(c.text),
                    state: c.state,
                    close_after_s: c.close_after_s,
                    payload: payload(c.data, c.encoding),
                };
                (draft, Service::Alarm(alarm))
            }
            Call::Event(c) => {
                let draft = Draft {
                    classification: Classification::Monitoring,
                    persistence: c.qos.persistence,
                    time_to_live_s: c.qos.time_to_live_s,
                    answers: c.answers,
                    occurred_at: Some(c.occurred_at_ms),
                    ..draft
                };
                let event = Event {
                    kind: c.kind,
                    event_id: c.event_id,
                    severity: c.severity,
                    state: c.state,
                    text: one_line(c.text),
                    payload: payload(c.data, c.encoding),
                };
                (draft, Service::Event(event))
            }
            Call::Data(c) => {
                let draft = Draft {
                    classification: Classification::DataCollection,
                    subclass: subclass_of(&c.class, &c.subclass),
                    persistence: c.qos.persistence,
                    time_to_live_s: c.qos.time_to_live_s,
                    answers: c.answers,
                    ..draft
                };
                let payload = payload(c.data, c.encoding);
                (draft, Service::Data(Data { kind: c.class, subtype: c.subclass, payload }))
            }
            Call::Capabilities(c) => {
                let draft = Draft { persistence: Persistence::Normal, answers: c.answers, ..draft };
                let payload = payload(c.capabilities.into(), XML.to_owned());
                (draft, Service::Capabilities(Capabilities { payload }))
            }
            Call::Instance(_) | Call::Instances(_) | Call::Remove(_) => return None,
        })
    }

    /// A registration of instances of this integrator, one message (API-9, PRX-31).
    pub fn registration(&self, instances: Vec<InstanceRegistration>) -> (Draft<'_>, Service) {
        (self.draft(None), Service::Registration(Registration::Instances(instances)))
    }

    /// That an instance is no more (API-10).
    pub fn removal<'a>(&'a self, subject: RemoteId, name: &'a str) -> (Draft<'a>, Service) {
        (self.draft(Some((subject, name))), Service::Removal(Removal { subject }))
    }
}

/// Control characters are not for lists and pages: each run of them is one space.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) && text.trim().len() == text.len() {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for part in text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(part);
    }
    line
}

/// What subscribers of data match: its class, and finer where there is a subclass (DAT-15).
fn subclass_of(class: &str, subclass: &str) -> String {
    match (class, subclass) {
        (class, "") => class.to_owned(),
        ("", subclass) => subclass.to_owned(),
        (class, subclass) => format!("{class}/{subclass}"),
    }
}

fn payload(data: Bytes, encoding: String) -> Payload {
    if data.is_empty() && encoding.trim().is_empty() {
        return Payload::default();
    }
    let is_plain = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b';';
    if !encoding.is_empty() && encoding.bytes().all(is_plain) {
        return Payload { encoding, data };
    }
    // Type and subtype are case-insensitive (RFC 2045 §5.1); parameters need not be.
    let encoding = encoding.trim();
    let (kind, parameters) = encoding.split_at(encoding.find(';').unwrap_or(encoding.len()));
    let encoding = match kind.trim() {
        "" => ANY_BYTES.to_owned(),
        kind => format!("{}{parameters}", kind.to_ascii_lowercase()),
    };
    Payload { encoding, data }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{
        Precedence,
        service::{Severity, State},
        socket::{AlarmCall, DataCall, EventCall, Qos},
    };

    use super::*;

    fn integrator() -> Integrator {
        let id = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3/1".parse().unwrap();
        Integrator { id, name: "snmp".into(), version: "1.2".into() }
    }

    fn normalized(call: Call) -> (Draft<'static>, Service) {
        let of: &'static Integrator = Box::leak(Box::new(integrator()));
        of.normalize(call, Some((of.id.child(17).unwrap(), "192.0.2.7"))).unwrap()
    }

    // DAT-9
    #[test]
    fn only_the_payload_keeps_the_platforms_form() {
        let call = AlarmCall {
            key: "eth0".into(),
            data: Bytes::from_static(b"\x30\x82native"),
            encoding: "Application/SNMP; Version=2c".into(),
            ..AlarmCall::new("192.0.2.7", 99, "1.3.6.1.4", Severity::Major, "link\r\n\tdown\0")
        };
        let (draft, service) = normalized(Call::Alarm(call));
        let Service::Alarm(alarm) = service else { panic!("{service:?}") };
        assert_eq!((alarm.kind.as_str(), alarm.key.as_str()), ("1.3.6.1.4", "eth0"));
        assert_eq!((alarm.text.as_str(), alarm.severity), ("link down", Severity::Major));
        assert_eq!(alarm.payload.encoding, "application/snmp; Version=2c");
        assert_eq!(&alarm.payload.data[..], b"\x30\x82native");
        assert_eq!(draft.occurred_at, Some(99));
        assert_eq!(draft.classification, Classification::Monitoring);
        assert_eq!(draft.integrator, ("snmp", "1.2"));
        assert_eq!(draft.external_id, "192.0.2.7");
        assert_eq!(draft.source.unwrap().1, SourceType::Instance);
    }

    // DAT-15: each of the small types can be listened to by the header alone.
    #[test]
    fn data_is_found_by_its_class_and_subclass_in_the_header() {
        let call = DataCall {
            class: "inventory".into(),
            subclass: "packages".into(),
            data: Bytes::from_static(b"{}"),
            ..DataCall::default()
        };
        let (draft, service) = normalized(Call::Data(call));
        assert_eq!((service.class(), draft.subclass.as_str()), ("data", "inventory/packages"));
        assert_eq!(draft.classification, Classification::DataCollection);
        let Service::Data(data) = service else { panic!("{service:?}") };
        assert_eq!((data.kind.as_str(), data.subtype.as_str()), ("inventory", "packages"));
        assert_eq!(data.payload.encoding, ANY_BYTES);
    }

    #[test]
    fn fatal_and_critical_alarms_are_urgent_unless_the_call_says_otherwise() {
        let alarm = |severity, precedence| {
            let qos = Qos { precedence, ..Qos::default() };
            let call = AlarmCall { qos, ..AlarmCall::new("a", 1, "t", severity, "") };
            normalized(Call::Alarm(call)).0.precedence
        };
        assert_eq!(alarm(Severity::Critical, None), Precedence::Urgent);
        assert_eq!(alarm(Severity::Major, None), Precedence::Normal);
        assert_eq!(alarm(Severity::Fatal, Some(Precedence::Bulk)), Precedence::Bulk);
        let event =
            EventCall { state: State::Closed, ..EventCall::new("a", 1, "t", Severity::Fatal, "") };
        assert_eq!(normalized(Call::Event(event)).0.precedence, Precedence::Normal);
    }

    #[test]
    fn what_concerns_the_integrator_itself_has_no_instance() {
        let call = AlarmCall::new("IntegrationModule", 1, "t", Severity::Minor, "");
        let of = integrator();
        let (draft, _) = of.normalize(Call::Alarm(call), None).unwrap();
        assert_eq!(draft.source, Some((integrator().id, SourceType::Integrator)));
        assert_eq!(draft.external_id, "");
    }
}
