//! Whether a text is a media type (RFC 9110 §8.3.1): what a payload says it is comes back as a
//! header, so nothing else may stand there.

/// Whether it is `type/subtype`, with parameters or without.
pub fn is_media_type(text: &str) -> bool {
    let (essence, parameters) = match text.split_once(';') {
        Some((essence, parameters)) => (essence.trim_end_matches([' ', '\t']), Some(parameters)),
        None => (text, None),
    };
    let types = essence.split_once('/');
    types.is_some_and(|(kind, finer)| is_token(kind) && is_token(finer))
        && parameters.is_none_or(are_parameters)
}

fn is_token(text: &str) -> bool {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_char)
}

/// `name=token` or `name="quoted"`, between semicolons; one may be empty.
fn are_parameters(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if !rest.starts_with(';') && !rest.is_empty() {
            let Some((name, value)) = rest.split_once('=') else { return false };
            let end = match value.strip_prefix('"') {
                Some(quoted) => quoted_end(quoted).map(|end| end + 1),
                None => {
                    let end = value.find([';', ' ', '\t']).unwrap_or(value.len());
                    is_token(&value[..end]).then_some(end)
                }
            };
            let (Some(end), true) = (end, is_token(name)) else { return false };
            rest = value[end..].trim_start_matches([' ', '\t']);
        }
        match rest.strip_prefix(';') {
            Some(next) => rest = next,
            None => return rest.is_empty(),
        }
    }
}

/// Where a quoted string ends, behind its closing quote. Only ASCII stands in it here: what is
/// beyond is obsolete in a header.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'\t' | b' '..=b'~' if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            b'\t' | b' '..=b'~' => {}
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_told_from_anything_else() {
        for good in [
            "text/plain",
            "application/vnd.acme.thing+json",
            "text/plain;charset=utf-8",
            "text/plain ; charset=\"utf-8\" ; format=flowed",
            "text/plain;",
            "a/b;x=\"a\\\"b;c\"",
        ] {
            assert!(is_media_type(good), "{good:?}");
        }
        for bad in [
            "",
            "text",
            "text/",
            "/plain",
            "bad mime",
            "text/plain, text/html",
            "text/plain\r\nset-cookie: a=b",
            "text/plain;charset",
            "text/plain;charset=a b",
            "text/plain;c=\"open",
            "text/plain;c=\"a\nb\"",
            "text/plain;c=\"a\"b",
            "text/plän",
            " text/plain",
            "a/b/c",
        ] {
            assert!(!is_media_type(bad), "{bad:?}");
        }
    }
}
