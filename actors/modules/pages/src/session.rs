//! Who is signed in: one-time codes, sessions, tokens against forged forms (DESIGN §15).
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};

/// How long a code may be spent, milliseconds: 10 minutes (contract §2).
pub const CODE_LIFE_MS: i64 = 600_000;
/// How long a session lasts, milliseconds: 12 hours.
pub const SESSION_LIFE_MS: i64 = 43_200_000;
/// Codes that wait to be spent; the oldest goes for a new one, so memory is bounded.
pub const CODES_MAX: usize = 64;
/// Sessions at a time; the oldest goes for a new one, so memory is bounded.
pub const SESSIONS_MAX: usize = 1024;
/// Random bytes of a code, a session's id and a form's token: 192 bits cannot be guessed.
const SECRET_BYTES: usize = 24;

/// The system has no randomness to give: no code, no session can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes; try again, and look at its entropy source")]
pub struct NoRandomness;

/// Somebody who is signed in. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    /// Goes with every form; `Debug` does not show it.
    pub(crate) csrf: Arc<str>,
    /// When it ends, milliseconds since 1970.
    pub(crate) until_ms: i64,
    key: [u8; 32],
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("until_ms", &self.until_ms).finish_non_exhaustive()
    }
}

impl Session {
    /// Whether a form or a request came from a page of this session.
    pub(crate) fn is_mine(&self, csrf: &str) -> bool {
        // Digests are compared: how long it takes says nothing of the token.
        digest(csrf) == digest(&self.csrf)
    }
}

/// Codes and sessions of one portal: in memory, so they end with the process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// Digest of a code → when it ends.
    codes: HashMap<[u8; 32], i64>,
    /// Digest of a session's id → the session.
    sessions: HashMap<[u8; 32], Session>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// A code that signs somebody in once, within [`CODE_LIFE_MS`]; its URL is
    /// `/sign-in?code=…`.
    pub fn new_code(&self) -> Result<String, NoRandomness> {
        self.new_code_at(crate::now_ms())
    }

    pub(crate) fn new_code_at(&self, now_ms: i64) -> Result<String, NoRandomness> {
        let code = secret()?;
        let mut kept = self.kept();
        kept.codes.retain(|_, until| *until > now_ms);
        if kept.codes.len() >= CODES_MAX
            && let Some(oldest) = kept.codes.iter().min_by_key(|(_, until)| **until)
        {
            let oldest = *oldest.0;
            kept.codes.remove(&oldest);
        }
        kept.codes.insert(digest(&code), now_ms + CODE_LIFE_MS);
        Ok(code)
    }

    /// Whether a code may still be spent; asking does not spend it.
    pub(crate) fn is_good(&self, code: &str, now_ms: i64) -> bool {
        self.kept().codes.get(&digest(code)).is_some_and(|until| *until > now_ms)
    }

    /// Spends a code: the id for the cookie, or nothing where the code is wrong, spent or old.
    pub(crate) fn spend(&self, code: &str, now_ms: i64) -> Result<Option<String>, NoRandomness> {
        let (id, csrf) = (secret()?, secret()?);
        let mut kept = self.kept();
        if kept.codes.remove(&digest(code)).is_none_or(|until| until <= now_ms) {
            return Ok(None);
        }
        kept.sessions.retain(|_, session| session.until_ms > now_ms);
        if kept.sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = kept.sessions.values().min_by_key(|session| session.until_ms)
        {
            let oldest = oldest.key;
            kept.sessions.remove(&oldest);
        }
        let key = digest(&id);
        let until_ms = now_ms + SESSION_LIFE_MS;
        kept.sessions.insert(key, Session { csrf: csrf.into(), until_ms, key });
        Ok(Some(id))
    }

    /// The session of a cookie.
    pub(crate) fn of(&self, id: &str, now_ms: i64) -> Option<Session> {
        self.kept().sessions.get(&digest(id)).filter(|s| s.until_ms > now_ms).cloned()
    }

    /// Whether a session is still there.
    pub(crate) fn lives(&self, session: &Session, now_ms: i64) -> bool {
        session.until_ms > now_ms && self.kept().sessions.contains_key(&session.key)
    }

    /// Signs out.
    pub(crate) fn end(&self, session: &Session) {
        self.kept().sessions.remove(&session.key);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change is one call into a map: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn secret() -> Result<String, NoRandomness> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_spent_once_and_looking_at_it_spends_nothing() {
        let sessions = Sessions::default();
        let code = sessions.new_code_at(0).unwrap();
        assert!(sessions.is_good(&code, 1) && sessions.is_good(&code, 1));
        let id = sessions.spend(&code, 1).unwrap().unwrap();
        assert_eq!(sessions.spend(&code, 1).unwrap(), None);
        assert!(sessions.of(&id, 1).is_some());
        assert!(sessions.of(&code, 1).is_none());
    }

    #[test]
    fn codes_end_after_ten_minutes_and_sessions_after_twelve_hours() {
        let sessions = Sessions::default();
        let code = sessions.new_code_at(0).unwrap();
        assert!(!sessions.is_good(&code, CODE_LIFE_MS));
        assert_eq!(sessions.spend(&code, CODE_LIFE_MS).unwrap(), None);
        let code = sessions.new_code_at(0).unwrap();
        let id = sessions.spend(&code, 0).unwrap().unwrap();
        assert!(sessions.of(&id, SESSION_LIFE_MS - 1).is_some());
        assert!(sessions.of(&id, SESSION_LIFE_MS).is_none());
    }

    #[test]
    fn the_oldest_go_where_there_are_too_many() {
        let sessions = Sessions::default();
        let first = sessions.new_code_at(0).unwrap();
        for at in 1..=CODES_MAX as i64 {
            sessions.new_code_at(at).unwrap();
        }
        assert!(!sessions.is_good(&first, 1));
        let mut ids = Vec::new();
        for at in 0..=SESSIONS_MAX as i64 {
            let code = sessions.new_code_at(at).unwrap();
            ids.push(sessions.spend(&code, at).unwrap().unwrap());
        }
        assert!(sessions.of(&ids[0], 1).is_none());
        assert!(sessions.of(&ids[1], 1).is_some());
    }

    #[test]
    fn signing_out_ends_a_session_and_debug_tells_no_secret() {
        let sessions = Sessions::default();
        let code = sessions.new_code_at(0).unwrap();
        let session = sessions.of(&sessions.spend(&code, 0).unwrap().unwrap(), 0).unwrap();
        assert!(session.is_mine(&session.csrf) && !session.is_mine(""));
        assert!(!format!("{session:?} {sessions:?}").contains(&*session.csrf));
        sessions.end(&session);
        assert!(!sessions.lives(&session, 0));
    }
}
