//! Results: a table for people, JSON for machines.

use serde_json::{Map, Value};

/// Rows of named cells, all with the same names.
#[derive(Debug)]
pub struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
    notes: Vec<String>,
}

impl Table {
    /// A table without rows.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Value>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Adds a line below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            println!("{}", self.json());
            return;
        }
        let shown: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(show).collect()).collect();
        let width = |column: usize| {
            let cells = shown.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut text = String::from("|");
            for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                match i {
                    0 => text.push_str(&format!(" {cell:<width$} |")),
                    _ => text.push_str(&format!(" {cell:>width$} |")),
                }
            }
            text
        };
        println!("\n## {}\n\n{}", self.title, line(&self.columns));
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        println!("{}", line(&rule));
        shown.iter().for_each(|row| println!("{}", line(row)));
        if !self.notes.is_empty() {
            println!();
        }
        self.notes.iter().for_each(|note| println!("{note}"));
    }

    fn json(&self) -> Value {
        let row = |cells: &Vec<Value>| {
            let named = self.columns.iter().cloned().zip(cells.iter().cloned());
            Value::Object(named.collect::<Map<_, _>>())
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        serde_json::json!({ "title": self.title, "rows": rows, "notes": self.notes })
    }
}

/// Three digits that count.
fn show(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        Value::Number(number) if number.is_f64() => {
            let value = number.as_f64().unwrap_or(f64::NAN);
            match value.abs() {
                big if big >= 100.0 => format!("{value:.0}"),
                some if some >= 10.0 => format!("{value:.1}"),
                one if one >= 1.0 => format!("{value:.2}"),
                _ => format!("{value:.3}"),
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_the_digits_that_count() {
        let shown = [1234.56, 12.345, 1.2345, 0.12345].map(|v| show(&Value::from(v)));
        assert_eq!(shown, ["1235", "12.3", "1.23", "0.123"]);
        assert_eq!((show(&Value::Null), show(&Value::from(7))), ("-".into(), "7".into()));
    }
}
