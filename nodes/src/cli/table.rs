//! Tables for people: aligned columns, times twice, nothing a terminal would obey.
use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::Value;

/// Longest cell on a terminal, characters: more is in `--format json` and in the portal.
const CELL_CHARS_MAX: usize = 72;

/// How a table is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// With colours, and long cells cut: stdout is a terminal.
    pub coloured: bool,
    /// Now, for ages.
    pub now: Timestamp,
}

/// Rows of one kind. Widths grow with the rows; what was printed stays as it is.
#[derive(Debug)]
pub struct Table {
    columns: &'static [&'static str],
    widths: Vec<usize>,
    look: Look,
    headed: bool,
}

impl Table {
    /// With these columns: keys of the JSON objects that become rows.
    pub fn new(columns: &'static [&'static str], look: Look) -> Self {
        let widths = columns.iter().map(|column| column.len()).collect();
        Self { columns, widths, look, headed: false }
    }

    /// Prints rows, the first time under a heading.
    pub fn print(&mut self, rows: &[Value], out: &mut dyn Write) -> io::Result<()> {
        let cells: Vec<Vec<String>> = rows.iter().map(|row| self.cells(row)).collect();
        for row in &cells {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !self.headed {
            self.headed = true;
            let heads: Vec<String> = self.columns.iter().map(|c| (*c).to_owned()).collect();
            self.line(&heads, None, out)?;
        }
        for (cells, row) in cells.iter().zip(rows) {
            self.line(cells, Some(row), out)?;
        }
        Ok(())
    }

    fn cells(&self, row: &Value) -> Vec<String> {
        let cell = |column: &&str| {
            let text = shown(column, &row[*column], self.look.now);
            if self.look.coloured { cut(text) } else { text }
        };
        self.columns.iter().map(cell).collect()
    }

    fn line(&self, cells: &[String], row: Option<&Value>, out: &mut dyn Write) -> io::Result<()> {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let (width, column) = (self.widths[i], self.columns[i]);
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let colour = match row {
                Some(row) if self.look.coloured => colour(column, &row[column]),
                None if self.look.coloured => Some("1"),
                _ => None,
            };
            let cell = match colour {
                Some(code) => format!("\x1b[{code}m{cell}\x1b[0m"),
                None => cell.clone(),
            };
            if i > 0 {
                text.push_str("  ");
            }
            if is_number(column) {
                text.push_str(&padding);
                text.push_str(&cell);
            } else {
                text.push_str(&cell);
                text.push_str(&padding);
            }
        }
        writeln!(out, "{}", text.trim_end())
    }
}

/// Columns of figures stand on the right.
fn is_number(column: &str) -> bool {
    const FIGURES: &[&str] = &[
        "nodes",
        "instances",
        "alarms",
        "queued",
        "oldest_age_s",
        "count",
        "messages",
        "bytes",
        "in",
        "delivered",
        "expired",
        "evicted",
        "refused",
        "consumed",
        "salvaged",
        "damaged",
        "set_aside",
        "duplicates",
        "turned_away",
        "dropped",
        "held_s",
    ];
    FIGURES.contains(&column)
}

/// One value for a person.
fn shown(column: &str, value: &Value, now: Timestamp) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) if column.ends_with("_s") => {
            number.as_f64().map_or_else(|| number.to_string(), seconds)
        }
        Value::Number(number) => number.to_string(),
        Value::String(text) if column.ends_with("_at") => time(text, now),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(|item| shown("", item, now)).collect();
            if words.is_empty() { "-".to_owned() } else { words.join(",") }
        }
        Value::Object(object) => delivering(object),
    }
}

/// `Delivering` of a node: yes, held, or the names of the reasons.
fn delivering(object: &serde_json::Map<String, Value>) -> String {
    if let Some(held) = object.get("held").and_then(Value::as_str) {
        return format!("held:{}", plain(held));
    }
    match object.get("ok").and_then(Value::as_bool) {
        Some(true) => "yes".to_owned(),
        Some(false) => {
            let reasons = object.get("reasons").and_then(Value::as_array);
            let names: Vec<String> = reasons
                .into_iter()
                .flatten()
                .filter_map(|reason| reason["name"].as_str().map(plain))
                .collect();
            if names.is_empty() { "no".to_owned() } else { format!("no:{}", names.join(",")) }
        }
        None => "-".to_owned(),
    }
}

/// Text with everything a terminal might obey taken out: it comes from the platforms.
pub fn plain(text: &str) -> String {
    let bidi = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || bidi(c) { '·' } else { c }).collect()
}

fn cut(text: String) -> String {
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    let mut short: String = text.chars().take(CELL_CHARS_MAX - 1).collect();
    short.push('…');
    short
}

/// A time twice: how long ago, and absolute UTC.
pub fn time(text: &str, now: Timestamp) -> String {
    let Ok(at) = text.parse::<Timestamp>() else { return plain(text) };
    let utc = format!("{:.0}", at);
    match now.as_second() - at.as_second() {
        0 => format!("{utc} (now)"),
        ago @ 1.. => format!("{utc} ({} ago)", seconds(ago as f64)),
        ahead => format!("{utc} (in {})", seconds(-ahead as f64)),
    }
}

/// A length of time in its largest unit.
pub fn seconds(seconds: f64) -> String {
    let rounded = seconds.max(0.0).round();
    match rounded as u64 {
        0 if seconds > 0.0 => format!("{:.0} ms", seconds * 1000.0),
        1..=9 if seconds.fract() != 0.0 => format!("{seconds:.1} s"),
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// The colour of a cell by its meaning; never the only sign of it.
fn colour(column: &str, value: &Value) -> Option<&'static str> {
    match (column, value.as_str().unwrap_or_default()) {
        ("severity", "fatal" | "critical") => Some("1;31"),
        ("severity", "major" | "minor") => Some("33"),
        ("severity", "warning") => Some("36"),
        ("state", "refused" | "expired" | "evicted" | "silent" | "away") => Some("31"),
        ("state", "opened") => Some("33"),
        ("balanced" | "ok", _) if value == &Value::Bool(false) => Some("1;31"),
        ("delivering", _) if value["ok"] == Value::Bool(false) => Some("1;31"),
        ("status", "fail") => Some("1;31"),
        ("status", "warn") => Some("33"),
        ("status", "pass") => Some("32"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn look(coloured: bool) -> Look {
        Look { coloured, now: "2026-11-22T12:14:09Z".parse().unwrap() }
    }

    fn printed(coloured: bool, rows: &[Value]) -> String {
        let mut out = Vec::new();
        let columns = &["severity", "text", "count", "occurred_at"];
        Table::new(columns, look(coloured)).print(rows, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_times_stand_twice() {
        let rows = [
            json!({"severity": "critical", "text": "link down", "count": 3,
                "occurred_at": "2026-11-22T12:09:51.000Z"}),
            json!({"severity": "fatal", "text": "é", "count": 12, "occurred_at": null}),
        ];
        let expected = "\
severity  text       count  occurred_at
critical  link down      3  2026-11-22T12:09:51Z (4 min ago)
fatal     é             12  -
";
        assert_eq!(printed(false, &rows), expected);
    }

    #[test]
    fn text_of_a_platform_cannot_steer_the_terminal() {
        let rows = [json!({"severity": "fatal", "text": "a\u{1b}[2Jb\r\nc\u{202e}d"})];
        let out = printed(true, &rows);
        assert!(out.contains("a·[2Jb··c·d"), "{out}");
        assert!(!out.contains("\u{1b}[2J"));
    }

    #[test]
    fn colours_do_not_move_columns_and_long_cells_are_cut() {
        let rows = [json!({"severity": "major", "text": "x".repeat(500), "count": 1})];
        let out = printed(true, &rows);
        assert!(out.contains("\u{1b}[33mmajor\u{1b}[0m"));
        assert!(out.contains('…') && !printed(false, &rows).contains('…'));
    }

    #[test]
    fn lengths_of_time_are_told_in_their_unit() {
        for (s, words) in [
            (0.0, "0 s"),
            (0.25, "250 ms"),
            (2.5, "2.5 s"),
            (90.0, "90 s"),
            (600.0, "10 min"),
            (7200.0, "2 h"),
            (259_200.0, "3 d"),
        ] {
            assert_eq!(seconds(s), words);
        }
    }

    #[test]
    fn a_node_says_why_it_does_not_deliver() {
        let now = look(false).now;
        let held = json!({"ok": true, "held": "throttle", "reasons": []});
        assert_eq!(shown("delivering", &held, now), "held:throttle");
        let stuck = json!({"ok": false, "held": null, "reasons": [{"name": "queue_full"}]});
        assert_eq!(shown("delivering", &stuck, now), "no:queue_full");
    }
}
