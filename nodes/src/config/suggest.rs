//! Finds what somebody meant who wrote a word that is not known.

/// Longest word compared, in characters; a longer one is no slip of the pen.
const WORD_MAX: usize = 64;

/// The known word nearest to `word`, if one is near enough to be meant.
///
/// Near is: at most a third of the letters wrong (one for a short word), or the known word goes on
/// where `word` ends, behind a hyphen (`every`, `every-s`).
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length == 0 || length > WORD_MAX {
        return None;
    }
    let allowed = (length / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let goes_on = candidate.strip_prefix(word).is_some_and(|rest| rest.starts_with('-'));
        let slips = if goes_on { 1 } else { slips(word, candidate) };
        if slips <= allowed && slips < length && best.is_none_or(|(least, _)| slips < least) {
            best = Some((slips, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// How many letters are wrong, missing, too many, or swapped with their neighbour.
fn slips(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(WORD_MAX + 1).collect();
    let left: Vec<char> = left.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut now = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let mut least =
                (last[column] + usize::from(a != b)).min(last[column + 1] + 1).min(now[column] + 1);
            let swapped =
                row > 0 && column > 0 && left[row - 1] == *b && right[column - 1] == *a && a != b;
            if swapped {
                least = least.min(before[column - 1] + 1);
            }
            now.push(least);
        }
        before = std::mem::replace(&mut last, now);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_word() {
        assert_eq!(nearest("throtle", ["store", "throttle"]), Some("throttle"));
        assert_eq!(nearest("wbe", ["post", "web"]), Some("web"));
        assert_eq!(nearest("every", ["instances", "every-s"]), Some("every-s"));
    }

    #[test]
    fn another_word_finds_nothing() {
        assert_eq!(nearest("server", ["proxy", "mlm", "app-server"]), None);
        assert_eq!(nearest("", ["proxy"]), None);
        assert_eq!(nearest("x", ["y"]), None);
    }
}
