//! Text to a tree of elements with places; refuses what hostile XML lives on: DTDs, depth.

use std::collections::HashMap;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::attributes::{self, RawAttribute};
use super::problem::Place;

/// Longest file read, in bytes: room for 100,000 allocations, the longest list of the schema.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// Deepest nesting read; the schema needs five.
pub const DEPTH_MAX: usize = 16;

/// Most elements read: 100,000 allocations and all the rest of the schema twice over.
pub const ELEMENTS_MAX: usize = 200_000;

/// The one namespace of configuration and policy.
pub const NAMESPACE: &str = "urn:callhome:config:1";

/// Namespace of `schemaLocation`, which any XML file may carry.
const INSTANCE_NAMESPACE: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// An attribute as written, references to characters replaced.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub name: String,
    pub value: String,
    /// Of the first letter of its name.
    pub at: Place,
    /// Of the first letter of its value, behind the quote.
    pub value_at: Place,
    /// Characters of the value stand one to one, on one line, in the file.
    pub verbatim: bool,
}

/// An element as written.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    /// Without prefix.
    pub name: String,
    /// As in the file.
    pub written: String,
    pub namespace: Option<String>,
    /// Of its `<`.
    pub at: Place,
    pub attributes: Vec<Attribute>,
    pub children: Vec<Element>,
    /// Where text stands in it, which no element of ours has.
    pub text_at: Option<Place>,
}

/// Why reading ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub at: Place,
    pub message: String,
    pub help: String,
}

/// Turns offsets into places; asked in ascending order, so a file costs one pass.
pub(crate) struct Cursor<'t> {
    text: &'t str,
    offset: usize,
    place: Place,
}

impl<'t> Cursor<'t> {
    fn new(text: &'t str) -> Cursor<'t> {
        Cursor { text, offset: 0, place: Place::START }
    }

    /// The place of a byte at or behind the last one asked for.
    pub(crate) fn place(&mut self, offset: usize) -> Place {
        let passed = self.text.get(self.offset..offset).unwrap_or_default();
        for letter in passed.chars() {
            if letter == '\n' {
                self.place = Place { line: self.place.line.saturating_add(1), column: 1 };
            } else {
                self.place.column = self.place.column.saturating_add(1);
            }
        }
        self.offset = self.offset.max(offset);
        self.place
    }
}

/// Reads a whole file into its root element.
pub(crate) fn read(text: &str) -> Result<Element, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file is longer than {FILE_BYTES_MAX} bytes");
        return Err(fault(Place::START, message, "no configuration needs that much"));
    }
    if text.trim().is_empty() {
        let help =
            "start from the example for your role; callhome check --example proxy prints one";
        return Err(fault(Place::START, "the file is empty", help));
    }
    if let Some((offset, letter)) = text.char_indices().find(|(_, c)| !is_xml_character(*c)) {
        let message = format!("character U+{:04X} is not allowed in XML", u32::from(letter));
        return Err(fault(Cursor::new(text).place(offset), message, "take it out"));
    }
    TreeReader::new(text).read()
}

fn fault(at: Place, message: impl Into<String>, help: impl Into<String>) -> Fault {
    Fault { at, message: message.into(), help: help.into() }
}

fn is_xml_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

/// An element whose end tag has not come yet, and the namespaces declared at it.
struct Open {
    element: Element,
    prefixes: HashMap<String, String>,
}

struct TreeReader<'t> {
    text: &'t str,
    cursor: Cursor<'t>,
    open: Vec<Open>,
    root: Option<Element>,
    elements: usize,
}

impl<'t> TreeReader<'t> {
    fn new(text: &'t str) -> TreeReader<'t> {
        TreeReader { text, cursor: Cursor::new(text), open: Vec::new(), root: None, elements: 0 }
    }

    fn read(mut self) -> Result<Element, Fault> {
        let mut reader = Reader::from_str(self.text);
        let config = reader.config_mut();
        config.check_end_names = false;
        config.allow_unmatched_ends = true;
        config.check_comments = true;
        loop {
            let from = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
            let event = match reader.read_event() {
                Ok(event) => event,
                Err(error) => return Err(self.syntax_fault(from, &error)),
            };
            let to = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
            let slice = self.text.get(from..to).unwrap_or_default();
            match event {
                Event::Start(_) => self.start(from, slice, false)?,
                Event::Empty(_) => self.start(from, slice, true)?,
                Event::End(_) => self.end(from, slice)?,
                Event::Text(_) => self.text(from, slice)?,
                Event::CData(_) => self.text(from, "CDATA")?,
                Event::GeneralRef(_) => self.reference(from, slice)?,
                Event::Decl(declaration) => {
                    let version = declaration.version().map(|v| v.into_owned()).ok();
                    let encoding = declaration.encoding().map(|e| e.map(|e| e.into_owned()).ok());
                    self.declaration(from, version, encoding)?;
                }
                Event::PI(_) => self.instruction(from, slice)?,
                Event::DocType(_) => return Err(self.doctype(from)),
                Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Result<Element, Fault> {
        if let Some(open) = self.open.pop() {
            let Element { written, at, .. } = open.element;
            let message = format!("the file ends inside <{written}>, opened at {at}");
            let end = self.cursor.place(self.text.len());
            return Err(fault(end, message, format!("close it: </{written}>")));
        }
        let end = self.cursor.place(self.text.len());
        self.root.ok_or_else(|| fault(end, "the file has no element", "write <node …>…</node>"))
    }

    fn syntax_fault(&mut self, from: usize, error: &quick_xml::Error) -> Fault {
        let start = self.text.get(from..).unwrap_or_default();
        if start.starts_with("<!DOCTYPE") {
            return self.doctype(from);
        }
        let message = match error {
            quick_xml::Error::Syntax(error) => error.to_string(),
            quick_xml::Error::IllFormed(error) => error.to_string(),
            other => other.to_string(),
        };
        fault(self.cursor.place(from), message, "mend the XML here; xmllint --noout tells the same")
    }

    fn doctype(&mut self, from: usize) -> Fault {
        let help = "take the DOCTYPE out; for values from outside use ${NAME}";
        fault(self.cursor.place(from), "a document type is not allowed here", help)
    }

    fn declaration(
        &mut self,
        from: usize,
        version: Option<String>,
        encoding: Option<Option<String>>,
    ) -> Result<(), Fault> {
        let help = "make the first line <?xml version=\"1.0\" encoding=\"UTF-8\"?>";
        let at = self.cursor.place(from);
        if from != 0 {
            return Err(fault(at, "the XML declaration stands not at the beginning", help));
        }
        if version.as_deref() != Some("1.0") {
            return Err(fault(at, "the XML declaration lacks version 1.0", help));
        }
        let Some(encoding) = encoding else { return Ok(()) };
        let name = encoding.unwrap_or_default();
        if ["utf-8", "us-ascii"].contains(&name.to_ascii_lowercase().as_str()) {
            return Ok(());
        }
        Err(fault(at, format!("encoding {name:?} is not read here"), "save the file as UTF-8"))
    }

    fn instruction(&mut self, from: usize, slice: &str) -> Result<(), Fault> {
        let target = slice.strip_prefix("<?").unwrap_or(slice);
        let target: String = target.chars().take_while(|c| !is_space(*c) && *c != '?').collect();
        if attributes::is_name(&target) && !target.eq_ignore_ascii_case("xml") {
            return Ok(());
        }
        let message = "a processing instruction without a proper name";
        Err(fault(self.cursor.place(from), message, "take it out"))
    }

    fn text(&mut self, from: usize, slice: &str) -> Result<(), Fault> {
        if let Some(offset) = slice.find("]]>") {
            let at = self.cursor.place(from + offset);
            return Err(fault(at, "]]> stands in text", "take it out"));
        }
        let Some(offset) = slice.find(|c| !is_space(c)) else { return Ok(()) };
        let at = self.cursor.place(from + offset);
        match self.open.last_mut() {
            Some(open) => {
                open.element.text_at.get_or_insert(at);
                Ok(())
            }
            None => Err(fault(at, "text outside the root element", "take it out")),
        }
    }

    fn reference(&mut self, from: usize, slice: &str) -> Result<(), Fault> {
        match attributes::decode(slice) {
            Ok(_) => self.text(from, "text"),
            Err(_) => {
                let at = self.cursor.place(from);
                Err(fault(at, format!("{slice} is not known"), attributes::REFERENCE_HELP))
            }
        }
    }

    fn start(&mut self, from: usize, slice: &str, empty: bool) -> Result<(), Fault> {
        let at = self.cursor.place(from);
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            let message = format!("more than {ELEMENTS_MAX} elements");
            return Err(fault(at, message, "no configuration needs that many"));
        }
        if self.open.len() >= DEPTH_MAX {
            let message = format!("elements nest deeper than {DEPTH_MAX}");
            return Err(fault(at, message, "no configuration needs that depth"));
        }
        if self.open.is_empty() && self.root.is_some() {
            return Err(fault(at, "a second root element", "a file holds one <node> or <policy>"));
        }
        let end = if empty { "/>" } else { ">" };
        let tag = slice.strip_prefix('<').and_then(|tag| tag.strip_suffix(end)).unwrap_or(slice);
        let (written, raw) = attributes::scan(tag, from + 1)
            .map_err(|error| fault(self.cursor.place(error.offset), error.message, error.help))?;
        let raw =
            raw.into_iter().map(|attribute| self.attribute(attribute)).collect::<Vec<Attribute>>();
        self.open_element(written, at, raw)?;
        if empty { self.close() } else { Ok(()) }
    }

    fn attribute(&mut self, raw: RawAttribute) -> Attribute {
        let at = self.cursor.place(raw.name_offset);
        let value_at = self.cursor.place(raw.value_offset);
        let RawAttribute { name, value, verbatim, .. } = raw;
        Attribute { name, value, at, value_at, verbatim }
    }

    /// Resolves prefixes; what declares or belongs to XML itself is not handed on.
    fn open_element(
        &mut self,
        written: String,
        at: Place,
        all: Vec<Attribute>,
    ) -> Result<(), Fault> {
        let mut prefixes = HashMap::new();
        let mut attributes = Vec::new();
        for attribute in all {
            if attribute.name == "xmlns" {
                prefixes.insert(String::new(), attribute.value);
            } else if let Some(prefix) = attribute.name.strip_prefix("xmlns:") {
                prefixes.insert(prefix.to_owned(), attribute.value);
            } else {
                attributes.push(attribute);
            }
        }
        let (prefix, name) = written.split_once(':').unwrap_or(("", &written));
        let find = |prefix: &str| {
            let declared = prefixes.get(prefix);
            let above = || self.open.iter().rev().find_map(|open| open.prefixes.get(prefix));
            declared.or_else(above).filter(|uri| !uri.is_empty()).cloned()
        };
        let namespace = find(prefix);
        if namespace.is_none() && !prefix.is_empty() {
            let message = format!("the prefix {prefix} of <{written}> is not declared");
            return Err(fault(at, message, format!("write xmlns=\"{NAMESPACE}\" at the root")));
        }
        attributes.retain(|attribute| match attribute.name.split_once(':') {
            Some((prefix, local)) => {
                find(prefix).as_deref() != Some(INSTANCE_NAMESPACE)
                    || !matches!(local, "schemaLocation" | "noNamespaceSchemaLocation")
            }
            None => true,
        });
        let name = name.to_owned();
        let children = Vec::new();
        let element = Element { name, written, namespace, at, attributes, children, text_at: None };
        self.open.push(Open { element, prefixes });
        Ok(())
    }

    fn end(&mut self, from: usize, slice: &str) -> Result<(), Fault> {
        let name = slice.strip_prefix("</").and_then(|tag| tag.strip_suffix('>')).unwrap_or(slice);
        let name = name.trim_end_matches(is_space);
        let Some(open) = self.open.last() else {
            let at = self.cursor.place(from);
            let message = format!("</{name}> closes nothing");
            return Err(fault(at, message, "take it out, or open it first"));
        };
        let Element { written, at, attributes, .. } = &open.element;
        if written == name {
            return self.close();
        }
        let message = format!("</{name}> closes <{written}>, opened at {at}");
        let values = if attributes.is_empty() { "" } else { "… " };
        let help = format!("close it first: <{written} {values}/>");
        Err(fault(self.cursor.place(from), message, help))
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(Open { element, .. }) = self.open.pop() else { return Ok(()) };
        match self.open.last_mut() {
            Some(parent) => parent.element.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }
}

/// What XML counts as white space.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fault_of(text: &str) -> String {
        let fault = read(text).unwrap_err();
        format!("{}: {}", fault.at, fault.message)
    }

    #[test]
    fn places_count_characters_and_not_bytes() {
        let root = read("\u{feff}<a>\n<!-- ä🙂 --><b ü='1' c = \"x&#65;\"/></a>").unwrap();
        let b = &root.children[0];
        assert_eq!(b.at, Place { line: 2, column: 12 });
        assert_eq!(b.attributes[0].value_at, Place { line: 2, column: 18 });
        assert_eq!((b.attributes[1].value.as_str(), b.attributes[1].verbatim), ("xA", false));
    }

    #[test]
    fn what_is_not_well_formed_is_named_with_its_place() {
        assert_eq!(fault_of("<a></a><b/>"), "1:8: a second root element");
        assert_eq!(fault_of("<a>\n"), "2:1: the file ends inside <a>, opened at 1:1");
        assert_eq!(fault_of("</a>"), "1:1: </a> closes nothing");
        assert_eq!(fault_of("<a>&c;</a>"), "1:4: &c; is not known");
        assert_eq!(fault_of("<a b='&c;'/>"), "1:7: &c; is not known");
        assert_eq!(fault_of("<a b='1' b='2'/>"), "1:10: attribute b stands twice in <a>");
        assert_eq!(fault_of("<a>\u{1}</a>"), "1:4: character U+0001 is not allowed in XML");
        assert_eq!(fault_of("<x:a/>"), "1:1: the prefix x of <x:a> is not declared");
        assert_eq!(fault_of(" <?xml version='1.0'?><a/>"), {
            "1:2: the XML declaration stands not at the beginning"
        });
    }

    #[test]
    fn a_document_type_is_refused_also_when_it_never_ends() {
        assert_eq!(fault_of("<!DOCTYPE a [<!ENTITY"), "1:1: a document type is not allowed here");
        assert_eq!(fault_of("<!DOCTYPE a><a/>"), "1:1: a document type is not allowed here");
    }

    #[test]
    fn depth_and_number_of_elements_are_bounded() {
        let deep = "<a>".repeat(DEPTH_MAX + 1);
        assert_eq!(fault_of(&deep), "1:49: elements nest deeper than 16");
        let many = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS_MAX));
        assert!(fault_of(&many).ends_with("more than 200000 elements"));
    }
}
