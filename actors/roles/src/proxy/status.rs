//! Asks the integrators how they are, for the heartbeat (HBT-4…6, ACT-6).
use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc, time::Duration};

use extension::storage::QueueStore;
use futures_util::future::join_all;
use protocol::{
    RemoteId,
    heartbeat::{Condition, INTEGRATORS_MAX, IntegratorStatus},
    socket::{Callback, CallbackError, StatusRequest},
};
use tokio::time::timeout;

use super::{identifiers::INTEGRATORS, switchboard::Switchboard};
use crate::delivery::{
    author::Author,
    heartbeat::{AskIntegrators, Integrators},
};

/// How long integrators have to say how they are (DESIGN §15).
pub const STATUS_WITHIN: Duration = Duration::from_secs(5);

/// Asks them all at once; who does not answer within the time is told as unknown, and delays
/// nobody.
pub fn ask_integrators(
    switchboard: Arc<Switchboard>,
    store: Arc<dyn QueueStore>,
    author: Author,
    within: Duration,
) -> AskIntegrators {
    let changes = switchboard.changes();
    let ask = Arc::new(move || {
        let (switchboard, store, author) = (switchboard.clone(), store.clone(), author.clone());
        Box::pin(async move {
            let connected = switchboard.names();
            let node = author.identity().id;
            let known = known(&*store, &connected);
            let asked = known.into_iter().filter_map(|(name, number)| {
                let id = node.child(number)?;
                let connected = connected.contains(&name);
                Some(ask(&switchboard, id, name, connected, within))
            });
            join_all(asked).await
        }) as Integrators
    });
    AskIntegrators { ask, changes }
}

/// Integrators with their numbers, the connected ones first.
fn known(store: &dyn QueueStore, connected: &BTreeSet<String>) -> Vec<(String, u32)> {
    let mut known = Vec::new();
    for name in connected.iter().take(INTEGRATORS_MAX) {
        // One that cannot be read is told with the next heartbeat.
        if let Ok(Some(row)) = store.row(INTEGRATORS, name.as_bytes())
            && let Ok(number) = row.as_ref().try_into()
        {
            known.push((name.clone(), u32::from_be_bytes(number)));
        }
    }
    let seen = store.rows(INTEGRATORS, &[], &[], &mut |key, value| {
        if known.len() >= INTEGRATORS_MAX {
            return ControlFlow::Break(());
        }
        if let (Ok(name), Ok(number)) = (std::str::from_utf8(key), value.try_into())
            && !connected.contains(name)
        {
            known.push((name.to_owned(), u32::from_be_bytes(number)));
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = seen {
        tracing::warn!(target: "proxy", %error, "integrators that are away are not told");
    }
    known
}

async fn ask(
    switchboard: &Switchboard,
    id: RemoteId,
    name: String,
    connected: bool,
    within: Duration,
) -> IntegratorStatus {
    let unknown = |text: &str| IntegratorStatus {
        id,
        connected,
        module: Condition::Unknown,
        platform: Condition::Unknown,
        text: text.to_owned(),
    };
    if !connected {
        return unknown("not connected");
    }
    let Some(callbacks) = switchboard.callbacks(&name, Callback::Status) else {
        return unknown("has no status callback");
    };
    let asked = async {
        let _leave = switchboard.leave.acquire().await;
        callbacks.status(StatusRequest { instances: false }).await
    };
    match timeout(within, asked).await {
        Ok(Ok(answer)) => IntegratorStatus {
            id,
            connected,
            module: answer.module.state,
            platform: answer.platform.state,
            text: join(&answer.module.text, &answer.platform.text),
        },
        Ok(Err(CallbackError::Failed(detail))) => {
            IntegratorStatus { module: Condition::Failed, ..unknown(&detail) }
        }
        Ok(Err(error)) => unknown(&error.to_string()),
        Err(_elapsed) => unknown("no answer in time"),
    }
}

fn join(module: &str, platform: &str) -> String {
    match (module, platform) {
        ("", text) | (text, "") => text.to_owned(),
        (module, platform) => format!("{module}; {platform}"),
    }
}
