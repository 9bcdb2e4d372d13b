//! Tables for people: aligned columns, nothing else.

/// Characters of an id that are enough to tell it from others.
const SHORT_ID: usize = 12;

/// Rows under headings.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with its headings.
    pub fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| (*heading).to_owned())
                    .collect(),
            ],
        }
    }

    /// Adds a row, with a value for each heading. Line ends inside a value become spaces, and an
    /// empty value a dash, so that columns can be counted.
    pub fn row<const N: usize>(&mut self, values: [String; N]) {
        let values = values.into_iter().map(|value| match value.as_str() {
            "" => "-".to_owned(),
            text => text.replace(char::is_control, " "),
        });
        self.rows.push(values.collect());
    }

    /// The whole table.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns)
            .map(|column| width(column).unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            text += cells.collect::<Vec<_>>().join("   ").trim_end();
            text.push('\n');
        }
        text
    }
}

/// The beginning of an id, or all of it.
pub fn id(id: &str, no_trunc: bool) -> String {
    if no_trunc {
        id.to_owned()
    } else {
        id.chars().take(SHORT_ID).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_never_empty() {
        let mut table = Table::new(&["ID", "NAME", "ERROR"]);
        table.row(["a".into(), "übung".into(), String::new()]);
        table.row(["0123456789ab".into(), "x".into(), "two\nlines".into()]);
        assert_eq!(
            table.render(),
            "ID             NAME    ERROR\n\
             a              übung   -\n\
             0123456789ab   x       two lines\n"
        );
    }

    #[test]
    fn ids_are_shortened_on_request() {
        assert_eq!(id("0123456789abcdef", false), "0123456789ab");
        assert_eq!(id("0123456789abcdef", true), "0123456789abcdef");
        assert_eq!(id("web.1", false), "web.1");
    }
}
