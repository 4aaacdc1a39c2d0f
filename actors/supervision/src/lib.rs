//! Supervision trees with OTP semantics over actix actors: restart, back off, give up, escalate.
//!
//! | ended by | [`Exit`] | permanent | transient | temporary |
//! |---|---|---|---|---|
//! | own will or order | `Normal` | restart | — | — |
//! | [`Lifeline::fail`] | `Failed` | restart | restart | — |
//! | panic, also in the factory | `Panicked` | restart | restart | — |
//! | did not stop in time, or its thread is gone | `CutOff` | restart | restart | — |
//! | supervisor gave up | `Escalated` | restart | restart | — |
//!
//! ```
//! use std::time::Duration;
//!
//! use actix::{Actor, Context, Handler, Message};
//! use supervision::{Backoff, ChildSpec, Exit, Intensity, Strategy, Supervisor};
//!
//! #[derive(Message)]
//! #[rtype(result = "u32")]
//! struct Count;
//!
//! struct Counter(u32);
//!
//! impl Actor for Counter {
//!     type Context = Context<Self>;
//! }
//!
//! supervision::supervised!(Counter);
//!
//! impl Handler<Count> for Counter {
//!     type Result = u32;
//!
//!     fn handle(&mut self, _: Count, _: &mut Self::Context) -> u32 {
//!         self.0 += 1;
//!         self.0
//!     }
//! }
//!
//! actix::System::new().block_on(async {
//!     let answer_within = Duration::from_secs(10);
//!     let (child, counter) = ChildSpec::actor("counter", 16, answer_within, |_| Counter(0));
//!     let (ten, backoff) = (Intensity::a_minute(10), Backoff::default());
//!     let node = Supervisor::new("node", Strategy::OneForOne, ten, backoff).child(child).start();
//!     assert_eq!(counter.ask(Count).await, Ok(1));
//!     assert_eq!(node.stop().await, Exit::Normal);
//! });
//! ```
//!
//! A child may live on an arbiter of its own ([`ChildSpec::on_own_arbiter`]) and come and go at
//! run time ([`SupervisorRef`]). Tests may run on tokio's paused clock as long as no child has its
//! own arbiter: the clock jumps over deadlines while another thread works.
//!
//! Rules for authors of actors: no `ctx.cancel_future` in code that may panic after it (handle
//! numbers start again); a `ResponseFuture` runs outside the actor, so use `AtomicResponse` or
//! `ResponseActFuture`; nothing fallible in `stopping` and `stopped`.
#[cfg(not(panic = "unwind"))]
compile_error!("supervision restarts after a panic, so the build must unwind");

mod actor;
mod backoff;
mod child;
pub mod drill;
mod exit;
mod intensity;
mod reference;
mod report;
mod running;
mod supervisor;
mod tree;
pub mod watchdog;

pub use actor::Lifeline;
#[doc(hidden)]
pub use actor::next_instance;
pub use backoff::Backoff;
pub use child::{ChildSpec, Restart};
pub use exit::Exit;
pub use intensity::Intensity;
pub use reference::{ActorRef, AskError, Route};
pub use supervisor::{ChildrenError, Strategy, Supervisor, SupervisorHandle, SupervisorRef};
pub use tree::{Kind, State, TreeNode, tree};
