//! A heartbeat: how a node, its integrators and their platforms are (HBT, ACT-6). Outside sequence
//! and ledger; a newer one of the same source replaces an older one (`delivery.md` §7).
use serde::{Deserialize, Serialize};

use crate::{
    MessageId, RemoteId, VERSION,
    codec::{Malformed, Reader, Writer},
    limits,
    message::wire_enum,
    question::Said,
};

wire_enum! {
    /// Whether a link has a back-channel.
    Mode {
        /// It has one.
        Session = "session",
        /// It has none: mail, fax, file.
        Message = "message",
    }
}
wire_enum! {
    /// What an integrator says of itself and its platform.
    Condition {
        /// Works.
        Ok = "ok",
        /// Works in part.
        Degraded = "degraded",
        /// Does not work.
        Failed = "failed",
        /// Said nothing in time.
        Unknown = "unknown",
    }
}

/// The account of a node (`delivery.md` §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Commits into custody here.
    #[serde(rename = "in")]
    pub taken: u64,
    /// The parent, or every module, has them.
    pub delivered: u64,
    /// Time to live ran out.
    pub expired: u64,
    /// Made room.
    pub evicted: u64,
    /// Given up or set aside.
    pub refused: u64,
    /// Dropped or replaced by a module.
    pub consumed: u64,
    /// Held now.
    pub queued: u64,
    /// Outside the account: came again.
    pub duplicates: u64,
    /// Outside the account: refused at the door.
    pub turned_away: u64,
    /// Outside the account: before registration (PRX-13).
    pub dropped: u64,
}

impl Account {
    /// Whether every message is accounted for.
    pub fn balanced(&self) -> bool {
        self.taken
            == self.delivered
                + self.expired
                + self.evicted
                + self.refused
                + self.consumed
                + self.queued
    }
}

/// How full one precedence is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depth {
    /// Messages held.
    pub messages: u64,
    /// Their wire bytes.
    pub bytes: u64,
    /// Age of the oldest, ms; 0 when empty.
    pub oldest_age_ms: u64,
}

/// One integrator in a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegratorStatus {
    /// Its id.
    pub id: RemoteId,
    /// Whether it is connected.
    pub connected: bool,
    /// How its module is.
    pub module: Condition,
    /// How its platform is.
    pub platform: Condition,
    /// For people.
    pub text: String,
}

/// A reason that is a warning: the node speaks without encryption, by `node --insecure`.
pub const PLAIN_LINKS: &str = "plain_links";

/// Whether a reason is a warning: a node with no other is ready and delivers.
pub fn only_warns(reason: &str) -> bool {
    reason == PLAIN_LINKS
}

/// Reasons in one heartbeat, of each kind.
pub const REASONS_MAX: usize = 16;
/// Integrators in one heartbeat; more are left out.
pub const INTEGRATORS_MAX: usize = 64;
/// Back-channel numbers acknowledged in one heartbeat.
pub const DONE_MAX: usize = 128;

/// A heartbeat as its node wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Whose it is.
    pub node: RemoteId,
    /// Which life of its store; routes and status go by (epoch, order).
    pub epoch: u64,
    /// Number of the heartbeat, from 1 in an epoch.
    pub beat: u64,
    /// The origin's counter over all it says.
    pub order: u64,
    /// When, by its clock.
    pub at: i64,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub roles: Vec<String>,
    /// Version of its program.
    pub version: String,
    /// Whether its link up has a back-channel.
    pub mode: Mode,
    /// Its account.
    pub account: Account,
    /// Its queue up, by precedence.
    pub depths: [Depth; 3],
    /// Reasons why it is not delivering, as (name, detail).
    pub reasons: Vec<(String, String)>,
    /// Digest of its configuration.
    pub configuration: String,
    /// Back-channel messages it has acted on; repeated until the server's floor passes them.
    pub done: Vec<MessageId>,
    /// Its integrators.
    pub integrators: Vec<IntegratorStatus>,
    /// Nodes it passed on its way up, first first; appended by each.
    pub path: Vec<RemoteId>,
    /// What the node says to questions that are open; a newer heartbeat says it again.
    #[serde(default)]
    pub says: Vec<Said>,
    /// Why it takes no messages now, as (name, detail); empty: it is ready. None: it does not say.
    #[serde(default)]
    pub ready: Option<Vec<(String, String)>>,
    /// How many new messages its full queue rejected, of those turned away. None: it does not say.
    #[serde(default)]
    pub rejected: Option<u64>,
}

impl Account {
    fn write(&self, to: &mut Writer) {
        to.array(10).uint(self.taken).uint(self.delivered).uint(self.expired).uint(self.evicted);
        to.uint(self.refused).uint(self.consumed).uint(self.queued).uint(self.duplicates);
        to.uint(self.turned_away).uint(self.dropped);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array("account", 10, |i| {
            Ok(Self {
                taken: i.uint()?,
                delivered: i.uint()?,
                expired: i.uint()?,
                evicted: i.uint()?,
                refused: i.uint()?,
                consumed: i.uint()?,
                queued: i.uint()?,
                duplicates: i.uint()?,
                turned_away: i.uint()?,
                dropped: i.uint()?,
            })
        })
    }
}

impl Heartbeat {
    /// Writes it.
    pub fn write(&self, to: &mut Writer) {
        let known = match (&self.rejected, &self.ready, self.says.is_empty()) {
            (Some(_), ..) => 20,
            (None, Some(_), _) => 19,
            (None, None, false) => 18,
            (None, None, true) => 17,
        };
        to.array(known).uint(VERSION.into()).id(&self.node).uint(self.epoch).uint(self.beat);
        to.uint(self.order).int(self.at).text(&self.name);
        to.list(&self.roles, |to, r| {
            to.text(r);
        });
        to.text(&self.version).uint(self.mode as u64);
        self.account.write(to);
        to.list(&self.depths, |to, d| {
            to.array(3).uint(d.messages).uint(d.bytes).uint(d.oldest_age_ms);
        });
        to.list(&self.reasons, write_reason);
        to.text(&self.configuration);
        to.list(&self.done, |to, id| id.write(to));
        to.list(&self.integrators, |to, n| {
            to.array(5).id(&n.id).boolean(n.connected).uint(n.module as u64);
            to.uint(n.platform as u64).text(&n.text);
        });
        to.list(&self.path, |to, id| {
            to.id(id);
        });
        if known >= 18 {
            to.list(&self.says, |to, said| said.write(to));
        }
        match &self.ready {
            Some(ready) => {
                to.list(ready, write_reason);
            }
            None if known >= 19 => {
                to.nil();
            }
            None => {}
        }
        if let Some(rejected) = self.rejected {
            to.uint(rejected);
        }
    }

    /// Reads it.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        const NAME: usize = limits::NAME_BYTES_MAX;
        const WHAT: Malformed = Malformed("heartbeat");
        let word = |r: &mut Reader<'_>| r.text().map(str::to_owned).ok_or(WHAT);
        from.array("heartbeat", 17, |i| {
            if i.u8()? != VERSION {
                return Err(Malformed("heartbeat version"));
            }
            Ok(Self {
                node: i.id()?,
                epoch: i.uint()?,
                beat: i.uint()?,
                order: i.uint()?,
                at: i.int()?,
                name: i.text(NAME)?.to_owned(),
                roles: i.list(16, word)?,
                version: i.text(NAME)?.to_owned(),
                mode: i.one_of(Mode::from_number)?,
                account: i.nested(Account::read)?,
                depths: i.list(3, read_depth)?.try_into().map_err(|_| WHAT)?,
                reasons: i.list(REASONS_MAX, read_reason)?,
                configuration: i.text(NAME)?.to_owned(),
                done: i.list(DONE_MAX, MessageId::read)?,
                integrators: i.list(INTEGRATORS_MAX, read_integrator)?,
                path: i.list(limits::HOPS_MAX, |r| {
                    r.bin().and_then(|b| RemoteId::from_bytes(b).ok()).ok_or(WHAT)
                })?,
                says: match i.more() {
                    true => i.list(limits::QUESTIONS_MAX, Said::read)?,
                    false => Vec::new(),
                },
                ready: match i.more() {
                    true => i.optional(|i| i.list(REASONS_MAX, read_reason))?,
                    false => None,
                },
                rejected: match i.more() {
                    true => i.optional(|i| i.uint())?,
                    false => None,
                },
            })
        })
    }
}

fn write_reason(to: &mut Writer, (name, detail): &(String, String)) {
    to.array(2).text(name).text(detail);
}

fn read_reason(from: &mut Reader<'_>) -> Result<(String, String), Malformed> {
    from.array("reason", 2, |i| {
        let name = i.text(limits::NAME_BYTES_MAX)?.to_owned();
        Ok((name, i.text(limits::TEXT_BYTES_MAX)?.to_owned()))
    })
}

fn read_depth(from: &mut Reader<'_>) -> Result<Depth, Malformed> {
    from.array("depth", 3, |i| {
        Ok(Depth { messages: i.uint()?, bytes: i.uint()?, oldest_age_ms: i.uint()? })
    })
}

fn read_integrator(from: &mut Reader<'_>) -> Result<IntegratorStatus, Malformed> {
    from.array("integrator status", 5, |i| {
        Ok(IntegratorStatus {
            id: i.id()?,
            connected: i.boolean()?,
            module: i.one_of(Condition::from_number)?,
            platform: i.one_of(Condition::from_number)?,
            text: i.text(limits::TEXT_BYTES_MAX)?.to_owned(),
        })
    })
}
