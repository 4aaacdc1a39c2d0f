//! What a server says beside an answer for which it asked nodes: who said nothing, where a message
//! stands.
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{client::Client, table::plain};

/// Nodes that are named in a remark; more are counted.
const NAMED_MAX: usize = 5;

/// The headers of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Nodes that were asked and said nothing in time; none: nobody was asked.
    pub unanswered_count: Option<usize>,
    /// Their ids, as far as they are named.
    pub unanswered: Vec<String>,
    /// The queue a message stands in.
    pub queue: Option<String>,
    /// Tries of its node's link that failed, in a row.
    pub attempts: Option<u32>,
}

impl Beside {
    /// Reads them; what is not there was not said.
    pub fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(plain(value))
        };
        let ids = text("callhome-unanswered").unwrap_or_default();
        Self {
            unanswered_count: text("callhome-unanswered-count").and_then(|n| n.parse().ok()),
            unanswered: ids.split(", ").filter(|id| !id.is_empty()).map(str::to_owned).collect(),
            queue: text("callhome-queue"),
            attempts: text("callhome-attempts").and_then(|n| n.parse().ok()),
        }
    }

    /// Who said nothing, by name where the server tells it; none: all did, or nobody was asked.
    pub async fn silent(&self, client: &Client) -> Option<String> {
        let count = self.unanswered_count.filter(|count| *count > 0)?;
        let mut names = Vec::new();
        for id in self.unanswered.iter().take(NAMED_MAX) {
            let path = format!("/api/v1/nodes/{}", id.replace('/', "."));
            let node = client.get(&path, &[]).await.unwrap_or(Value::Null);
            names.push(node["node"].as_str().map_or_else(|| id.clone(), plain));
        }
        let more = count.saturating_sub(names.len());
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!("{}{rest}", names.join(", ")))
    }
}
