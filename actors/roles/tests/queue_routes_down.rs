//! Which child a message on its way down is handed to, by what the disk of a real node learned.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod disk;
mod sandbox;

use disk::{Like, Node, exchange, run, total};
use protocol::{
    Message,
    Precedence::Normal,
    RemoteId,
    exchange::Sender,
    heartbeat::{Account, Depth, Heartbeat, Mode},
    message::{Channel, Destination, Persistence},
};
use roles::delivery::{
    orders::{DownFor, Take, TakeDown},
    router::{self, Route},
    state::ROUTES,
};
use sandbox::id;

const ROOM: u64 = 1 << 20;

fn beat(of: RemoteId, epoch: u64, order: u64) -> Heartbeat {
    Heartbeat {
        node: of,
        epoch,
        beat: order,
        order,
        at: 0,
        name: String::new(),
        roles: vec![],
        version: String::new(),
        mode: Mode::Session,
        account: Account::default(),
        depths: [Depth::default(); 3],
        reasons: vec![],
        configuration: String::new(),
        done: vec![],
        integrators: vec![],
        path: vec![],
        says: vec![],
        ready: None,
        rejected: None,
    }
}

/// A heartbeat that comes by a child.
async fn heard(node: &Node, child: Sender, beat: Heartbeat) {
    let message = node.message(400, Like(Normal, Persistence::Normal, None));
    let mut exchange = exchange(1, 1, 1, &message);
    (exchange.number, exchange.sender) = (0, child);
    exchange.runs.clear();
    let take = Take { exchange, checked: vec![], beats: vec![beat] };
    node.delivery.queue.ask(take).await.unwrap().unwrap();
}

/// Messages that a child is handed when something comes for `to`.
async fn handed(node: &Node, to: RemoteId, number: u64, child: Sender) -> usize {
    let mut message: Message = node.message(400, Like(Normal, Persistence::Normal, None));
    message.header.channel = Channel::Back;
    message.header.destination = Some(Destination::Id(to));
    let runs = exchange(1, number, 1, &message).runs;
    node.delivery.queue.ask(TakeDown(runs)).await.unwrap().unwrap();
    node.delivery.queue.ask(DownFor(child)).await.unwrap().unwrap().runs.len()
}

// delivery.md §7: the newest (epoch, order) wins, on disk, whatever way it came.
#[test]
fn an_older_life_does_not_take_a_route_away() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(ROOM));
        let (a, b) = (Sender { id: id(21), epoch: 1 }, Sender { id: id(22), epoch: 1 });
        let proxy = id(30);
        heard(&node, a, beat(proxy, 5, 10)).await;
        heard(&node, b, beat(proxy, 4, 99)).await;
        heard(&node, b, beat(proxy, 5, 10)).await;
        heard(&node, b, beat(proxy, 5, 9)).await;
        assert_eq!((handed(&node, proxy, 1, b).await, handed(&node, proxy, 2, a).await), (0, 2));
        let row = node.store.row(ROUTES, &router::key(&proxy, 0)).unwrap().unwrap();
        let route: Route = rmp_serde::from_slice(&row).unwrap();
        assert_eq!((route.child, route.epoch), (a.id, 5));
        // A newer word moves it, and a restart knows that.
        heard(&node, b, beat(proxy, 5, 11)).await;
        node.stop().await;
        let (node, _) = Node::open(folder.path(), total(ROOM));
        heard(&node, a, beat(proxy, 4, 100)).await;
        assert_eq!(handed(&node, proxy, 3, b).await, 1);
        node.stop().await;
    });
}
