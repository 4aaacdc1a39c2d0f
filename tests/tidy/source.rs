//! Rust text with its strings and comments taken out, and the functions that stand in it.

/// A function and how many lines it has, the line of its name and of its last brace included.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// The text with what stands in comments and literals replaced by blanks; lines keep their place.
pub fn code_only(text: &str) -> String {
    without(text, true)
}

/// The text with what stands in literals replaced by nothing; for the width of lines.
pub fn without_literals(text: &str) -> String {
    without(text, false)
}

/// `blank`: comments go too, and a blank stands for each character that went.
fn without(text: &str, blank: bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let (end, keep) = match literal_or_comment(&chars, at) {
            Some((end, Kind::Comment)) => (end, !blank),
            Some((end, Kind::Literal)) => (end, false),
            None => (at + 1, true),
        };
        for c in &chars[at..end] {
            match (keep, c) {
                (true, c) => out.push(*c),
                (false, '\n') => out.push('\n'),
                (false, _) if blank => out.push(' '),
                (false, _) => {}
            }
        }
        at = end;
    }
    out
}

enum Kind {
    Comment,
    Literal,
}

/// Where the comment or literal that begins at `at` ends; `None` where none begins.
fn literal_or_comment(chars: &[char], at: usize) -> Option<(usize, Kind)> {
    let next = |n: usize| chars.get(at + n).copied();
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next(1) == Some('/') => Some((line_end(chars, at), Kind::Comment)),
        '/' if next(1) == Some('*') => Some((block_end(chars, at), Kind::Comment)),
        '"' => Some((quoted_end(chars, at, '"'), Kind::Literal)),
        'r' | 'b' | 'c' if !word_before => {
            let mut from = at;
            while matches!(chars.get(from), Some('b' | 'c')) {
                from += 1;
            }
            let raw = chars.get(from) == Some(&'r');
            let mut hashes = from + usize::from(raw);
            while raw && chars.get(hashes) == Some(&'#') {
                hashes += 1;
            }
            let end = match chars.get(hashes) {
                Some('"') if raw => raw_end(chars, hashes, hashes - from - 1),
                Some('"') if from > at => quoted_end(chars, hashes, '"'),
                Some('\'') if from > at && !raw => quoted_end(chars, hashes, '\''),
                _ => return None,
            };
            Some((end, Kind::Literal))
        }
        '\'' if next(1) == Some('\\') || next(2) == Some('\'') => {
            Some((quoted_end(chars, at, '\''), Kind::Literal))
        }
        _ => None,
    }
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

fn block_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0, at);
    while end < chars.len() {
        match (chars[end], chars.get(end + 1)) {
            ('/', Some('*')) => (depth, end) = (depth + 1, end + 2),
            ('*', Some('/')) => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
        if depth == 0 {
            return end;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut end = at + 1;
    while end < chars.len() {
        match chars[end] {
            '\\' => end += 2,
            c if c == quote => return end + 1,
            _ => end += 1,
        }
    }
    chars.len()
}

fn raw_end(chars: &[char], quote: usize, hashes: usize) -> usize {
    let closes = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    (quote + 1..chars.len()).find(|at| closes(*at)).map_or(chars.len(), |at| at + 1 + hashes)
}

/// Functions with a body, in the order of their names.
pub fn functions(text: &str) -> Vec<Function> {
    let code: Vec<char> = code_only(text).chars().collect();
    let mut found = Vec::new();
    let mut line = 1;
    for at in 0..code.len() {
        if code[at] == '\n' {
            line += 1;
        }
        if let Some(name) = function_at(&code, at)
            && let Some(end) = body_end(&code, at)
        {
            let lines = 1 + code[at..end].iter().filter(|c| **c == '\n').count();
            found.push(Function { name, line, lines });
        }
    }
    found
}

/// The name of the function whose `fn` stands at `at`.
fn function_at(code: &[char], at: usize) -> Option<String> {
    let word = |c: &char| c.is_alphanumeric() || *c == '_';
    if code[at] != 'f' || code.get(at + 1) != Some(&'n') || !code.get(at + 2)?.is_whitespace() {
        return None;
    }
    if at > 0 && word(&code[at - 1]) {
        return None;
    }
    let name: String = code[at + 3..].iter().take_while(|c| word(c)).collect();
    (!name.is_empty()).then_some(name)
}

/// Behind the brace that closes the body; `None` for a function without one.
fn body_end(code: &[char], at: usize) -> Option<usize> {
    let (mut depth, mut inner) = (0_i32, 0_i32);
    for (n, c) in code.iter().enumerate().skip(at) {
        match c {
            '(' | '[' if depth == 0 => inner += 1,
            ')' | ']' if depth == 0 => inner -= 1,
            ';' if depth == 0 && inner == 0 => return None,
            '{' if inner == 0 || depth > 0 => depth += 1,
            '}' if depth == 1 => return Some(n + 1),
            '}' if depth > 1 => depth -= 1,
            _ => {}
        }
    }
    None
}
