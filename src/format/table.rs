//! Tables for people: columns that fit the terminal, numbers to the right, and a footer that says how much there was.

use std::io::Write;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use engine::Result;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::fit::{Slot, fit};
use super::{Out, RowWriter, Style, arrow_failed, count, plural, write_failed};

/// Rows drawn at once when all rows are wanted, so that a long result does not pile up in memory.
const PAGE_ROWS: usize = 10_000;
/// No single cell is wider, even where there is no terminal to fit: a model's weights in one cell help nobody.
const CELL_MAX: usize = 200;
const LINES: &str = "││──├─┼┤│    ┬┴┌┐└┘";
const DOTS: &str = "…";

/// Collects up to a page of cells, then draws them.
pub(super) struct TableWriter {
    out: Out,
    style: Style,
    names: Vec<String>,
    numeric: Vec<bool>,
    /// Cells by row.
    rows: Vec<Vec<String>>,
    rows_seen: u64,
    rows_drawn: u64,
    columns_hidden: usize,
}

impl TableWriter {
    pub(super) fn new(schema: &SchemaRef, out: Out, style: &Style) -> Self {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        let numeric = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        let style = style.clone();
        TableWriter { out, style, names, numeric, rows: vec![], rows_seen: 0, rows_drawn: 0, columns_hidden: 0 }
    }

    fn draw(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let widths: Vec<usize> = (0..self.names.len())
            .map(|column| {
                let cells = rows.iter().map(|row| width_of(&row[column])).max().unwrap_or(0);
                cells.max(if self.style.header { width_of(&self.names[column]) } else { 1 }).min(CELL_MAX)
            })
            .collect();
        let slots = fit(&widths, self.style.width.unwrap_or(usize::MAX));
        let shown = slots.iter().filter(|slot| matches!(slot, Slot::Column { .. })).count();
        self.columns_hidden = self.names.len() - shown;

        let mut table = Table::new();
        table.load_preset(LINES).set_content_arrangement(ContentArrangement::Disabled);
        let line = |cells: &[String]| -> Vec<String> {
            let cell = |slot: &Slot| match slot {
                Slot::Column { index, width } => cut(&cells[*index], *width),
                Slot::Gap => DOTS.to_string(),
            };
            slots.iter().map(cell).collect()
        };
        if self.style.header {
            table.set_header(line(&self.names));
        }
        rows.iter().for_each(|row| {
            table.add_row(line(row));
        });
        for (place, slot) in slots.iter().enumerate() {
            let right = matches!(slot, Slot::Column { index, .. } if self.numeric[*index]);
            if let (true, Some(column)) = (right, table.column_mut(place)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.rows_drawn += rows.len() as u64;
        if !slots.is_empty() {
            writeln!(self.out, "{table}").map_err(write_failed)?;
        }
        Ok(())
    }

    fn footer(&self) -> String {
        let rows = if self.rows_drawn < self.rows_seen {
            format!("{} of {}", count(self.rows_drawn), plural(self.rows_seen, "row"))
        } else {
            plural(self.rows_seen, "row")
        };
        match self.columns_hidden {
            0 => rows,
            hidden => format!("{rows}, {} of {} columns", self.names.len() - hidden, self.names.len()),
        }
    }
}

impl RowWriter for TableWriter {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows_seen += batch.num_rows() as u64;
        let null = self.style.null.clone().unwrap_or_else(|| "NULL".to_string());
        let options = FormatOptions::default().with_null(&null).with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(arrow_failed)?;
        for row in 0..batch.num_rows() {
            let full = self.style.rows_max.is_some_and(|most| self.rows.len() + self.rows_drawn as usize >= most);
            if full {
                break;
            }
            let cells = formatters.iter().map(|cells| cells.value(row).try_to_string()).collect::<Result<Vec<_>, _>>();
            self.rows.push(cells.map_err(arrow_failed)?.into_iter().map(one_line).collect());
            if self.rows.len() == PAGE_ROWS {
                self.draw()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if !self.rows.is_empty() || self.rows_drawn == 0 {
            self.draw()?;
        }
        if self.style.header {
            let footer = self.footer();
            writeln!(self.out, "{footer}").map_err(write_failed)?;
        }
        self.out.flush().map_err(write_failed)
    }
}

/// Control characters would break the lines of the table (or do worse to a terminal).
fn one_line(text: String) -> String {
    if text.chars().any(char::is_control) { text.chars().flat_map(visible).collect() } else { text }
}

fn visible(letter: char) -> Vec<char> {
    if letter.is_control() { letter.escape_default().collect() } else { vec![letter] }
}

fn width_of(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text in at most `width` columns, with dots where it was cut.
fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_string();
    }
    let mut cut = String::new();
    let mut used = 0;
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used >= width {
            break;
        }
        cut.push(letter);
    }
    cut + DOTS
}

/// Whether the result is a plan of EXPLAIN, whose two columns hold lines of text.
pub(super) fn is_plan(schema: &SchemaRef) -> bool {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names == ["plan_type", "plan"] && schema.fields().iter().all(|field| *field.data_type() == DataType::Utf8)
}

/// Plans as they are, below their names: a plan in a table cell cannot be read.
pub(super) struct PlanText {
    out: Out,
}

impl PlanText {
    pub(super) fn new(out: Out) -> Self {
        PlanText { out }
    }
}

impl RowWriter for PlanText {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let (names, plans) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        for (name, plan) in names.iter().zip(plans) {
            let (name, plan) = (name.unwrap_or_default(), plan.unwrap_or_default());
            writeln!(self.out, "-- {name}\n{}", plan.trim_end()).map_err(write_failed)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.out.flush().map_err(write_failed)
    }
}
