//! Asks nodes on behalf of API and portal: whom, and how long for an answer.
use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use extension::records::{
    Answer, FromNodes, Ledger, LedgerFilter, Page, Paging, RecordsError, WAIT_S_MAX,
};
use protocol::{
    MessageId, RemoteId, heartbeat::Mode, limits::QUESTION_TARGETS_MAX, question::Question,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    asking::Round,
    query::{AppRecords, Desk, failed, unasked},
    query_directory::INTERVAL_MS,
    rows::{NODES, NodeRow, from_row},
};
use crate::delivery::orders::{Ask, AskFigures};

/// A role whose nodes hold the messages of others, too.
const PROXY: &str = "proxy";

/// Whom a question goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whom {
    /// Everybody who is meant.
    pub nodes: BTreeSet<RemoteId>,
    /// Of them those that can be reached now: they are waited for.
    pub awaited: BTreeSet<RemoteId>,
}

impl Whom {
    /// The ids that name them in a question: each of a few, and for many what they share, which
    /// then asks others, too.
    fn named(&self) -> Vec<RemoteId> {
        if self.nodes.len() <= QUESTION_TARGETS_MAX {
            return self.nodes.iter().copied().collect();
        }
        let customers: BTreeSet<RemoteId> = self.nodes.iter().map(|node| node.cut(0)).collect();
        match customers.len() <= QUESTION_TARGETS_MAX {
            true => customers.into_iter().collect(),
            false => Vec::new(),
        }
    }
}

impl Desk {
    /// Whether a node can be reached now, as far as is known: it was heard of late, or came just
    /// now, and has a back-channel.
    fn is_reachable(&self, id: &RemoteId) -> Answer<bool> {
        let row: Option<NodeRow> = self.value(NODES, id.as_bytes())?;
        let Some(row) = row.filter(|row| row.removed_at.is_none()) else { return Ok(false) };
        Ok(match self.beat(id)? {
            Some((status, beat)) => {
                beat.mode == Mode::Session && !self.is_silent(&status, beat.mode)
            }
            None => self.now() - row.registered_at < INTERVAL_MS.0,
        })
    }

    /// Whom of these can be reached.
    pub(crate) fn whom(&self, nodes: impl IntoIterator<Item = RemoteId>) -> Answer<Whom> {
        let own = self.identity().id;
        let mut whom = Whom::default();
        for node in nodes.into_iter().filter(|node| *node != own) {
            whom.nodes.insert(node);
            if self.is_reachable(&node)? {
                whom.awaited.insert(node);
            }
        }
        Ok(whom)
    }

    /// Who may hold a message of that component: itself, the nodes it is known to come by, and
    /// those of its customer or the provider's that hold messages of others.
    pub(crate) fn who_may_hold(&self, component: &RemoteId) -> Answer<Whom> {
        let (own, component) = (self.identity().id, component.cut(1));
        if self.row(NODES, component.as_bytes())?.is_none() {
            return Ok(Whom::default());
        }
        let mut nodes = BTreeSet::from([component]);
        nodes.extend(self.beat(&component)?.map(|(_, beat)| beat.path).unwrap_or_default());
        for customer in BTreeSet::from([component.cut(0), own.cut(0)]) {
            let visit = &mut |key: &[u8], value: &[u8]| {
                let row = from_row::<NodeRow>(value).filter(|row| row.removed_at.is_none());
                if row.is_some_and(|row| row.roles.iter().any(|role| role != PROXY)) {
                    nodes.extend(RemoteId::from_bytes(key));
                }
                match nodes.len() < QUESTION_TARGETS_MAX {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            };
            self.store.rows(NODES, customer.as_bytes(), &[], visit).map_err(failed)?;
        }
        self.whom(nodes)
    }
}

impl AppRecords {
    /// Asks nodes; ends when somebody has the message it is about, when all that can be reached
    /// have spoken, or at `until`.
    pub(crate) async fn ask_nodes(
        &self,
        whom: &Whom,
        about: Option<MessageId>,
        until: Instant,
    ) -> Answer<Round> {
        let wait = until.saturating_duration_since(Instant::now());
        if whom.nodes.is_empty() || wait.is_zero() {
            return Ok(Round::default());
        }
        let id = Uuid::now_v7().as_u128() as u64;
        let asked = self.desk.asking.begin(id, whom.awaited.clone());
        let mut asked = asked.ok_or(RecordsError::Busy)?;
        let wait_ms = wait.as_millis() as u64;
        let question = Question { id, wait_ms, to: whom.named(), about };
        self.desk.ask.ask(Ask(question)).await.map_err(unasked)?;
        loop {
            let round = asked.round();
            if round.awaited.is_empty() || round.found().is_some() {
                return Ok(round);
            }
            if tokio::time::timeout_at(until, asked.changed()).await.is_err() {
                return Ok(asked.round());
            }
        }
    }

    /// The accounts of nodes; for `wait_s` above 0 the nodes are asked.
    pub(crate) async fn ledger_of_nodes(
        &self,
        filter: &LedgerFilter,
        paging: &Paging,
        wait_s: u64,
    ) -> Answer<FromNodes<Page<Ledger>>> {
        let (wanted, which) = (filter.clone(), paging.clone());
        let (page, whom) = self
            .read(move |desk| {
                let (page, nodes) = desk.ledger(&wanted, &which)?;
                Ok((page, desk.whom(nodes)?))
            })
            .await?;
        if wait_s == 0 {
            return Ok(FromNodes::of_records(page));
        }
        let until = Instant::now() + Duration::from_secs(wait_s.min(WAIT_S_MAX));
        let round = self.ask_nodes(&whom, None, until).await?;
        let figures = self.desk.figures.ask(AskFigures).await.map_err(unasked)?;
        self.desk.own.set(self.desk.now(), figures);
        let (filter, paging) = (filter.clone(), paging.clone());
        let (page, _) = self.read(move |desk| desk.ledger(&filter, &paging)).await?;
        let unanswered = whom.nodes.into_iter().filter(|node| !round.said.contains_key(node));
        Ok(FromNodes { answer: page, unanswered: Some(unanswered.collect()), stands: None })
    }
}
