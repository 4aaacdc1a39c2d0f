//! Whether a capabilities document is well-formed XML (API-8, API-25). Pure; nothing is expanded.
use protocol::socket::{Call, CallError};
use quick_xml::{Reader, events::Event};

/// Nesting that is taken; a capabilities document needs five.
const DEPTH_MAX: usize = 64;

/// Checks the document of a call that has one: -1, EBADMSG where it is not well-formed.
pub(crate) fn check(call: &Call) -> Result<(), CallError> {
    let document = match call {
        Call::Instance(c) => c.capabilities.as_deref(),
        Call::Capabilities(c) => Some(c.capabilities.as_str()),
        _ => None,
    };
    let Some(document) = document else { return Ok(()) };
    well_formed(document)
        .map_err(|what| CallError::bad_text(format!("capabilities is not well-formed XML: {what}")))
}

fn well_formed(document: &str) -> Result<(), String> {
    let mut reader = Reader::from_str(document);
    let (mut depth, mut roots) = (0_usize, 0_usize);
    loop {
        match reader.read_event().map_err(|e| e.to_string())? {
            Event::Start(element) => {
                roots += usize::from(depth == 0);
                depth += 1;
                attributes(element.attributes())?;
            }
            Event::Empty(element) => {
                roots += usize::from(depth == 0);
                attributes(element.attributes())?;
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(text) => {
                let blank = text.trim_ascii().is_empty();
                if depth == 0 && !blank {
                    return Err("text outside the element".to_owned());
                }
            }
            Event::CData(_) | Event::GeneralRef(_) if depth == 0 => {
                return Err("text outside the element".to_owned());
            }
            Event::Eof => break,
            _ => {}
        }
        if roots > 1 {
            return Err("more than one element at the top".to_owned());
        }
        if depth > DEPTH_MAX {
            return Err(format!("nested more than {DEPTH_MAX} deep"));
        }
    }
    match (depth, roots) {
        (0, 1) => Ok(()),
        (0, _) => Err("no element".to_owned()),
        _ => Err("an element is not closed".to_owned()),
    }
}

fn attributes(all: quick_xml::events::attributes::Attributes<'_>) -> Result<(), String> {
    for attribute in all {
        attribute.map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // API-25
    #[test]
    fn a_truncated_capabilities_document_is_not_well_formed() {
        let good =
            "<?xml version=\"1.0\"?>\n<capabilities><can name=\"reboot\"/>a&amp;b</capabilities>\n";
        assert_eq!(well_formed(good), Ok(()));
        let root = good.find("<cap").unwrap_or_default();
        for cut in root + 1..good.trim_end().len() {
            assert!(well_formed(&good[..cut]).is_err(), "{}", &good[..cut]);
        }
        for bad in ["", "x", "<a></b>", "<a/><b/>", "<a/>x", "<a b='1' b='2'/>", "<a b=1/>"] {
            assert!(well_formed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        let deep = "<a>".repeat(65) + &"</a>".repeat(65);
        assert!(well_formed(&deep).is_err());
    }
}
