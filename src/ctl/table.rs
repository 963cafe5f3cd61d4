//! Tables for a terminal. Whatever a client named itself, no byte of it commands the terminal.

/// Whether a character would command a terminal, turn the text or hide in it.
pub fn is_obeyed(c: char) -> bool {
    // Line and paragraph separators, marks of direction, what has no width, the private use area.
    let is_tricky = matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        | '\u{e000}'..='\u{f8ff}' | '\u{061c}' | '\u{fff9}'..='\u{fffb}');
    c.is_control() || is_tricky
}

/// Text of a client as it may stand on a terminal: control characters, and what turns or hides text, as escapes.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A time that has passed or will, in its two largest units: `3d 4h`, `12.3s`.
pub fn ago(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{}.{}s", s, ms % 1_000 / 100),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Rows under headers, in columns.
#[derive(Debug)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(headers: &[&'static str]) -> Self {
        Self {
            headers: headers.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, whose cells may hold anything.
    pub fn row(&mut self, cells: &[&str]) {
        self.rows
            .push(cells.iter().map(|cell| shown(cell)).collect());
    }

    /// The table as text; the headers alone, where it has no rows.
    pub fn text(&self) -> String {
        let width = |cell: &str| cell.chars().count();
        let mut widths: Vec<usize> = self.headers.iter().map(|header| width(header)).collect();
        for row in &self.rows {
            for (at, cell) in widths.iter_mut().zip(row) {
                *at = (*at).max(width(cell));
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (cell, wanted) in cells.zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(wanted - width(cell) + 2));
            }
            line.truncate(line.trim_end().len());
            line + "\n"
        };
        let mut text = line(&mut self.headers.iter().copied());
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_commands_the_terminal() {
        let name = "a\u{1b}[2Jb\nc\u{202e}d\u{9b}31m\0é/#+";
        let shown = shown(name);
        assert_eq!(shown, "a\\u{1b}[2Jb\\u{a}c\\u{202e}d\\u{9b}31m\\u{0}é/#+");
        let mut table = Table::new(&["client", "n"]);
        table.row(&[name, "1"]);
        assert!(!table.text().contains('\u{1b}'));
        assert_eq!(table.text().lines().count(), 2);
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(&["client", "queue"]);
        table.row(&["ä", "1"]);
        table.row(&["longer-name", "20"]);
        assert_eq!(
            table.text(),
            "client       queue\nä            1\nlonger-name  20\n"
        );
    }

    #[test]
    fn times_have_two_units() {
        for (ms, text) in [
            (0, "0.0s"),
            (59_950, "59.9s"),
            (61_000, "1m 1s"),
            (3_600_000, "1h 0m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(ago(ms), text);
        }
    }
}
