//! Which queue a message on its way down goes to (pure, RTE, `delivery.md` §7).
use protocol::{
    MessageId, RemoteId,
    exchange::Sender,
    message::{Destination, Header},
};
use serde::{Deserialize, Serialize};

use super::orders::Identity;

/// Which child leads to an id, and by which word of it: the newest wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The child's id, in bytes.
    pub child: RemoteId,
    /// Its epoch, which names it while it has number 0.
    pub child_epoch: u64,
    /// Epoch of the one who taught this route.
    pub epoch: u64,
    /// Its order.
    pub order: u64,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// This node itself.
    Own,
    /// An integrator of this node, by its id.
    Local(RemoteId),
    /// A component below, by the key of its route.
    Below(Vec<u8>),
    /// Nobody can be meant by it.
    Nowhere,
}

/// Key of a component in the table of routes: its id, and its epoch while it has number 0.
pub fn key(id: &RemoteId, epoch: u64) -> Vec<u8> {
    let mut key = id.as_bytes().to_vec();
    if id.is_unregistered() {
        key.extend_from_slice(&epoch.to_be_bytes());
    }
    key
}

/// Name of the queue of a child.
pub fn down_queue(child: &Sender) -> String {
    match child.id.is_unregistered() {
        true => format!("down/{}/{:x}", child.id, child.epoch),
        false => format!("down/{}", child.id),
    }
}

/// Queues of a child: of its id, and of the number 0 it went by before it had one. What was on its
/// way then stands there.
pub fn down_queues(child: &Sender) -> Vec<String> {
    let nameless = child.id.cut(0).child(0).filter(|id| *id != child.id);
    let nameless = nameless.map(|id| down_queue(&Sender { id, epoch: child.epoch }));
    [Some(down_queue(child)), nameless].into_iter().flatten().collect()
}

/// Decides by the header alone (DAT-3).
pub fn way(header: &Header, own: Identity) -> Way {
    let Some(Destination::Id(to)) = &header.destination else {
        return Way::Nowhere;
    };
    // Who has number 0 is told apart by the epoch of the message that is answered.
    let epoch = header.answers.map_or(0, |MessageId { epoch, .. }| epoch);
    let component = to.cut(1);
    if to.levels() == 0 {
        return Way::Nowhere;
    }
    let answers_own =
        component.is_unregistered() && epoch == own.epoch && component.cut(0) == own.id.cut(0);
    if answers_own || (component == own.id.cut(1) && !component.is_unregistered()) {
        return match to.levels() {
            1 => Way::Own,
            _ => Way::Local(to.cut(2)),
        };
    }
    Way::Below(key(&component, epoch))
}

/// Whether what (epoch, order) teaches is newer than the route there is.
pub fn is_newer(route: Option<&Route>, epoch: u64, order: u64) -> bool {
    route.is_none_or(|r| (r.epoch, r.order) < (epoch, order))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod tests {
    use protocol::{
        Infrastructure, Message, Precedence,
        message::{Channel, Classification, Messages, Persistence, SourceType},
        service::{Action, Service},
    };
    use uuid::Uuid;

    use super::*;

    // DAT-3: the header's own bytes are all that the way is decided by.
    #[test]
    fn header_alone_says_where_a_message_goes() {
        let customer = RemoteId::customer(Uuid::from_u128(7));
        let node = |number| customer.child(number).unwrap();
        let own = Identity { id: node(1), epoch: 5 };
        let to = node(2).child(1).unwrap().child(3).unwrap();
        let header = Header {
            id: MessageId {
                origin: node(9),
                epoch: 1,
                precedence: Precedence::Urgent,
                sequence: 4,
            },
            order: 4,
            source: node(9),
            source_type: SourceType::AppServer,
            destination: Some(Destination::Id(to)),
            channel: Channel::Back,
            answers: None,
            class: "action".to_owned(),
            subclass: String::new(),
            occurred_at: 0,
            accepted_at: 0,
            persistence: Persistence::Normal,
            time_to_live_s: None,
            traceparent: None,
        };
        let infrastructure = Infrastructure {
            classification: Classification::InfrastructureAdministration,
            customer,
            group: String::new(),
            integrator: String::new(),
            integrator_version: String::new(),
            instance: None,
            external_id: String::new(),
        };
        let service = Service::Action(Action {
            action_id: "1".to_owned(),
            name: "restart".to_owned(),
            xml: "<a/>".repeat(9),
        });
        let mut bytes = Message { header, infrastructure, service }.encode().0;
        let body = bytes.len() - 20;
        bytes[body..].fill(0xc1);
        let (_, blocks) = Messages::of(&bytes).next().unwrap().unwrap();
        assert!(blocks.decode().is_err(), "the body cannot be read");
        let read = Header::read(blocks.header).unwrap();
        assert_eq!(way(&read, own), Way::Below(key(&node(2), 0)));
        assert_eq!(way(&Header { destination: None, ..read }, own), Way::Nowhere);
    }
}
