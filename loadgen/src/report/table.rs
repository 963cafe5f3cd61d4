//! A table that is shown in a terminal and in a page.

use super::units::{cut, plain};

/// Characters of a cell in a terminal; what is longer is cut.
const CELL_CHARS_MAX: usize = 48;

/// See the module. The first column is text, the others are figures.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// What it is about, with what its figures mean.
    pub title: String,
    /// The columns' names; the first column's is a word for the table in a terminal.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Sentences below it.
    pub notes: Vec<Note>,
}

/// A row of a [`Table`].
#[derive(Debug, Default)]
pub(super) struct Row {
    /// One cell for each column.
    pub cells: Vec<Cell>,
}

/// A cell.
#[derive(Debug, Default, Clone)]
pub(super) struct Cell {
    /// What it says.
    pub text: String,
    /// It is a reason for the run to have failed, or something to look at.
    pub bad: bool,
}

/// A sentence below a table.
#[derive(Debug)]
pub(super) struct Note {
    /// What it says.
    pub text: String,
    /// As in [`Cell::bad`].
    pub bad: bool,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, bad: false }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Cell {
    /// A cell that stands out when `bad`.
    pub fn marked(text: String, bad: bool) -> Self {
        Self { text, bad }
    }
}

/// How a terminal shows things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// With colours.
    pub color: bool,
}

impl Style {
    fn wrap(self, codes: &str, text: &str) -> String {
        if self.color {
            format!("\u{1b}[{codes}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Good news.
    pub fn good(self, text: &str) -> String {
        self.wrap("1;32", text)
    }

    /// Bad news.
    pub fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// To be read with care.
    pub fn warn(self, text: &str) -> String {
        self.wrap("1;33", text)
    }

    /// A heading.
    pub fn head(self, text: &str) -> String {
        self.wrap("1", text)
    }
}

impl Table {
    /// An empty table.
    pub fn new(title: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            head: head.iter().map(|&name| name.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row { cells });
    }

    /// Adds a sentence.
    pub fn note(&mut self, text: impl Into<String>, bad: bool) {
        self.notes.push(Note {
            text: text.into(),
            bad,
        });
    }

    /// For a terminal: aligned columns, then the notes, each line ended.
    pub fn text(&self, style: Style) -> String {
        let shown = |text: &str| cut(&plain(text), CELL_CHARS_MAX);
        let head: Vec<String> = self.head.iter().map(|name| shown(name)).collect();
        let rows: Vec<Vec<(String, bool)>> = self
            .rows
            .iter()
            .map(|row| {
                let cells = row.cells.iter();
                cells.map(|cell| (shown(&cell.text), cell.bad)).collect()
            })
            .collect();
        let width = |column: usize| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|(text, _)| text);
            let texts = cells.chain(head.get(column));
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let aligned = |column: usize, text: &str| {
            let width = widths.get(column).copied().unwrap_or(0);
            if column == 0 {
                format!("{text:<width$}")
            } else {
                format!("  {text:>width$}")
            }
        };
        let mut text = String::new();
        let mut line = |cells: Vec<String>| {
            text.push_str(cells.concat().trim_end());
            text.push('\n');
        };
        let cells = head.iter().enumerate();
        line(vec![
            style.head(
                cells
                    .map(|(column, name)| aligned(column, name))
                    .collect::<String>()
                    .trim_end(),
            ),
        ]);
        for row in &rows {
            let cells = row.iter().enumerate();
            line(
                cells
                    .map(|(column, (text, bad))| {
                        let text = aligned(column, text);
                        if *bad { style.bad(&text) } else { text }
                    })
                    .collect(),
            );
        }
        for note in &self.notes {
            let note_text = format!("  {}", plain(&note.text));
            line(vec![if note.bad {
                style.bad(&note_text)
            } else {
                note_text
            }]);
        }
        text
    }

    /// For a page, every text escaped.
    pub fn html(&self) -> String {
        let mut html = String::from("<section class=\"card\">");
        html.push_str(&format!(
            "<h2>{}</h2><div class=\"scroll\">",
            escape(&self.title)
        ));
        html.push_str("<table><thead><tr>");
        for (column, name) in self.head.iter().enumerate() {
            // The first name is the table's own, which the title says.
            let name = if column == 0 { "" } else { name };
            html.push_str(&format!("<th scope=\"col\">{}</th>", escape(name)));
        }
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            html.push_str("<tr>");
            for (column, cell) in row.cells.iter().enumerate() {
                let class = if cell.bad { " class=\"bad\"" } else { "" };
                let text = escape(&cell.text);
                html.push_str(&if column == 0 {
                    format!("<th scope=\"row\"{class}>{text}</th>")
                } else {
                    format!("<td{class}>{text}</td>")
                });
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>");
        for note in &self.notes {
            let class = if note.bad { "note bad" } else { "note" };
            html.push_str(&format!("<p class=\"{class}\">{}</p>", escape(&note.text)));
        }
        html.push_str("</section>");
        html
    }
}

/// Text for HTML, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Fruit, by weight", &["FRUIT", "g", "price"]);
        table.row(vec!["äpple".into(), "1,200".into(), "3".into()]);
        table.row(vec![
            "<b>fig\u{1b}".into(),
            Cell::marked("5".into(), true),
            "12".into(),
        ]);
        table.note("a & b", false);
        table
    }

    #[test]
    fn columns_are_aligned_by_characters_and_colours_do_not_shift_them() {
        let expected = "FRUIT        g  price\n\
                        äpple    1,200      3\n\
                        <b>fig\u{fffd}      5     12\n  a & b\n";
        assert_eq!(table().text(Style { color: false }), expected);
        let mut colored = table().text(Style { color: true });
        assert!(
            colored.contains("\u{1b}[1;31m      5\u{1b}[0m"),
            "{colored}"
        );
        for code in ["\u{1b}[1;31m", "\u{1b}[1m", "\u{1b}[0m"] {
            colored = colored.replace(code, "");
        }
        assert_eq!(colored, expected);
    }

    #[test]
    fn a_page_shows_text_and_runs_none() {
        let html = table().html();
        assert!(html.contains("&lt;b&gt;fig"), "{html}");
        assert!(html.contains("<td class=\"bad\">5</td>"), "{html}");
        assert!(html.contains("a &amp; b"), "{html}");
        assert_eq!(escape("\"'<>&"), "&quot;&#39;&lt;&gt;&amp;");
    }
}
