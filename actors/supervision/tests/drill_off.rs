//! Drills are off unless a node is started for them; alone in its process, as they stay on.

mod common;

use common::{Count, Log, counter, supervisor, virtual_time};
use supervision::{
    Strategy,
    drill::{self, DrillError, Fault},
};

#[test]
fn order_is_refused_while_drills_are_off() {
    virtual_time(async {
        let (a, a_ref) = counter("a", &Log::default());
        let tree = supervisor("node", Strategy::OneForOne).child(a).start();
        assert_eq!(drill::order("a", Fault::Panic), Err(DrillError::Off));
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(tree.tree().children[0].restarts, 0);
        tree.stop().await;
    });
}
