//! The inside of a tag: a name and attributes with their offsets, checked as XML wants them.

use super::xml::is_space;

/// Most attributes of one element; the schema's richest has nine.
pub const ATTRIBUTES_MAX: usize = 64;

/// Said of every `&…;` that is not one of XML's own.
pub(crate) const REFERENCE_HELP: &str =
    "only &amp; &lt; &gt; &quot; &apos; and &#…; are read; write & as &amp;";

/// An attribute and where it stands, in bytes of the file.
#[derive(Debug)]
pub(crate) struct RawAttribute {
    pub name: String,
    pub value: String,
    pub name_offset: usize,
    pub value_offset: usize,
    /// The value stands one to one in the file, on one line.
    pub verbatim: bool,
}

/// What is wrong inside a tag.
#[derive(Debug)]
pub(crate) struct TagError {
    pub offset: usize,
    pub message: String,
    pub help: String,
}

/// Takes a tag apart. `base` is the offset of its first byte, behind the `<`.
pub(crate) fn scan(tag: &str, base: usize) -> Result<(String, Vec<RawAttribute>), TagError> {
    let error = |rest: &str, message: String, help: &str| TagError {
        offset: base + (tag.len() - rest.len()),
        message,
        help: help.to_owned(),
    };
    let (name, mut rest) = split_name(tag);
    if !is_name(name) {
        let message = format!("<{} is not the beginning of an element", first_word(tag));
        return Err(error(tag, message, "begin it with a letter; write < in a value as &lt;"));
    }
    let mut attributes: Vec<RawAttribute> = Vec::new();
    loop {
        let trimmed = rest.trim_start_matches(is_space);
        if trimmed.is_empty() {
            return Ok((name.to_owned(), attributes));
        }
        let spaced = trimmed.len() < rest.len();
        let (key, behind) = split_name(trimmed);
        if !is_name(key) || !spaced {
            let message = format!("an attribute was expected, found {:?}", first_word(trimmed));
            return Err(error(trimmed, message, "write name=\"value\", apart by spaces"));
        }
        if attributes.iter().any(|known| known.name == key) {
            let message = format!("attribute {key} stands twice in <{name}>");
            return Err(error(trimmed, message, "keep one of them"));
        }
        if attributes.len() >= ATTRIBUTES_MAX {
            let message = format!("<{name}> has more than {ATTRIBUTES_MAX} attributes");
            return Err(error(trimmed, message, "no element needs that many"));
        }
        let behind = behind.trim_start_matches(is_space);
        let value = behind.strip_prefix('=').map(|v| v.trim_start_matches(is_space));
        let Some((quote, value)) = value.and_then(split_quote) else {
            let message = format!("attribute {key} has no value in quotes");
            return Err(error(trimmed, message, "write name=\"value\""));
        };
        let Some(end) = value.find(quote) else {
            let message = format!("the value of {key} is not closed");
            return Err(error(value, message, "close it with the quote that opened it"));
        };
        let raw = &value[..end];
        let decoded =
            decode(raw).map_err(|(at, message)| error(&value[at..], message, REFERENCE_HELP))?;
        attributes.push(RawAttribute {
            name: key.to_owned(),
            name_offset: base + (tag.len() - trimmed.len()),
            value_offset: base + (tag.len() - value.len()),
            verbatim: decoded == raw,
            value: decoded,
        });
        rest = &value[end + 1..];
    }
}

fn split_name(text: &str) -> (&str, &str) {
    let end = text.find(|c| is_space(c) || matches!(c, '=' | '"' | '\'' | '/' | '<' | '>'));
    text.split_at(end.unwrap_or(text.len()))
}

fn split_quote(text: &str) -> Option<(char, &str)> {
    ['"', '\''].into_iter().find_map(|quote| Some((quote, text.strip_prefix(quote)?)))
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| !is_space(*c)).take(32).collect()
}

/// Whether a word may name an element or attribute; one colon may part off a prefix.
pub(crate) fn is_name(word: &str) -> bool {
    let starts = |part: &str| {
        let start = |c: char| c.is_alphabetic() || c == '_';
        let more = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '\u{b7}');
        part.chars().next().is_some_and(start) && part.chars().all(more)
    };
    match word.split_once(':') {
        Some((prefix, local)) => starts(prefix) && starts(local),
        None => starts(word),
    }
}

/// A value with character references replaced and white space made blank, as XML says; or the
/// offset of what cannot stand in one.
pub(crate) fn decode(raw: &str) -> Result<String, (usize, String)> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(letter) = rest.chars().next() {
        let offset = raw.len() - rest.len();
        match letter {
            '<' => return Err((offset, "< stands in a value".to_owned())),
            '&' => {
                let end = rest.find(';').unwrap_or(rest.len().min(1));
                let name = rest.get(1..end).unwrap_or_default();
                match entity(name) {
                    Some(letter) => out.push(letter),
                    None if name.is_empty() => {
                        return Err((offset, "& begins no reference".to_owned()));
                    }
                    None => {
                        let name: String = name.chars().take(32).collect();
                        return Err((offset, format!("&{name}; is not known")));
                    }
                }
                rest = &rest[end + 1..];
                continue;
            }
            '\t' | '\n' | '\r' => out.push(' '),
            other => out.push(other),
        }
        rest = &rest[letter.len_utf8()..];
    }
    Ok(out)
}

fn entity(name: &str) -> Option<char> {
    let number = match name {
        "amp" => return Some('&'),
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        _ => name.strip_prefix('#')?,
    };
    let code = match number.strip_prefix('x') {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(hex, 16).ok()?
        }
        None if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok()?,
        _ => return None,
    };
    let letter = char::from_u32(code)?;
    let allowed = matches!(letter, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..);
    allowed.then_some(letter)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_tag_is_taken_apart_with_offsets() {
        let (name, attributes) = scan("a b=\"1\"\n c = 'x&quot;y'", 10).unwrap();
        assert_eq!((name.as_str(), attributes.len()), ("a", 2));
        assert_eq!((attributes[0].name_offset, attributes[0].value_offset), (12, 15));
        assert_eq!(attributes[1].value, "x\"y");
    }

    #[test]
    fn what_xml_does_not_allow_in_a_tag_is_refused() {
        for tag in ["", "1a", "a b", "a b=1", "a b='1'c='2'", "a b='<'", "a b='& '", "a :b='1'"] {
            assert!(scan(tag, 0).is_err(), "{tag}");
        }
        for value in ["&#0;", "&#x110000;", "&#xD800;", "&;", "&", "&#-1;", "&#x;", "&amp"] {
            assert!(decode(value).is_err(), "{value}");
        }
    }
}
