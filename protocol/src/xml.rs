//! Whether XML is well-formed: capabilities on their way up, actions on their way down (API-25,
//! RTE-7). Pure; nothing is expanded and nothing is fetched.
use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

/// Nesting that is taken; capabilities need three, and an action two.
pub const XML_DEPTH_MAX: usize = 64;

/// Whether a document may begin with a DOCTYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doctype {
    /// It may; what it says is passed over, and entities that it may define are let through.
    Taken,
    /// It may not: definitions of its own could make a document grow without bound.
    Refused,
}

/// Why a document is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWellFormed {
    /// What the parser says.
    #[error("not well-formed: {0}")]
    Xml(String),
    /// One element must hold all the rest.
    #[error("not well-formed: a document has one root element")]
    Root,
    /// Deeper than anything of ours is.
    #[error("nested deeper than {XML_DEPTH_MAX}")]
    Depth,
    /// See [`Doctype::Refused`].
    #[error("a DOCTYPE is not taken")]
    Doctype,
}

fn broken(error: impl std::fmt::Display) -> NotWellFormed {
    NotWellFormed::Xml(error.to_string())
}

/// Checks a whole document. The attribute `name` of its root element, where it has one.
pub fn well_formed(document: &str, doctype: Doctype) -> Result<Option<String>, NotWellFormed> {
    let mut reader = Reader::from_str(document);
    let (mut depth, mut roots, mut name) = (0usize, 0usize, None);
    // Without a DOCTYPE nobody but XML itself has defined an entity.
    let mut defines = false;
    loop {
        let event = reader.read_event().map_err(broken)?;
        let is_start = matches!(event, Event::Start(_));
        match event {
            Event::Start(element) | Event::Empty(element) => {
                let is_root = depth == 0;
                if is_root && roots > 0 {
                    return Err(NotWellFormed::Root);
                }
                let named = attributes(&element, defines)?;
                if is_root {
                    (roots, name) = (1, named);
                }
                depth += usize::from(is_start);
                if depth > XML_DEPTH_MAX {
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
                if !known && !defines {
                    return Err(broken("an entity nobody defined"));
                }
            }
            Event::DocType(_) if doctype == Doctype::Refused => return Err(NotWellFormed::Doctype),
            Event::DocType(_) => defines = true,
            Event::Eof if depth > 0 || roots == 0 => return Err(NotWellFormed::Root),
            Event::Eof => return Ok(name),
            _ => {}
        }
    }
}

/// Checks the attributes of an element; the value of its `name`.
fn attributes(element: &BytesStart<'_>, defines: bool) -> Result<Option<String>, NotWellFormed> {
    let mut name = None;
    for attribute in element.attributes() {
        let attribute = attribute.map_err(broken)?;
        let value = attribute.normalized_value(quick_xml::XmlVersion::default());
        match value {
            Ok(value) if attribute.key.as_ref() == "name" => name = Some(value.into_owned()),
            Ok(_) => {}
            Err(_) if defines => {}
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RTE-7
    #[test]
    fn only_well_formed_documents_pass() {
        let action = "<?xml version=\"1.0\"?>\n<action id='1' name=\"restart\">\
            <parameter name='k'>a &amp; b &#65;</parameter><!-- c --></action>\n";
        for doctype in [Doctype::Taken, Doctype::Refused] {
            assert_eq!(well_formed(action, doctype), Ok(Some("restart".to_owned())));
            assert_eq!(well_formed("<a><b name='x'/></a>", doctype), Ok(None));
            for broken in [
                "",
                "text",
                "<a>",
                "<a></b>",
                "<a/><b/>",
                "<a/>text",
                "<a x=1/>",
                "<a x='1' x='2'/>",
                "<a x='&undefined;'/>",
                "<a>&undefined;</a>",
                "<a><b></a></b>",
            ] {
                assert!(well_formed(broken, doctype).is_err(), "{broken}");
            }
            let deep = |depth| "<a>".repeat(depth) + &"</a>".repeat(depth);
            assert_eq!(well_formed(&deep(XML_DEPTH_MAX), doctype), Ok(None));
            let deeper = well_formed(&deep(XML_DEPTH_MAX + 1), doctype);
            assert_eq!(deeper, Err(NotWellFormed::Depth));
        }
    }

    // API-25
    #[test]
    fn a_truncated_document_is_not_well_formed() {
        let good =
            "<?xml version=\"1.0\"?>\n<capabilities><can name=\"reboot\"/>a&amp;b</capabilities>\n";
        assert_eq!(well_formed(good, Doctype::Taken), Ok(None));
        let root = good.find("<cap").unwrap_or_default();
        for cut in root + 1..good.trim_end().len() {
            assert!(well_formed(&good[..cut], Doctype::Taken).is_err(), "{}", &good[..cut]);
        }
    }

    #[test]
    fn a_doctype_is_taken_where_it_may_stand_and_refused_elsewhere() {
        let outside = "<!DOCTYPE a SYSTEM 'capabilities.dtd'><a/>";
        let inside = "<!DOCTYPE a [<!ENTITY b 'c'>]><a x='&b;'>&b;</a>";
        for document in [outside, inside] {
            assert_eq!(well_formed(document, Doctype::Taken), Ok(None), "{document}");
            let refused = well_formed(document, Doctype::Refused);
            assert_eq!(refused, Err(NotWellFormed::Doctype), "{document}");
        }
    }
}
