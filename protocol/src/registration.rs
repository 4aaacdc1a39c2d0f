//! Registrations and what answers them: of nodes, integrators and instances (IDM-3, IDM-4, PRX).
use serde::{Deserialize, Serialize};

use crate::{
    RemoteId, VERSION,
    codec::{Malformed, Reader, Writer},
    limits,
};

/// Instances in one registration; with names of 256 bytes they fill `REGISTRATION_BYTES_MAX`.
pub const INSTANCES_MAX: usize = 16_384;
/// Roles of a node, callbacks of an integrator.
const WORDS_MAX: usize = 16;

/// Who is there. Nothing overtakes its own registration: it is urgent (DESIGN §7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "subject", rename_all = "snake_case")]
pub enum Registration {
    /// A node: the application server allots its id by (customer, name, nonce) (DESIGN §15).
    Node {
        /// Its name, unique within the customer.
        name: String,
        /// What it is for.
        roles: Vec<String>,
        /// Version of the program.
        version: String,
        /// Drawn when its store was made.
        nonce: u64,
    },
    /// An integrator, with the id the proxy gave it.
    Integrator {
        /// Its id.
        id: RemoteId,
        /// Its name, unique at the proxy.
        name: String,
        /// Its version; a new one registers anew.
        version: String,
        /// Callbacks it takes.
        callbacks: Vec<String>,
    },
    /// Instances of one integrator, with the ids the proxy gave them (API-9).
    #[serde(with = "as_object")]
    Instances(Vec<InstanceRegistration>),
}

/// A list as `{"instances": […]}`: beside its tag an object has room, a bare list has none.
mod as_object {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::InstanceRegistration;

    #[derive(Serialize, Deserialize)]
    struct Object<L> {
        instances: L,
    }

    pub(super) fn serialize<S: Serializer>(
        instances: &[InstanceRegistration],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        Object { instances }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<InstanceRegistration>, D::Error> {
        Object::deserialize(from).map(|o: Object<_>| o.instances)
    }
}

/// One instance of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRegistration {
    /// Its id.
    pub id: RemoteId,
    /// The platform's own name of it.
    pub external_id: String,
    /// A capabilities document; none: not known (AMB-6).
    pub capabilities: Option<String>,
}

/// What the application server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationAnswer {
    /// The id allotted to a node; to others the id they came with.
    pub id: RemoteId,
    /// Why not; empty: registered.
    pub refusal: String,
}

impl Registration {
    /// Writes the block.
    pub fn write(&self, to: &mut Writer) {
        let words = |to: &mut Writer, words: &[String]| {
            to.list(words, |to, w| {
                to.text(w);
            });
        };
        match self {
            Self::Node { name, roles, version, nonce } => {
                to.array(6).uint(VERSION.into()).uint(0).text(name);
                words(to, roles);
                to.text(version).uint(*nonce);
            }
            Self::Integrator { id, name, version, callbacks } => {
                to.array(6).uint(VERSION.into()).uint(1).id(id).text(name).text(version);
                words(to, callbacks);
            }
            Self::Instances(instances) => {
                to.array(3).uint(VERSION.into()).uint(2);
                to.list(instances, |to, n| {
                    to.array(3).id(&n.id).text(&n.external_id);
                    to.optional(n.capabilities.as_deref(), |to, c| {
                        to.text(c);
                    });
                });
            }
        }
    }

    /// Reads the block.
    pub fn read(from: Reader<'_>) -> Result<Self, Malformed> {
        const NAME: usize = limits::NAME_BYTES_MAX;
        const WHAT: Malformed = Malformed("registration");
        let word = |r: &mut Reader<'_>| {
            r.text().filter(|t| t.len() <= NAME).map(str::to_owned).ok_or(WHAT)
        };
        from.only("registration", 3, |i| {
            if i.u8()? != VERSION {
                return Err(Malformed("registration version"));
            }
            Ok(match i.u8()? {
                0 => Self::Node {
                    name: i.text(NAME)?.to_owned(),
                    roles: i.list(WORDS_MAX, word)?,
                    version: i.text(NAME)?.to_owned(),
                    nonce: i.uint()?,
                },
                1 => Self::Integrator {
                    id: i.id()?,
                    name: i.text(NAME)?.to_owned(),
                    version: i.text(NAME)?.to_owned(),
                    callbacks: i.list(WORDS_MAX, word)?,
                },
                2 => Self::Instances(i.list(INSTANCES_MAX, |r| {
                    r.array("instance registration", 3, |i| {
                        Ok(InstanceRegistration {
                            id: i.id()?,
                            external_id: i.text(NAME)?.to_owned(),
                            capabilities: i
                                .optional(|i| i.text(limits::REGISTRATION_BYTES_MAX))?
                                .map(str::to_owned),
                        })
                    })
                })?),
                _ => return Err(WHAT),
            })
        })
    }
}

impl RegistrationAnswer {
    /// Writes the block.
    pub fn write(&self, to: &mut Writer) {
        to.array(3).uint(VERSION.into()).id(&self.id).text(&self.refusal);
    }

    /// Reads the block.
    pub fn read(from: Reader<'_>) -> Result<Self, Malformed> {
        from.only("registration answer", 3, |i| {
            if i.u8()? != VERSION {
                return Err(Malformed("registration answer version"));
            }
            Ok(Self { id: i.id()?, refusal: i.text(limits::NAME_BYTES_MAX)?.to_owned() })
        })
    }
}
