//! What the customer allows, asked where it is about to happen (DESIGN §4.8).

/// Decides by the customer's policy. Asked for each message and each action; must not block.
/// Whoever implements it keeps the audit log.
pub trait Consent: Send + Sync {
    /// Whether a message of that class about that instance may be sent. `instance` is the
    /// platform's own name.
    fn may_send(&self, class: &str, subclass: &str, instance: &str) -> bool;

    /// Whether an action of that name may run at that instance.
    fn may_act(&self, action: &str, instance: &str) -> bool;
}

/// Without a policy: everything is sent, nothing is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPolicy;

impl Consent for NoPolicy {
    fn may_send(&self, _: &str, _: &str, _: &str) -> bool {
        true
    }

    fn may_act(&self, _: &str, _: &str) -> bool {
        false
    }
}
