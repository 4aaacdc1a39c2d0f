//! Remote services ids: who somebody is, by customer and by three levels below (IDM-1…4).
use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Bytes of the customer part.
const CUSTOMER_BYTES: usize = 16;
/// Component, integrator, instance.
const LEVELS_MAX: usize = 3;

/// `customer/component/integrator/instance`, cut at any level. A child's id starts with its
/// parent's, so "is it under" is a prefix test. 16 to 28 bytes in binary (`delivery.md` §12).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId {
    bytes: [u8; CUSTOMER_BYTES + 4 * LEVELS_MAX],
    levels: u8,
}

/// Why a text or bytes are no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a remote services id: customer UUID, then up to three numbers, as in 018f…c2/3/1/17")]
pub struct NotAnId;

impl RemoteId {
    /// The id of a customer.
    pub fn customer(customer: Uuid) -> Self {
        let mut bytes = [0; CUSTOMER_BYTES + 4 * LEVELS_MAX];
        bytes[..CUSTOMER_BYTES].copy_from_slice(customer.as_bytes());
        Self { bytes, levels: 0 }
    }

    /// The id one level below; `None` below an instance.
    pub fn child(&self, number: u32) -> Option<Self> {
        let mut id = *self;
        let at = self.as_bytes().len();
        id.bytes.get_mut(at..at + 4)?.copy_from_slice(&number.to_be_bytes());
        id.levels += 1;
        Some(id)
    }

    /// The id one level above; `None` of a customer.
    pub fn parent(&self) -> Option<Self> {
        self.levels.checked_sub(1).map(|levels| self.cut(levels))
    }

    /// The first `levels` levels: 0 the customer, 1 the component, 2 the integrator.
    pub fn cut(&self, levels: u8) -> Self {
        let levels = levels.min(self.levels);
        let mut bytes = [0; CUSTOMER_BYTES + 4 * LEVELS_MAX];
        let keep = CUSTOMER_BYTES + 4 * usize::from(levels);
        bytes[..keep].copy_from_slice(&self.bytes[..keep]);
        Self { bytes, levels }
    }

    /// Whose it is.
    pub fn customer_id(&self) -> Uuid {
        let mut customer = [0; CUSTOMER_BYTES];
        customer.copy_from_slice(&self.bytes[..CUSTOMER_BYTES]);
        Uuid::from_bytes(customer)
    }

    /// Levels below the customer, 0 to 3.
    pub fn levels(&self) -> u8 {
        self.levels
    }

    /// The number at `level` (1 component, 2 integrator, 3 instance).
    pub fn number(&self, level: u8) -> Option<u32> {
        if level == 0 || level > self.levels {
            return None;
        }
        let at = CUSTOMER_BYTES + 4 * (usize::from(level) - 1);
        self.bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Whether this is `other` or below it.
    pub fn is_under(&self, other: &Self) -> bool {
        self.as_bytes().starts_with(other.as_bytes())
    }

    /// The id of a component that has none yet: number 0 (DESIGN §15).
    pub fn is_unregistered(&self) -> bool {
        self.number(1) == Some(0)
    }

    /// The binary form, 16, 20, 24 or 28 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..CUSTOMER_BYTES + 4 * usize::from(self.levels)]
    }

    /// Reads the binary form.
    pub fn from_bytes(from: &[u8]) -> Result<Self, NotAnId> {
        let below = from.len().checked_sub(CUSTOMER_BYTES).ok_or(NotAnId)?;
        if below % 4 != 0 || below / 4 > LEVELS_MAX {
            return Err(NotAnId);
        }
        let mut bytes = [0; CUSTOMER_BYTES + 4 * LEVELS_MAX];
        bytes[..from.len()].copy_from_slice(from);
        Ok(Self { bytes, levels: (below / 4) as u8 })
    }

    /// The form in URLs, where `/` is written `.` (contract §1).
    pub fn dotted(&self) -> String {
        self.to_string().replace('/', ".")
    }
}

impl fmt::Display for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.customer_id())?;
        for level in 1..=self.levels {
            write!(f, "/{}", self.number(level).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl fmt::Debug for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RemoteId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let mut parts = text.split(['/', '.']);
        let customer = parts.next().filter(|c| c.len() == 36).ok_or(NotAnId)?;
        let mut id = Self::customer(customer.parse().map_err(|_| NotAnId)?);
        for part in parts {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(NotAnId);
            }
            id = id.child(part.parse().map_err(|_| NotAnId)?).ok_or(NotAnId)?;
        }
        Ok(id)
    }
}

impl Serialize for RemoteId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.collect_str(self)
        } else {
            to.serialize_bytes(self.as_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for RemoteId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            let text = String::deserialize(from)?;
            return text.parse().map_err(de::Error::custom);
        }
        let bytes = serde_bytes::ByteBuf::deserialize(from)?;
        Self::from_bytes(&bytes).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> RemoteId {
        "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3".parse().expect("an id")
    }

    // IDM-3: given only a component's id, its customer can be named.
    #[test]
    fn component_names_its_customer() {
        let customer = proxy().cut(0);
        assert_eq!(customer.to_string(), "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42");
        assert!(proxy().is_under(&customer));
        assert!(!customer.is_under(&proxy()));
    }

    // IDM-4: what a proxy allocates names the proxy.
    #[test]
    fn instance_id_starts_with_its_proxys() {
        let instance = proxy().child(1).and_then(|i| i.child(17)).expect("two levels");
        assert_eq!(instance.to_string(), "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3/1/17");
        assert_eq!(instance.as_bytes().len(), 28);
        assert!(instance.is_under(&proxy()));
        assert_eq!(instance.child(1), None);
        assert_eq!(instance.parent().and_then(|i| i.parent()), Some(proxy()));
    }

    #[test]
    fn both_written_forms_and_the_binary_one_are_read() {
        let id: RemoteId = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42.3.1".parse().expect("dotted");
        assert_eq!(id.dotted().parse(), Ok(id));
        assert_eq!(RemoteId::from_bytes(id.as_bytes()), Ok(id));
        for wrong in [
            "",
            "x",
            "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/",
            "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/+1",
            "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/1/2/3/4",
            "018f6f2a5c3e7c119a543d2b1a0f9e42/1",
        ] {
            assert_eq!(wrong.parse::<RemoteId>(), Err(NotAnId), "{wrong}");
        }
        assert_eq!(RemoteId::from_bytes(&[0; 17]), Err(NotAnId));
    }
}
