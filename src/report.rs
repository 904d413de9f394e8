//! The report at the end of a job, folded from what its statements reported: where the time went, what was committed,
//! what was asserted, which models came out, what it all cost.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent};
use engine::events::{Outcome, StatementReport};
use engine::metrics::Usage;

use crate::color::Paint;
use crate::energy::Energy;
use crate::format::{count, plural, size};
use crate::progress::seconds;

/// What the report is made of.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The script's name as the user gave it.
    pub(crate) name: &'a str,
    /// Statements that ended well, in order.
    pub(crate) statements: &'a [StatementReport],
    /// Statements of the whole script.
    pub(crate) planned: usize,
    pub(crate) elapsed: Duration,
    pub(crate) usage: Usage,
    pub(crate) energy: Energy,
}

/// The report as text; ends with a newline.
pub(crate) fn render(job: &Job<'_>, paint: Paint) -> String {
    let mut text = String::new();
    let done = job.statements.len();
    let state = if done == job.planned {
        plural(done as u64, "statement")
    } else {
        format!("{done} of {}", plural(job.planned as u64, "statement"))
    };
    let _ = writeln!(text, "\n{} {state} in {}", paint.bold(&format!("Job {}:", job.name)), seconds(job.elapsed));
    if done > 0 {
        statement_table(job.statements).trim_fmt().lines().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
    }
    let outcomes = || job.statements.iter().flat_map(|statement| &statement.outcomes);
    section(&mut text, paint, "Parameters", facts(job.statements.iter().filter(|statement| declares(statement))));
    section(&mut text, paint, "Outputs", outputs(outcomes()));
    section(&mut text, paint, "Assertions", outcomes().filter_map(|outcome| assertion_line(outcome, paint)));
    section(&mut text, paint, "Facts", facts(job.statements.iter().filter(|statement| !declares(statement))));
    let usage = [
        format!("CPU {}, peak memory {}", cpu_seconds(job.usage.cpu), size(job.usage.peak_rss_bytes)),
        format!("energy {}", job.energy.line()),
    ];
    section(&mut text, paint, "Cost", usage.into_iter());
    text
}

fn section(text: &mut String, paint: Paint, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        let _ = writeln!(text, "{}", paint.bold(title));
        lines.iter().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
}

fn statement_table(statements: &[StatementReport]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_style(TableComponent::HeaderLines, '─');
    table.set_header(["#", "statement", "time", "rows", "requests", "read", "written"]);
    let bytes = |number: u64| if number == 0 { String::new() } else { size(number) };
    for (index, statement) in statements.iter().enumerate() {
        table.add_row([
            (index + 1).to_string(),
            shortened(&statement.title),
            seconds(statement.elapsed),
            statement.rows.map(count).unwrap_or_default(),
            if statement.requests == 0 { String::new() } else { count(statement.requests) },
            bytes(statement.bytes_read),
            bytes(statement.bytes_written),
        ]);
    }
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((2, 0));
        if place != 1 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn shortened(title: &str) -> String {
    const LETTERS: usize = 48;
    if title.chars().count() <= LETTERS {
        return title.to_string();
    }
    title.chars().take(LETTERS - 1).chain(['…']).collect()
}

/// What was committed, a line each.
fn outputs<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> impl Iterator<Item = String> {
    let committed: Vec<(&str, String)> = outcomes
        .filter_map(|outcome| match outcome {
            Outcome::Committed { location, files, rows, bytes } => {
                let amount = format!("{}, {}, {}", plural(*files, "file"), plural(*rows, "row"), size(*bytes));
                Some((location.as_str(), amount))
            }
            _ => None,
        })
        .collect();
    let width = committed.iter().map(|(location, _)| location.chars().count()).max().unwrap_or(0);
    committed
        .into_iter()
        .map(move |(location, amount)| format!("{location:<width$}  {amount}"))
        .collect::<Vec<_>>()
        .into_iter()
}

fn assertion_line(outcome: &Outcome, paint: Paint) -> Option<String> {
    match outcome {
        Outcome::Assertion { text, held, value, warn_only } => {
            let verdict = match (held, warn_only) {
                (true, _) => paint.green("ok  "),
                (false, true) => paint.yellow_bold("warn"),
                (false, false) => paint.red_bold("fail"),
            };
            let value = if value.is_empty() { String::new() } else { format!("  ({value})") };
            Some(format!("{verdict}  {text}{value}"))
        }
        _ => None,
    }
}

/// Facts in the order in which they came, each once: every model of a job tells the same kernel.
fn facts<'a>(statements: impl Iterator<Item = &'a StatementReport>) -> impl Iterator<Item = String> {
    let mut told: Vec<(&str, &str)> = Vec::new();
    for outcome in statements.flat_map(|statement| &statement.outcomes) {
        if let Outcome::Fact { name, value } = outcome
            && !told.contains(&(name, value))
        {
            told.push((name, value));
        }
    }
    let width = told.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    told.into_iter().map(move |(name, value)| format!("{name:<width$}  {value}")).collect::<Vec<_>>().into_iter()
}

/// Whether the statement's fact is a parameter and its value.
fn declares(statement: &StatementReport) -> bool {
    statement.title.starts_with("DECLARE")
}

fn cpu_seconds(cpu: Duration) -> String {
    format!("{:.1} s", cpu.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report() {
        let fact = |name: &str, value: &str| Outcome::Fact { name: name.to_string(), value: value.to_string() };
        let assertion = |held, value: &str| Outcome::Assertion {
            text: "auc >= $min_auc".to_string(),
            held,
            value: value.to_string(),
            warn_only: !held,
        };
        let statements = [
            StatementReport {
                title: "CREATE MODEL late_flights".to_string(),
                elapsed: Duration::from_millis(2314),
                rows: Some(336_776),
                requests: 1_042,
                bytes_read: 5_000_000,
                bytes_written: 0,
                outcomes: vec![fact("model", "late_flights@1"), fact("kernel", "native 215 GFLOP/s")],
            },
            StatementReport {
                title: "DECLARE min_auc DOUBLE".to_string(),
                outcomes: vec![fact("min_auc", "0.9")],
                ..StatementReport::default()
            },
            StatementReport {
                title: format!("ASSERT {}", "long ".repeat(20)),
                elapsed: Duration::from_millis(12),
                outcomes: vec![assertion(true, "0.9312"), assertion(false, ""), fact("kernel", "native 215 GFLOP/s")],
                ..StatementReport::default()
            },
            StatementReport {
                title: "COPY TO out/".to_string(),
                rows: Some(10),
                bytes_written: 1_234_567,
                outcomes: vec![Outcome::Committed {
                    location: "out/".to_string(),
                    files: 12,
                    rows: 10,
                    bytes: 1_234_567,
                }],
                ..StatementReport::default()
            },
            StatementReport {
                title: "COPY TO out/one.csv".to_string(),
                outcomes: vec![Outcome::Committed {
                    location: "out/one.csv".to_string(),
                    files: 1,
                    rows: 1,
                    bytes: 12,
                }],
                ..StatementReport::default()
            },
        ];
        let job = Job {
            name: "late_flights.sql",
            statements: &statements,
            planned: 6,
            elapsed: Duration::from_secs(3),
            usage: Usage { cpu: Duration::from_millis(6_240), peak_rss_bytes: 412_000_000 },
            energy: Energy::Rapl { joules: 51.0 },
        };
        let text = render(&job, Paint::plain());
        let expected = "
Job late_flights.sql: 5 of 6 statements in 3.00 s
  #  statement                                            time     rows  requests    read  written
──────────────────────────────────────────────────────────────────────────────────────────────────
  1  CREATE MODEL late_flights                          2.31 s  336,776     1,042  5.0 MB
  2  DECLARE min_auc DOUBLE                            0.000 s
  3  ASSERT long long long long long long long long …  0.012 s
  4  COPY TO out/                                      0.000 s       10                     1.2 MB
  5  COPY TO out/one.csv                               0.000 s
Parameters
  min_auc  0.9
Outputs
  out/         12 files, 10 rows, 1.2 MB
  out/one.csv  1 file, 1 row, 12 B
Assertions
  ok    auc >= $min_auc  (0.9312)
  warn  auc >= $min_auc
Facts
  model   late_flights@1
  kernel  native 215 GFLOP/s
Cost
  CPU 6.2 s, peak memory 412.0 MB
  energy 51 J (rapl: measured, whole processor)
";
        assert_eq!(text, expected);
    }
}
