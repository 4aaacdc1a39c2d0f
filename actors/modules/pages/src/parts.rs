//! Finds in a page the elements that are replaced while it stands open (pure).
//!
//! An element with an id and `data-part` is one; a row of a table (`tr`) may also come and go.

/// An element marked `data-part`, as it stands in the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its id.
    pub id: String,
    /// It is a row of a list.
    pub is_row: bool,
    /// The whole element.
    pub html: String,
    /// Digest of the element without its running times.
    pub digest: u64,
}

/// The parts of pieces of HTML that we wrote ourselves: tags are balanced, attributes quoted, and
/// no part stands in another.
pub fn of(pieces: &[&str]) -> Vec<Part> {
    let mut parts = Vec::new();
    for piece in pieces {
        let mut at = 0;
        while let Some(mark) = piece[at..].find(" data-part").map(|found| at + found) {
            let start = piece[..mark].rfind('<').unwrap_or(mark);
            // The words may stand in a text, too; in a tag there is no `>` before them.
            if start == mark || piece[start..mark].contains('>') {
                at = mark + 1;
                continue;
            }
            let tag_end = start + 1 + piece[start + 1..].find([' ', '>']).unwrap_or(0);
            let end = end_of(piece, start, &piece[start + 1..tag_end]);
            let html = &piece[start..end];
            let id = html.split_once(" id=\"").and_then(|(_, rest)| rest.split_once('"'));
            if let Some((id, _)) = id {
                let digest = xxhash_rust::xxh3::xxh3_64(steady(html).as_bytes());
                let is_row = html.starts_with("<tr");
                parts.push(Part { id: id.to_owned(), is_row, html: html.to_owned(), digest });
            }
            at = end.max(mark + 1);
        }
    }
    parts
}

/// Where the element that begins at `start` ends.
fn end_of(html: &str, start: usize, tag: &str) -> usize {
    let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
    let (mut depth, mut at) = (0_usize, start);
    while let Some(next) = html[at..].find('<').map(|found| at + found) {
        let rest = &html[next..];
        if rest.starts_with(&close) {
            depth -= usize::from(depth > 0);
            if depth == 0 {
                return next + close.len();
            }
        } else if rest.starts_with(&open) && rest[open.len()..].starts_with([' ', '>']) {
            depth += 1;
        }
        at = next + 1;
    }
    html.len()
}

/// Without the words of running times and without the clock: those are kept true by the script.
fn steady(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find("<time ") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let end = from.find("</time>").unwrap_or(from.len());
        let (element, after) = from.split_at(end);
        let tag = element.split_once('>').map_or(element, |(tag, _)| tag);
        if tag.contains(" data-rel=") {
            out.push_str(tag);
        } else if !tag.contains(" data-clock") {
            out.push_str(element);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// One number for all parts: what a page that stands open has seen.
pub fn version(parts: &[Part]) -> u64 {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(part.id.as_bytes());
        bytes.extend_from_slice(&part.digest.to_le_bytes());
    }
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_with_what_stands_in_them() {
        let html = "<p>x</p><ul id=\"a\" data-part><li><ul><li>1</li></ul></li></ul><b>2</b>\
                    <table><tr id=\"r\" data-part><td>3</td></tr><tr><td>4</td></tr></table>";
        let parts = of(&[html]);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].html, "<ul id=\"a\" data-part><li><ul><li>1</li></ul></li></ul>");
        assert_eq!((parts[1].id.as_str(), parts[1].is_row), ("r", true));
        assert_eq!(parts[1].html, "<tr id=\"r\" data-part><td>3</td></tr>");
    }

    #[test]
    fn a_running_time_is_no_change_but_another_time_is() {
        let row = |at: &str, words: &str| {
            let html = format!(
                "<p id=\"x\" data-part><time datetime=\"{at}\" data-rel=\"ago\"><span>{words}\
                 </span></time><time datetime=\"{words}\" data-clock>{words}</time></p>"
            );
            version(&of(&[&html]))
        };
        assert_eq!(row("12:00", "1 s"), row("12:00", "2 s"));
        assert_ne!(row("12:00", "1 s"), row("12:01", "1 s"));
    }

    #[test]
    fn what_is_not_balanced_ends_with_the_page() {
        assert_eq!(of(&["<ul id=\"a\" data-part><li>"])[0].html, "<ul id=\"a\" data-part><li>");
        assert!(of(&["no tag data-part", ""]).is_empty());
    }
}
