//! Whether the values of a call are within the definitions (DAT-8). Pure; both ends ask.
use super::{Call, CallError, fields::fits};
use crate::{
    limits::{
        CLOCK_TOLERANCE_MS, DATA_BYTES_MAX, NAME_BYTES_MAX, ONCE_BYTES_MAX, REGISTRATION_BYTES_MAX,
        TEXT_BYTES_MAX,
    },
    media::is_media_type,
    registration::INSTANCES_MAX,
};

/// What an instance takes in a registration beside its name, bytes: array, id, heads, nil.
const INSTANCE_BYTES: usize = 36;

impl Call {
    /// Sizes and what must not be empty. The proxy refuses the same calls with the same words, so
    /// a client that asks first spares the trip.
    pub fn check(&self) -> Result<(), CallError> {
        if let Some(instance) = self.instance() {
            not_empty("instance", instance)?;
        }
        if let Some(once) = self.once() {
            fits("once", once.len(), ONCE_BYTES_MAX)?;
            if once.is_empty() {
                return Err(CallError::malformed("once is empty"));
            }
        }
        match self {
            Self::Instance(c) => {
                let length = c.capabilities.as_ref().map_or(0, String::len);
                fits("capabilities", length, DATA_BYTES_MAX)
            }
            Self::Instances(c) => instances(&c.instances),
            Self::Remove(_) => Ok(()),
            Self::Alarm(c) => {
                name("type", &c.kind)?;
                fits("text", c.text.len(), TEXT_BYTES_MAX)?;
                name("key", &c.key)?;
                payload(&c.data, &c.encoding)
            }
            Self::Event(c) => {
                name("type", &c.kind)?;
                name("event_id", &c.event_id)?;
                fits("text", c.text.len(), TEXT_BYTES_MAX)?;
                payload(&c.data, &c.encoding)
            }
            Self::Data(c) => {
                not_empty("class", &c.class)?;
                name("subclass", &c.subclass)?;
                payload(&c.data, &c.encoding)
            }
            Self::Capabilities(c) => fits("capabilities", c.capabilities.len(), DATA_BYTES_MAX),
        }
    }

    /// Whether it happened within ten years of `now_ms` (ms since 1970 UTC): every node above
    /// refuses what is further off, so the door does it while somebody listens.
    pub fn check_time(&self, now_ms: i64) -> Result<(), CallError> {
        let at = match self {
            Self::Alarm(c) => c.occurred_at_ms,
            Self::Event(c) => c.occurred_at_ms,
            _ => return Ok(()),
        };
        if now_ms.abs_diff(at) <= CLOCK_TOLERANCE_MS.unsigned_abs() {
            return Ok(());
        }
        let detail = format!("occurred_at_ms is {at}; at most ten years from now");
        Err(CallError::malformed(detail))
    }
}

fn not_empty(key: &str, value: &str) -> Result<(), CallError> {
    if value.is_empty() {
        return Err(CallError::malformed(format!("{key} is empty")));
    }
    name(key, value)
}

/// A name, type, key or id is shown, compared and asked for: a character that cannot be seen makes
/// two of them look alike, so none stands in it. In a text it may.
fn name(key: &str, value: &str) -> Result<(), CallError> {
    fits(key, value.len(), NAME_BYTES_MAX)?;
    match value.contains(char::is_control) {
        true => Err(CallError::malformed(format!("{key} has a control character"))),
        false => Ok(()),
    }
}

fn payload(data: &[u8], encoding: &str) -> Result<(), CallError> {
    fits("data", data.len(), DATA_BYTES_MAX)?;
    fits("encoding", encoding.len(), NAME_BYTES_MAX)?;
    match encoding.is_empty() || is_media_type(encoding) {
        true => Ok(()),
        false => {
            let detail = format!("encoding is {encoding:?}, not a media type such as text/plain");
            Err(CallError::malformed(detail))
        }
    }
}

fn instances(names: &[String]) -> Result<(), CallError> {
    if names.len() > INSTANCES_MAX {
        let detail = format!("instances has {} items; at most {INSTANCES_MAX}", names.len());
        return Err(CallError::too_large(detail));
    }
    for name in names {
        not_empty("instances", name)?;
    }
    let bytes = names.iter().map(|n| n.len() + INSTANCE_BYTES).sum();
    fits("instances", bytes, REGISTRATION_BYTES_MAX - 16)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        Refusal,
        service::Severity,
        socket::{AlarmCall, DataCall, InstancesCall, Map},
    };

    fn alarm() -> AlarmCall {
        AlarmCall::new("press-1", 1, "oil", Severity::Major, "low")
    }

    // DAT-8
    #[test]
    fn values_outside_the_definitions_are_parameter_errors() {
        let map = || Map::new().text("instance", "a").int("occurred_at_ms", 1).text("type", "t");
        let refused = |method: &str, map: Map| {
            let error = Call::read(method, &map.into_bytes()).unwrap_err();
            (error.code, error.errno, error.detail)
        };
        let (code, errno, detail) =
            refused("alarm", map().text("severity", "bad").text("text", ""));
        assert_eq!((code, errno), (-1, Some(22)));
        assert!(detail.starts_with("severity is \"bad\"; one of unknown other"), "{detail}");
        let data = Map::new().text("instance", "a").text("subclass", "").bin("data", b"");
        let none = refused("data", data.text("encoding", ""));
        assert_eq!(none, (-1, Some(22), "class is missing".into()));
        let state = map().text("severity", "major").text("text", "").text("state", "gone");
        assert!(refused("alarm", state).2.starts_with("state is \"gone\"; one of opened"));
        let qos = Map::new().text("precedence", "now");
        let qos = map().text("severity", "major").text("text", "").map("qos", qos);
        assert!(refused("alarm", qos).2.starts_with("precedence is \"now\"; one of urgent"));
        let late = Map::new().text("instance", "a").text("occurred_at_ms", "noon");
        let late = refused("event", late.text("type", "t"));
        assert_eq!(late.2, "occurred_at_ms is not a whole number that fits");
    }

    #[test]
    fn sizes_are_refused_with_emsgsize() {
        let long = |n: usize| "x".repeat(n);
        let calls = [
            Call::Alarm(AlarmCall { instance: long(257), ..alarm() }),
            Call::Alarm(AlarmCall { kind: long(257), ..alarm() }),
            Call::Alarm(AlarmCall { key: long(257), ..alarm() }),
            Call::Alarm(AlarmCall { text: long(1025), ..alarm() }),
            Call::Alarm(AlarmCall { data: vec![0; 262_145].into(), ..alarm() }),
            Call::Instances(InstancesCall { instances: vec![long(256); 3000] }),
        ];
        for call in calls {
            let error = call.check().unwrap_err();
            assert_eq!((error.name, error.errno), (Refusal::TooLarge, Some(90)), "{error}");
            let read = Call::read(call.method(), &call.map().into_bytes()).unwrap_err();
            assert_eq!(read, error, "both ends say the same");
        }
    }

    #[test]
    fn names_hold_no_control_characters_and_texts_may() {
        let odd = || "a\u{0}b".to_owned();
        let calls = [
            Call::Alarm(AlarmCall { instance: odd(), ..alarm() }),
            Call::Alarm(AlarmCall { kind: odd(), ..alarm() }),
            Call::Alarm(AlarmCall { key: "a\nb".into(), ..alarm() }),
            Call::Alarm(AlarmCall { encoding: "bad mime".into(), ..alarm() }),
            Call::Instances(InstancesCall { instances: vec![odd()] }),
        ];
        for call in calls {
            let error = call.check().unwrap_err();
            assert_eq!((error.name, error.errno), (Refusal::Malformed, Some(22)), "{error}");
        }
        Call::Alarm(AlarmCall { text: "two\nlines".into(), ..alarm() }).check().unwrap();
    }

    #[test]
    fn ten_thousand_instances_are_one_call() {
        let instances = (0..10_000).map(|n| format!("device-{n:05}")).collect();
        Call::Instances(InstancesCall { instances }).check().unwrap();
    }

    #[test]
    fn what_is_empty_and_must_not_be_is_named() {
        let error = Call::Data(DataCall { instance: "a".into(), ..DataCall::default() }).check();
        assert_eq!(error.unwrap_err().detail, "class is empty");
        let error = Call::Alarm(AlarmCall { instance: String::new(), ..alarm() }).check();
        assert_eq!(error.unwrap_err().detail, "instance is empty");
    }

    #[test]
    fn text_that_is_not_utf_8_is_ebadmsg() {
        let mut map = vec![0x81, 0xa8];
        map.extend_from_slice(b"instance\xa2\xff\xfe");
        let error = Call::read("remove", &map.into()).unwrap_err();
        assert_eq!((error.code, error.errno), (-1, Some(74)));
        assert_eq!(error.detail, "instance is not UTF-8");
    }

    #[test]
    fn a_time_ten_years_off_is_refused_at_the_door() {
        let now = 1_795_348_800_000;
        let at = |occurred_at_ms| Call::Alarm(AlarmCall { occurred_at_ms, ..alarm() });
        assert!(at(now).check_time(now).is_ok());
        assert!(at(now - 9 * 365 * 86_400_000).check_time(now).is_ok());
        assert!(at(0).check_time(now).is_err());
        assert!(at(i64::MIN).check_time(now).is_err());
    }
}
