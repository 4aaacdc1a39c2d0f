//! Reads any bytes as everything the protocol knows; shared with the fuzz targets.
use bytes::Bytes;
use protocol::{
    Header, Infrastructure, Message,
    codec::{Reader, Writer},
    ends::EndReport,
    exchange::{Answer, Exchange},
    heartbeat::Heartbeat,
    message::{Blocks, Messages},
    registration::{Registration, RegistrationAnswer},
    run::{Run, RunHeader},
    service::Service,
    socket::{Counters, Frame, Frames, Notice},
};

/// Every class of a service block, and one nobody knows.
pub const CLASSES: [&str; 11] = [
    "alarm",
    "event",
    "data",
    "registration",
    "registration-answer",
    "capabilities",
    "action",
    "action-answer",
    "notice",
    "removal",
    "unheard-of",
];

/// How many of the readers took the bytes. What one takes, it writes so that it is read as the
/// same again; anything else panics.
pub fn read(bytes: &[u8]) -> usize {
    message(bytes) + exchange(bytes) + parts(bytes) + frames(bytes)
}

/// As one message.
pub fn message(bytes: &[u8]) -> usize {
    let Ok(message) = Message::decode(bytes) else { return 0 };
    assert_eq!(Message::decode(&message.encode().0).as_ref(), Ok(&message));
    1
}

/// As an exchange and as an answer, with the runs they carry.
pub fn exchange(bytes: &[u8]) -> usize {
    let all = Bytes::copy_from_slice(bytes);
    let mut taken = 0;
    let mut runs = Vec::new();
    if let Ok(exchange) = Exchange::decode(&all) {
        assert_eq!(Exchange::decode(&exchange.encode()).as_ref(), Ok(&exchange));
        runs.extend(exchange.runs);
        taken += 1;
    }
    if let Ok(answer) = Answer::decode(&all) {
        assert_eq!(Answer::decode(&answer.encode()).as_ref(), Ok(&answer));
        runs.extend(answer.down);
        taken += 1;
    }
    if let Ok(run) = Run::read(&mut Reader::new(&all), &all) {
        runs.push(run);
        taken += 1;
    }
    runs.iter().for_each(walk);
    taken
}

/// What a node does with a run of somebody else's: count, check, leave out.
fn walk(run: &Run) {
    let numbers: Vec<u64> = run.header.numbers().collect();
    assert_eq!(numbers.len(), run.header.present() as usize);
    let _ = run.header.age_before_ms();
    for (message, number) in Messages::of(&run.messages).zip(numbers) {
        let Ok((range, blocks)) = message else { break };
        assert!(range.end <= run.messages.len());
        let _ = blocks.check(&run.header, number, 0);
    }
    if let Ok(Some(rest)) = run.without(|position| position % 3 == 0) {
        assert!(rest.header.present() <= run.header.present());
        assert!(rest.messages.len() <= run.messages.len());
    }
}

/// As each block and each thing that stands in an exchange.
pub fn parts(bytes: &[u8]) -> usize {
    let mut taken = usize::from(Blocks::take(&mut Reader::new(bytes)).is_ok());
    taken += usize::from(Header::read(bytes).is_ok());
    taken += usize::from(Infrastructure::read(bytes).is_ok());
    taken += usize::from(Registration::read(Reader::new(bytes)).is_ok());
    taken += usize::from(RegistrationAnswer::read(Reader::new(bytes)).is_ok());
    for class in CLASSES {
        let Ok(service) = Service::read(class, bytes) else { continue };
        let mut to = Writer::new();
        service.write(&mut to);
        assert_eq!(Service::read(class, &to.into_vec()).as_ref(), Ok(&service));
        taken += 1;
    }
    taken += again(bytes, RunHeader::read, RunHeader::write);
    taken += again(bytes, EndReport::read, EndReport::write);
    taken + again(bytes, Heartbeat::read, Heartbeat::write)
}

fn again<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&mut Reader<'_>) -> Result<T, protocol::codec::Malformed>,
    write: impl Fn(&T, &mut Writer),
) -> usize {
    let Ok(value) = read(&mut Reader::new(bytes)) else { return 0 };
    let mut to = Writer::new();
    write(&value, &mut to);
    assert_eq!(read(&mut Reader::new(&to.into_vec())).as_ref(), Ok(&value));
    1
}

/// As frames of the integrator socket.
pub fn frames(bytes: &[u8]) -> usize {
    let mut frames = Frames::new();
    frames.buffer().extend_from_slice(bytes);
    let mut taken = 0;
    while let Ok(Some(frame)) = frames.next_frame() {
        taken += 1;
        if let Frame::Notice { method, params } = frame {
            taken += usize::from(Notice::read(&method, &params).is_ok());
            taken += usize::from(Counters::read(&params).is_ok());
        }
    }
    taken
}
