//! The SQL shell: a line editor around the same scripts that `run` runs, one session for all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::datatypes::DataType;
use datafusion::common::TableReference;
use datafusion::datasource::TableType;
use engine::{Error, Result, Script, Session};
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::args::Format;
use crate::command::{Console, Job, read_script};
use crate::diagnostic::Exit;
use crate::printer::{Printer, print_text};
use crate::progress::seconds;
use editor::{Names, SqlHelper};
use meta::Meta;

mod editor;
mod meta;

const PROMPT: &str = "gristmill> ";

/// Opens the shell and stays until the user leaves.
pub(crate) fn open(console: &Console, parameters: Vec<(String, String)>) -> Result<Exit> {
    let mut shell = Shell { console, session: console.session()?, parameters, format: None, timer: false };
    crate::terminal::hide_control_echo();
    let mut editor = shell.editor()?;
    let history = history_file();
    if let Some(history) = &history {
        // The first time there is none.
        let _ = editor.load_history(history);
    }
    console.remark(&format!("gristmill {}: .help for help, Ctrl-D to leave", env!("CARGO_PKG_VERSION")));
    loop {
        if let Some(helper) = editor.helper_mut() {
            helper.names = shell.names();
        }
        console.interrupt.set_idle(true);
        let typed = editor.readline(PROMPT);
        console.interrupt.set_idle(false);
        match typed {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => {
                let _ = editor.add_history_entry(text.trim_end());
                if let Some(history) = &history {
                    keep(&mut editor, history);
                }
                if shell.step(&text) == Step::Leave {
                    return Ok(Exit::Ok);
                }
            }
            // Ctrl-C drops what was typed, Ctrl-D leaves.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(Exit::Ok),
            Err(error) => return Err(Error::Usage(format!("cannot read from the terminal: {error}"))),
        }
    }
}

struct Shell<'a> {
    console: &'a Console,
    session: Session,
    parameters: Vec<(String, String)>,
    /// What `.mode` said.
    format: Option<Format>,
    timer: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Stay,
    Leave,
}

impl Shell<'_> {
    fn editor(&self) -> Result<Editor<SqlHelper, FileHistory>> {
        let failed = |error: ReadlineError| Error::Usage(format!("cannot open the terminal: {error}"));
        let mut config = Config::builder()
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .bracketed_paste(true)
            .build();
        config.set_max_history_size(self.console.config.settings.history_lines).map_err(failed)?;
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(SqlHelper::new(self.console.paint.is_colored())));
        Ok(editor)
    }

    /// Does what was typed; errors are shown and the shell goes on.
    fn step(&mut self, text: &str) -> Step {
        let begun = Instant::now();
        self.console.interrupt.renew();
        let is_meta = meta::is_meta(text);
        let done = if is_meta { self.command(text) } else { self.statements(text) };
        if let Err(error) = &done {
            self.console.fail(error);
        }
        if self.timer && !is_meta {
            self.console.remark(&format!("time: {}", seconds(begun.elapsed())));
        }
        done.unwrap_or(Step::Stay)
    }

    fn statements(&self, text: &str) -> Result<Step> {
        self.run(&Script::parse("<shell>", text)?)
    }

    /// Runs a script in the shell's session; its errors are shown by the job itself.
    fn run(&self, script: &Script) -> Result<Step> {
        // A parameter is given to the script that declares it.
        let declared = |name: &str| script.text().to_lowercase().contains(&name.to_lowercase());
        let parameters = self.parameters.iter().filter(|(name, _)| declared(name)).cloned().collect();
        let job = Job {
            console: self.console,
            session: &self.session,
            script,
            parameters,
            with_report: false,
            generated: false,
        };
        job.run(self.printer()?);
        Ok(Step::Stay)
    }

    fn printer(&self) -> Result<Printer> {
        let mut settings = self.console.config.settings.clone();
        settings.format = self.format.or(settings.format);
        self.console.printer_with(&settings)
    }

    fn command(&mut self, text: &str) -> Result<Step> {
        match Meta::parse(text)? {
            Meta::Quit => return Ok(Step::Leave),
            Meta::Help => print_text(&meta::help())?,
            Meta::Tables => self.show_tables()?,
            Meta::Schema(table) => self.show_schema(table.as_deref())?,
            Meta::Mode(Some(format)) => self.format = Some(format),
            Meta::Mode(None) => print_text(&format!("{}\n", self.mode()))?,
            Meta::Timer(wanted) => {
                self.timer = wanted.unwrap_or(!self.timer);
                print_text(if self.timer { "timer on\n" } else { "timer off\n" })?;
            }
            Meta::Read(file) => return self.run(&read_script(Path::new(&file))?),
        }
        Ok(Step::Stay)
    }

    fn mode(&self) -> String {
        let format = self.format.or(self.console.config.settings.format).unwrap_or(Format::Table);
        format!("{format:?}").to_lowercase()
    }

    fn show_tables(&self) -> Result<()> {
        let rows = self.console.wait(async {
            let mut rows = Vec::new();
            for name in self.tables() {
                let Ok(table) = self.session.context().table_provider(reference(&name)).await else { continue };
                let kind = if table.table_type() == TableType::View { "view" } else { "table" }.to_string();
                rows.push(vec![Some(name), Some(kind), Some(table.schema().fields().len().to_string())]);
            }
            rows
        });
        self.print(&["table", "kind", "columns"], rows)
    }

    fn show_schema(&self, wanted: Option<&str>) -> Result<()> {
        let tables = match wanted {
            Some(table) => vec![table.to_string()],
            None => self.tables(),
        };
        let rows = self.console.wait(async {
            let mut rows = Vec::new();
            for name in tables {
                let context = self.session.context();
                let table = match context.table_provider(reference(&name)).await {
                    Ok(table) => table,
                    // As typed, where case does not count.
                    Err(_) => context.table_provider(&*name).await.map_err(|_| self.unknown_table(&name))?,
                };
                rows.extend(table.schema().fields().iter().map(|field| {
                    let nullable = if field.is_nullable() { "yes" } else { "no" };
                    let cells = [name.clone(), field.name().clone(), sql_type(field.data_type()), nullable.to_string()];
                    // Of one table its name need not be told.
                    cells.into_iter().skip(usize::from(wanted.is_some())).map(Some).collect::<Vec<_>>()
                }));
            }
            Ok::<_, Error>(rows)
        })?;
        let names = ["table", "column", "type", "nullable"];
        self.print(&names[usize::from(wanted.is_some())..], rows)
    }

    fn unknown_table(&self, name: &str) -> Error {
        let error = Error::invalid(format!("there is no table `{name}`"));
        let tables = self.tables();
        match engine::near(name, tables.iter().map(String::as_str)) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error.with_hint(".tables lists what there is"),
        }
    }

    fn print(&self, names: &[&str], rows: Vec<Vec<Option<String>>>) -> Result<()> {
        let printer = self.printer()?;
        self.console.wait(printer.print_strings(names, &rows))?;
        self.console.display.resume();
        self.console.commit(printer)
    }

    /// Tables that the user made.
    fn tables(&self) -> Vec<String> {
        let mut tables = self.session.table_names();
        tables.retain(|name| !name.starts_with("information_schema."));
        tables
    }

    fn names(&self) -> Names {
        let tables: BTreeMap<String, Vec<String>> = self.console.wait(async {
            let mut tables = BTreeMap::new();
            for name in self.tables() {
                let Ok(table) = self.session.context().table_provider(reference(&name)).await else { continue };
                let columns = table.schema().fields().iter().map(|field| field.name().clone()).collect();
                tables.insert(name, columns);
            }
            tables
        });
        Names { tables, functions: self.session.function_names(), models: self.models() }
    }

    /// Names of models; a warehouse that cannot be read has none to complete.
    fn models(&self) -> Vec<String> {
        let listed = self.console.wait(ml::registry::list(&self.session)).unwrap_or_default();
        let mut names: Vec<String> = listed.into_iter().map(|model| model.name).collect();
        names.dedup();
        names
    }
}

/// The type as SQL spells it, where SQL has a word for it.
fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_string(),
        DataType::Int16 => "SMALLINT".to_string(),
        DataType::Int32 => "INT".to_string(),
        DataType::Int64 => "BIGINT".to_string(),
        DataType::Float32 => "REAL".to_string(),
        DataType::Float64 => "DOUBLE".to_string(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".to_string(),
        DataType::Date32 | DataType::Date64 => "DATE".to_string(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_string(),
        DataType::Timestamp(_, Some(zone)) => format!("TIMESTAMP ({zone})"),
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", sql_type(item.data_type())),
        DataType::FixedSizeList(item, length) => format!("{}[{length}]", sql_type(item.data_type())),
        other => other.to_string(),
    }
}

/// Writes the history; a history that cannot be kept is no reason to leave.
fn keep(editor: &mut Editor<SqlHelper, FileHistory>, history: &Path) {
    let made = history.parent().map_or(Ok(()), std::fs::create_dir_all);
    if made.is_ok() {
        let _ = editor.append_history(history);
    }
}

/// The table of exactly this name.
fn reference(name: &str) -> TableReference {
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        [schema, table] => TableReference::partial(schema, table),
        [catalog, schema, table] => TableReference::full(catalog, schema, table),
        _ => TableReference::bare(name),
    }
}

/// Under the XDG state directory, never in the working directory.
fn history_file() -> Option<PathBuf> {
    let dirs = directories::BaseDirs::new()?;
    let state = dirs.state_dir().unwrap_or(dirs.data_local_dir());
    Some(state.join("gristmill").join("history"))
}
