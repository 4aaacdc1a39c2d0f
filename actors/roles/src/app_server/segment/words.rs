//! Texts of a segment, in lower case, one behind the other, so that one search goes through all.
use memchr::memmem::Finder;

/// What stands between two texts: no word of a search has it.
const BETWEEN: u8 = b'\n';

/// Texts in the order they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub(super) texts: Vec<u8>,
    /// Where each text ends.
    pub(super) ends: Vec<u32>,
}

impl Words {
    /// How many texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all texts.
    pub fn bytes(&self) -> usize {
        self.texts.len()
    }

    /// Adds a text, in lower case.
    pub fn push(&mut self, text: &str) {
        match text.is_ascii() {
            true => {
                let from = self.texts.len();
                self.texts.extend_from_slice(text.as_bytes());
                self.texts[from..].make_ascii_lowercase();
            }
            false => self.texts.extend_from_slice(text.to_lowercase().as_bytes()),
        }
        self.ends.push(self.texts.len() as u32);
        self.texts.push(BETWEEN);
    }

    /// Whether the text of that number is this one, in lower case.
    pub fn says(&self, at: usize, text: &str) -> bool {
        let known = self.text(at);
        match text.is_ascii() {
            true => known.eq_ignore_ascii_case(text.as_bytes()),
            false => known == text.to_lowercase().as_bytes(),
        }
    }

    fn text(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
        self.texts.get(from..self.ends[at] as usize).unwrap_or_default()
    }

    /// Which texts have all of these words; `words` is not empty.
    pub fn with_all(&self, words: &[String]) -> Vec<bool> {
        let mut with = vec![false; self.len()];
        // The longest is the rarest.
        let Some(rarest) = words.iter().max_by_key(|word| word.len()) else { return with };
        let others: Vec<Finder<'_>> =
            words.iter().filter(|word| *word != rarest).map(Finder::new).collect();
        let finder = Finder::new(rarest);
        let mut from = 0;
        while let Some(hit) = self.texts.get(from..).and_then(|rest| finder.find(rest)) {
            let at = self.ends.partition_point(|end| (*end as usize) < from + hit);
            let Some(end) = self.ends.get(at) else { break };
            with[at] = others.iter().all(|other| other.find(self.text(at)).is_some());
            from = *end as usize + 1;
        }
        with
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_all_the_words_or_it_is_not_meant() {
        let mut words = Words::default();
        for text in ["port 7 is down", "", "port 8 is up", "disk 7", "a portal", "7 port"] {
            words.push(text);
        }
        let with = |sought: &[&str]| {
            let sought: Vec<String> = sought.iter().map(|word| (*word).to_owned()).collect();
            let with = words.with_all(&sought).into_iter().enumerate();
            with.filter(|(_, with)| *with).map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(with(&["port"]), [0, 2, 4, 5]);
        assert_eq!(with(&["7", "port"]), [0, 5]);
        assert_eq!(with(&["port", "port"]), [0, 2, 4, 5]);
        assert_eq!(with(&["down"]), [0]);
        assert_eq!(with(&["downport"]), [] as [usize; 0]);
        assert_eq!(Words::default().with_all(&["x".to_owned()]), [] as [bool; 0]);
    }
}
