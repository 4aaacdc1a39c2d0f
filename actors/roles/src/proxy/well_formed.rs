//! Whether XML from above is well-formed, before an integrator sees it (pure, RTE-7).
use quick_xml::{Reader, events::Event};

use protocol::limits::DEPTH_MAX;

/// Why a document is not handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWellFormed {
    /// What the parser says.
    #[error("not well-formed: {0}")]
    Xml(String),
    /// One element must hold all the rest.
    #[error("not well-formed: a document has one root element")]
    Root,
    /// Deeper than any action is.
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
    /// Definitions of its own could make a document grow without bound.
    #[error("a DOCTYPE is not taken")]
    Doctype,
}

/// Checks a whole document. The `name` of its root element, where it has one.
pub fn check(xml: &str) -> Result<Option<String>, NotWellFormed> {
    let broken = |error: &dyn std::fmt::Display| NotWellFormed::Xml(error.to_string());
    let mut reader = Reader::from_str(xml);
    let (mut depth, mut roots, mut name) = (0usize, 0usize, None);
    loop {
        match reader.read_event().map_err(|e| broken(&e))? {
            Event::Start(element) | Event::Empty(element) if depth == 0 && roots > 0 => {
                let _ = element;
                return Err(NotWellFormed::Root);
            }
            event @ (Event::Start(_) | Event::Empty(_)) => {
                let (is_start, element) = match event {
                    Event::Start(element) => (true, element),
                    Event::Empty(element) => (false, element),
                    _ => continue,
                };
                for attribute in element.attributes() {
                    let attribute = attribute.map_err(|e| broken(&e))?;
                    let value = attribute
                        .normalized_value(quick_xml::XmlVersion::default())
                        .map_err(|e| broken(&e))?;
                    if depth == 0 && attribute.key.as_ref() == "name" {
                        name = Some(value.into_owned());
                    }
                }
                roots += usize::from(depth == 0);
                depth += usize::from(is_start);
                if depth > DEPTH_MAX {
                    return Err(NotWellFormed::Depth);
                }
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(text) if depth == 0 && !text.bytes().all(|b| b.is_ascii_whitespace()) => {
                return Err(NotWellFormed::Root);
            }
            Event::CData(_) | Event::GeneralRef(_) if depth == 0 => {
                return Err(NotWellFormed::Root);
            }
            Event::GeneralRef(reference) => {
                let known = reference.is_char_ref()
                    || matches!(&*reference, "amp" | "lt" | "gt" | "quot" | "apos");
                if !known {
                    return Err(NotWellFormed::Xml("an entity nobody defined".to_owned()));
                }
            }
            Event::DocType(_) => return Err(NotWellFormed::Doctype),
            Event::Eof if depth > 0 || roots == 0 => return Err(NotWellFormed::Root),
            Event::Eof => return Ok(name),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RTE-7
    #[test]
    fn only_well_formed_documents_pass() {
        let action = "<?xml version=\"1.0\"?>\n<action id='1' name=\"restart\">\
            <parameter name='k'>a &amp; b &#65;</parameter><!-- c --></action>\n";
        assert_eq!(check(action), Ok(Some("restart".to_owned())));
        assert_eq!(check("<a/>"), Ok(None));
        for broken in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a x=1/>",
            "<a x='1' x='2'/>",
            "<a>&undefined;</a>",
            "<a/>text",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>",
            "<a><b></a></b>",
        ] {
            assert!(check(broken).is_err(), "{broken}");
        }
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        assert_eq!(check(&deep), Err(NotWellFormed::Depth));
    }
}
