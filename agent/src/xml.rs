//! As much XML as libvirt and Pacemaker write: elements, attributes, text, comments, CDATA, the predefined entities.
//! No document types, no external entities, a bounded depth and number of parts; anything else is an error, never a guess.

/// libvirt nests about ten deep.
const DEPTH_MAX: usize = 64;
/// Elements and attributes of all roots together. A guest has about 250, a cluster of 1,000 resources about 30,000; a part
/// costs up to 150 bytes here whatever little it takes in the text.
const PARTS_MAX: usize = 1_000_000;
/// Of one element; Pacemaker's have about fifteen.
const ATTRIBUTES_MAX: usize = 1000;

/// One element with what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Name as written, with its prefix.
    pub name: String,
    /// Attributes as written, entities resolved.
    pub attributes: Vec<(String, String)>,
    /// The text directly in it, trimmed.
    pub text: String,
    /// Elements in it.
    pub children: Vec<Element>,
}

/// Why a text is not XML as we read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not readable as XML at byte {at}: {problem}")]
pub struct ReadXmlError {
    /// Offset in the text.
    pub at: usize,
    /// What is wrong.
    pub problem: &'static str,
}

impl Element {
    /// The attribute `name`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first child called `name`.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element at the end of a path of first children.
    pub fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// This element and all below it, in the order of the text.
    pub fn all(&self) -> Vec<&Element> {
        let (mut all, mut stack) = (Vec::new(), vec![self]);
        while let Some(element) = stack.pop() {
            all.push(element);
            stack.extend(element.children.iter().rev());
        }
        all
    }
}

/// The root elements of one document or several in a row.
///
/// # Errors
/// Where the text is not XML as we read it, or ends too soon.
pub fn read(text: &str) -> Result<Vec<Element>, ReadXmlError> {
    let (mut roots, mut stack, mut at): (Vec<Element>, Vec<Element>, usize) = (Vec::new(), Vec::new(), 0);
    let wrong = |at, problem| Err(ReadXmlError { at, problem });
    let mut parts = 0;
    while at < text.len() {
        let rest = &text[at..];
        if let Some(end) = end_of_skipped(rest) {
            let Some(length) = rest.find(end) else { return wrong(at, "something begins and does not end") };
            at += length + end.len();
        } else if let Some(data) = rest.strip_prefix("<![CDATA[") {
            let Some(end) = data.find("]]>") else { return wrong(at, "CDATA does not end") };
            if let Some(element) = stack.last_mut() {
                element.text.push_str(&data[..end]);
            }
            at += "<![CDATA[".len() + end + "]]>".len();
        } else if rest.starts_with("<!") {
            return wrong(at, "document types are not read");
        } else if let Some(tag) = rest.strip_prefix("</") {
            let Some(end) = tag.find('>') else { return wrong(at, "a tag does not end") };
            let element = stack.pop().filter(|element| element.name == tag[..end].trim_end());
            let Some(element) = element else { return wrong(at, "an end tag fits no start tag") };
            close(element, &mut stack, &mut roots);
            at += 2 + end + 1;
        } else if rest.starts_with('<') {
            let (element, ended, length) = start_tag(rest).map_err(|problem| ReadXmlError { at, problem })?;
            at += length;
            parts += 1 + element.attributes.len();
            if parts > PARTS_MAX {
                return wrong(at, "there are too many elements");
            }
            if ended {
                close(element, &mut stack, &mut roots);
            } else if stack.len() == DEPTH_MAX {
                return wrong(at, "elements are nested too deep");
            } else {
                stack.push(element);
            }
        } else {
            let end = rest.find('<').unwrap_or(rest.len());
            let words = resolve(&rest[..end]).ok_or(ReadXmlError { at, problem: "an unknown entity" })?;
            match stack.last_mut() {
                Some(element) => element.text.push_str(&words),
                None if words.trim().is_empty() => {}
                None => return wrong(at, "text outside of elements"),
            }
            at += end;
        }
    }
    if stack.is_empty() { Ok(roots) } else { wrong(at, "the text ends within an element") }
}

/// How a comment or processing instruction at the start of `rest` ends.
fn end_of_skipped(rest: &str) -> Option<&'static str> {
    match () {
        () if rest.starts_with("<!--") => Some("-->"),
        () if rest.starts_with("<?") => Some("?>"),
        () => None,
    }
}

fn close(mut element: Element, stack: &mut [Element], roots: &mut Vec<Element>) {
    element.text = String::from(element.text.trim());
    match stack.last_mut() {
        Some(parent) => parent.children.push(element),
        None => roots.push(element),
    }
}

/// The element that a start tag begins, whether it ends there, and the tag's length.
fn start_tag(text: &str) -> Result<(Element, bool, usize), &'static str> {
    let mut rest = &text[1..];
    let name_end = rest.find(|letter: char| letter.is_whitespace() || matches!(letter, '/' | '>')).unwrap_or(0);
    if name_end == 0 {
        return Err("a tag has no name");
    }
    let mut element = Element { name: rest[..name_end].to_owned(), ..Element::default() };
    rest = &rest[name_end..];
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("/>") {
            return Ok((element, true, text.len() - after.len()));
        }
        if let Some(after) = rest.strip_prefix('>') {
            return Ok((element, false, text.len() - after.len()));
        }
        if element.attributes.len() == ATTRIBUTES_MAX {
            return Err("an element has too many attributes");
        }
        let (name, after) = rest.split_once('=').ok_or("a tag does not end")?;
        let after = after.trim_start();
        let quote =
            after.chars().next().filter(|letter| matches!(letter, '"' | '\'')).ok_or("a value has no quotes")?;
        let (value, after) = after[1..].split_once(quote).ok_or("a value does not end")?;
        let value = resolve(value).ok_or("an unknown entity")?;
        element.attributes.push((name.trim().to_owned(), value));
        rest = after;
    }
}

/// The text with its entities resolved.
fn resolve(text: &str) -> Option<String> {
    let (mut resolved, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('&') {
        resolved.push_str(before);
        let (entity, after) = after.split_once(';')?;
        resolved.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = entity.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => number.parse(),
                };
                char::from_u32(code.ok()?)?
            }
        });
        rest = after;
    }
    resolved.push_str(rest);
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &Expect) {
        fn show(element: &Element, depth: usize, text: &mut String) {
            write!(text, "{}{}", "  ".repeat(depth), element.name).unwrap();
            element.attributes.iter().for_each(|(key, value)| write!(text, " {key}={value}").unwrap());
            writeln!(text, ": {}", element.text).unwrap();
            element.children.iter().for_each(|child| show(child, depth + 1, text));
        }
        let mut said = String::new();
        match read(text) {
            Ok(roots) => roots.iter().for_each(|root| show(root, 0, &mut said)),
            Err(error) => said = error.to_string(),
        }
        expected.assert_eq(&said);
    }

    #[test]
    fn what_libvirt_writes_is_read() {
        check(
            "<?xml version='1.0'?>\n<!-- <x> -->\n<domain type='qemu'\n id=\"1\"><name>a &amp; b&#33;</name><a:b xmlns:a='u'/>\n</domain>\n\n<domain/>",
            &expect![[r"
                domain type=qemu id=1: 
                  name: a & b!
                  a:b xmlns:a=u: 
                domain: 
            "]],
        );
        check("<a><![CDATA[<b>]]></a>", &expect!["a: <b>\n"]);
    }

    #[test]
    fn what_is_no_xml_is_named() {
        check("<a>", &expect!["not readable as XML at byte 3: the text ends within an element"]);
        check("<a></b>", &expect!["not readable as XML at byte 3: an end tag fits no start tag"]);
        check("error: failed", &expect!["not readable as XML at byte 0: text outside of elements"]);
        check("<a b=c/>", &expect!["not readable as XML at byte 0: a value has no quotes"]);
        check("<a>&moon;</a>", &expect!["not readable as XML at byte 3: an unknown entity"]);
        check("<!DOCTYPE a><a/>", &expect!["not readable as XML at byte 0: document types are not read"]);
        check(&"<a>".repeat(70), &expect!["not readable as XML at byte 195: elements are nested too deep"]);
    }

    #[test]
    fn parts_are_bounded() {
        check(
            &"<a b=''/>".repeat(500_001),
            &expect!["not readable as XML at byte 4500009: there are too many elements"],
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[<>/!?a-c='\"&;# \\-\\[\\]é]{0,60}") {
            drop(read(&text));
        }
    }
}
