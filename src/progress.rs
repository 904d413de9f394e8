//! What a running job shows on stderr: bars on a terminal, plain lines without times of day otherwise. It is fed by the
//! engine's events and draws; it keeps no figures for the report.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::events::{Event, EventSink, Outcome, Progress, StatementReport};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::color::Paint;
use crate::diagnostic::warning;
use crate::format::{count, plural, size};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Warnings only.
    Quiet,
    /// What the statements left behind: for `-c`, `-f` and the shell.
    Outcomes,
    /// A line for each statement and for each finished piece of long work: for `run`.
    Statements,
}

/// Draws events. Cheap to clone; all clones draw on the same screen.
#[derive(Clone)]
pub(crate) struct Display {
    screen: Arc<Screen>,
}

struct Screen {
    voice: Voice,
    paint: Paint,
    bars: Option<MultiProgress>,
    /// Where plain lines go; stderr but for the tests.
    lines: Mutex<Box<dyn Write + Send>>,
    drawn: Mutex<Drawn>,
}

#[derive(Default)]
struct Drawn {
    statement: Option<ProgressBar>,
    tasks: BTreeMap<String, ProgressBar>,
    /// Plain lines: the tasks that were already told to be done.
    told: Vec<String>,
    /// Rows are being printed: nothing may be drawn between them.
    paused: bool,
}

impl Display {
    /// Draws on stderr.
    pub(crate) fn new(voice: Voice, with_bars: bool, paint: Paint) -> Self {
        let bars = with_bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Display::with_lines(voice, bars, paint, Box::new(std::io::stderr()))
    }

    fn with_lines(voice: Voice, bars: Option<MultiProgress>, paint: Paint, lines: Box<dyn Write + Send>) -> Self {
        let screen = Screen { voice, paint, bars, lines: Mutex::new(lines), drawn: Mutex::default() };
        Display { screen: Arc::new(screen) }
    }

    /// The function to give to the engine.
    pub(crate) fn sink(&self) -> EventSink {
        let display = self.clone();
        Arc::new(move |event| display.show(event))
    }

    /// Prints a line above the bars.
    pub(crate) fn line(&self, text: &str) {
        let write = || {
            let mut lines = self.screen.lines.lock().unwrap_or_else(PoisonError::into_inner);
            // A closed stderr is no reason to stop a job.
            let _ = writeln!(lines, "{text}");
        };
        match &self.screen.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Takes the bars away while rows are printed.
    pub(crate) fn pause(&self) {
        let mut drawn = self.drawn();
        drawn.paused = true;
        clear(&mut drawn);
    }

    /// Bars may be drawn again.
    pub(crate) fn resume(&self) {
        self.drawn().paused = false;
    }

    /// Takes everything away, at the end of a job.
    pub(crate) fn close(&self) {
        clear(&mut self.drawn());
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.screen.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, event: Event) {
        let screen = &self.screen;
        match event {
            Event::StatementStarted { number, count, title } => self.begin(number, count, &title),
            Event::Progress(progress) => self.progress(&progress),
            Event::StatementFinished { report, .. } => self.end(&report),
            Event::StatementFailed { .. } => self.close(),
            Event::Note(text) if screen.voice != Voice::Quiet => self.line(&text),
            Event::Note(_) => {}
            Event::Warning(text) => self.line(&warning(&text, screen.paint)),
        }
    }

    fn begin(&self, number: usize, count: usize, title: &str) {
        let mut drawn = self.drawn();
        clear(&mut drawn);
        drawn.told.clear();
        let Some(bars) = &self.screen.bars else { return };
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = bars.add(ProgressBar::new_spinner().with_style(style));
        bar.set_message(if count > 1 { format!("[{number}/{count}] {title}") } else { title.to_string() });
        bar.enable_steady_tick(Duration::from_millis(120));
        drawn.statement = Some(bar);
    }

    fn progress(&self, progress: &Progress) {
        let done = progress.total.is_some_and(|total| progress.done >= total);
        if self.screen.bars.is_some() {
            self.draw(progress);
        } else if done && self.screen.voice == Voice::Statements {
            let mut drawn = self.drawn();
            if !drawn.told.contains(&progress.task) {
                drawn.told.push(progress.task.clone());
                drop(drawn);
                self.line(&format!("  {}: {}", progress.task, figures(progress)));
            }
        }
    }

    fn draw(&self, progress: &Progress) {
        let Some(bars) = &self.screen.bars else { return };
        let mut drawn = self.drawn();
        if drawn.paused {
            return;
        }
        if !drawn.tasks.contains_key(&progress.task) {
            // Work that is done makes room: at most one bar lingers while the next one runs.
            drawn.tasks.retain(|_, bar| {
                let running = !bar.is_finished();
                if !running {
                    bar.finish_and_clear();
                    bars.remove(bar);
                }
                running
            });
            let bar = bars.add(ProgressBar::new(progress.total.unwrap_or(0)).with_style(bar_style(progress)));
            bar.set_prefix(progress.task.clone());
            drawn.tasks.insert(progress.task.clone(), bar);
        }
        let Some(bar) = drawn.tasks.get(&progress.task) else { return };
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_message(fields(progress));
        bar.set_position(progress.done);
        if progress.total.is_some_and(|total| progress.done >= total) {
            bar.abandon();
        }
    }

    fn end(&self, report: &StatementReport) {
        clear(&mut self.drawn());
        match self.screen.voice {
            Voice::Quiet => {}
            // A parameter's value is no news to who gave it.
            Voice::Outcomes if report.title.starts_with("DECLARE") => {}
            Voice::Outcomes => report.outcomes.iter().filter_map(outcome_line).for_each(|line| self.line(&line)),
            Voice::Statements => self.line(&format!("{} {}", self.screen.paint.green("done"), statement_line(report))),
        }
    }
}

fn clear(drawn: &mut Drawn) {
    for (_, bar) in std::mem::take(&mut drawn.tasks) {
        bar.finish_and_clear();
    }
    if let Some(bar) = drawn.statement.take() {
        bar.finish_and_clear();
    }
}

fn bar_style(progress: &Progress) -> ProgressStyle {
    let amount = match (progress.unit, progress.total) {
        ("bytes", Some(_)) => "{decimal_bytes}/{decimal_total_bytes}".to_string(),
        ("bytes", None) => "{decimal_bytes}".to_string(),
        (unit, Some(_)) => format!("{{human_pos}}/{{human_len}} {unit}"),
        (unit, None) => format!("{{human_pos}} {unit}"),
    };
    let template = match progress.total {
        Some(_) => format!("  {{prefix:<18}} {{bar:24.cyan/dim}} {amount} {{msg:.dim}}"),
        None => format!("  {{prefix:<18}} {amount} {{msg:.dim}}"),
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

fn fields(progress: &Progress) -> String {
    let fields: Vec<String> = progress.fields.iter().map(|(name, value)| format!("{name} {value}")).collect();
    fields.join("  ")
}

/// `336,776 rows, loss 0.3121`.
fn figures(progress: &Progress) -> String {
    let amount = match progress.unit {
        "bytes" => size(progress.done),
        unit => format!("{} {unit}", count(progress.done)),
    };
    let fields = progress.fields.iter().map(|(name, value)| format!("{name} {value}"));
    [amount].into_iter().chain(fields).collect::<Vec<_>>().join(", ")
}

/// `COPY TO out/ (0.52 s, 67,355 rows)`.
fn statement_line(report: &StatementReport) -> String {
    let time = seconds(report.elapsed);
    match report.rows {
        Some(rows) => format!("{} ({time}, {})", report.title, plural(rows, "row")),
        None => format!("{} ({time})", report.title),
    }
}

/// The plain lines for an event, for a job that nobody watches; `None` for one that is no news afterwards.
pub(crate) fn plain_line(event: &Event) -> Option<String> {
    match event {
        Event::StatementStarted { .. } | Event::StatementFailed { .. } => None,
        Event::Progress(progress) => {
            let done = progress.total.is_some_and(|total| progress.done >= total);
            done.then(|| format!("  {}: {}", progress.task, figures(progress)))
        }
        Event::StatementFinished { report, .. } => {
            let outcomes = report.outcomes.iter().filter_map(outcome_line).map(|line| format!("  {line}"));
            let lines = [format!("done {}", statement_line(report))].into_iter().chain(outcomes);
            Some(lines.collect::<Vec<_>>().join("\n"))
        }
        Event::Note(text) => Some(text.clone()),
        Event::Warning(text) => Some(format!("warning: {text}")),
    }
}

/// What is worth a line when there is no report.
fn outcome_line(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Committed { location, files, rows, bytes } => {
            Some(format!("wrote {} ({}, {}) to {location}", plural(*rows, "row"), plural(*files, "file"), size(*bytes)))
        }
        // One that failed is the job's error or a warning already.
        Outcome::Assertion { .. } => None,
        Outcome::Fact { name, value } => Some(format!("{name}: {value}")),
    }
}

/// A wall time: `0.004 s`, `2.31 s`, `74.2 s`, `12 min 3 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 0.1 => format!("{seconds:.3} s"),
        _ if seconds < 10.0 => format!("{seconds:.2} s"),
        _ if seconds < 120.0 => format!("{seconds:.1} s"),
        _ => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn events() -> Vec<Event> {
        let epoch = |done| {
            Event::Progress(Progress {
                task: "epoch 1/2".to_string(),
                done,
                total: Some(8421),
                unit: "steps",
                fields: vec![("loss", "0.3121".to_string()), ("samples/s", "812,000".to_string())],
            })
        };
        let committed = Outcome::Committed { location: "out/".to_string(), files: 12, rows: 67_355, bytes: 1_234_567 };
        let report = StatementReport {
            title: "CREATE MODEL m".to_string(),
            elapsed: Duration::from_millis(2314),
            rows: Some(1),
            outcomes: vec![committed, Outcome::Fact { name: "model".to_string(), value: "m@1".to_string() }],
            ..StatementReport::default()
        };
        vec![
            Event::StatementStarted { number: 1, count: 3, title: "CREATE MODEL m".to_string() },
            epoch(10),
            epoch(8421),
            epoch(8421),
            Event::Note("5 rows have no label".to_string()),
            Event::Warning("the table is empty".to_string()),
            Event::StatementFinished { number: 1, report },
        ]
    }

    #[test]
    fn plain_lines_for_each_voice() {
        let cases = [
            (Voice::Quiet, "warning: the table is empty\n"),
            (
                Voice::Outcomes,
                "5 rows have no label\nwarning: the table is empty\nwrote 67,355 rows (12 files, 1.2 MB) to out/\nmodel: m@1\n",
            ),
            (
                Voice::Statements,
                "  epoch 1/2: 8,421 steps, loss 0.3121, samples/s 812,000\n5 rows have no label\nwarning: the table is empty\n\
                 done CREATE MODEL m (2.31 s, 1 row)\n",
            ),
        ];
        for (voice, expected) in cases {
            let shared = Shared::default();
            let display = Display::with_lines(voice, None, Paint::plain(), Box::new(shared.clone()));
            let sink = display.sink();
            events().into_iter().for_each(|event| sink(event));
            assert_eq!(String::from_utf8(shared.0.lock().unwrap().clone()).unwrap(), expected, "{voice:?}");
        }
    }

    #[test]
    fn bars_are_gone_when_the_statement_is() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let display = Display::with_lines(Voice::Statements, Some(bars), Paint::plain(), Box::new(Shared::default()));
        let sink = display.sink();
        for (index, event) in events().into_iter().enumerate() {
            sink(event);
            assert_eq!(display.drawn().tasks.len(), usize::from((1..6).contains(&index)), "after event {index}");
        }
        assert!(display.drawn().statement.is_none());
    }

    #[test]
    fn wall_times() {
        for (milliseconds, text) in [(4, "0.004 s"), (2314, "2.31 s"), (74_249, "74.2 s"), (723_000, "12 min 3 s")] {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), text);
        }
    }
}
