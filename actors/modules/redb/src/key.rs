//! Keys of the file: runs by queue, precedence and position, rows by table and key, as bytes.
use std::ops::Bound;

use extension::storage::{CUT, Place, QueueName};
use protocol::Precedence;

/// `queue 0 precedence position`, ordered as the queue is. Names hold no zero byte.
pub(crate) fn run(queue: &QueueName, place: Place) -> Vec<u8> {
    let mut key = runs(queue, place.precedence);
    key.extend_from_slice(&place.position.to_be_bytes());
    key
}

/// What the keys of one precedence of a queue begin with.
pub(crate) fn runs(queue: &QueueName, precedence: Precedence) -> Vec<u8> {
    let mut key = Vec::with_capacity(queue.0.len() + 10);
    key.extend_from_slice(queue.0.as_bytes());
    key.extend_from_slice(&[0, precedence as u8]);
    key
}

/// Queue and place of a run's key.
pub(crate) fn parse_run(key: &[u8]) -> Option<(QueueName, Place)> {
    let (rest, position) = key.split_last_chunk::<8>()?;
    let (name, [0, precedence]) = rest.split_last_chunk::<2>()? else { return None };
    let precedence = Precedence::from_number(*precedence)?;
    let name = std::str::from_utf8(name).ok()?;
    Some((QueueName::new(name), Place { precedence, position: u64::from_be_bytes(*position) }))
}

/// `table 0 key`.
pub(crate) fn row(table: &str, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(table.len() + 1 + key.len());
    full.extend_from_slice(table.as_bytes());
    full.push(0);
    full.extend_from_slice(key);
    full
}

/// Row of a run that was cut out, by the run's key.
pub(crate) fn cut(run: &[u8]) -> Vec<u8> {
    row(CUT, run)
}

/// The least key above all that begin with `prefix`.
pub(crate) fn above(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

#[cfg(test)]
mod tests {
    use super::*;

    // DESIGN §7
    #[test]
    fn keys_of_a_queue_sort_by_precedence_then_position() {
        let queue = QueueName::new("down/a");
        let key = |precedence, position| run(&queue, Place { precedence, position });
        assert!(key(Precedence::Urgent, u64::MAX) < key(Precedence::Normal, 0));
        assert!(key(Precedence::Normal, 255) < key(Precedence::Normal, 256));
        let place = Place { precedence: Precedence::Bulk, position: 258 };
        assert_eq!(parse_run(&run(&queue, place)), Some((queue, place)));
        assert_eq!(parse_run(b"short"), None);
    }

    // DESIGN §4.5
    #[test]
    fn the_end_of_a_prefix_is_found_also_behind_its_highest_byte() {
        assert_eq!(above(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(above(&[1, 0xff]), Bound::Excluded(vec![2]));
        assert_eq!(above(&[0xff]), Bound::Unbounded);
        assert_eq!(above(b""), Bound::Unbounded);
    }
}
