//! The verbs: each takes what was typed and the console, and says how the process ends.

use std::io::IsTerminal;
use std::time::Duration;

use engine::cluster::ClusterClient;
use engine::metrics::Usage;
use engine::work::Work;
use engine::{Error, Result, Session};
use storage::Stores;
use tokio::runtime::Runtime;

use crate::args::{Args, CommonArgs, OutputArgs, TextArgs, Verb};
use crate::color::Paint;
use crate::config::{Config, Settings, Surroundings};
use crate::diagnostic::{Exit, render};
use crate::interrupt::Interrupt;
use crate::printer::Printer;
use crate::progress::{Display, Voice};

mod check;
mod cluster;
mod completions;
mod config;
mod executor;
mod job;
mod jobs;
mod man;
mod model_diff;
mod models;
mod places;
mod predict;
mod run;
mod scheduler;
mod sql;
mod tables;

pub(crate) use job::{Job, read_script};

/// Does what was asked.
pub(crate) fn dispatch(args: Args) -> Exit {
    let paint = Paint::new(std::io::stderr().is_terminal());
    match verb(args) {
        Ok(exit) => exit,
        // Errors before there is a console: usage and configuration.
        Err(error) => told(&error, paint),
    }
}

/// Tells of an error that came when there was no console, or none any more.
pub(crate) fn fail_early(error: &Error) -> Exit {
    told(error, Paint::new(std::io::stderr().is_terminal()))
}

fn told(error: &Error, paint: Paint) -> Exit {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), render(error, paint).as_bytes());
    Exit::of(error)
}

fn verb(args: Args) -> Result<Exit> {
    if let Some(flag) = args.misplaced() {
        return Err(Error::Usage(format!("{flag} belongs after the verb")));
    }
    let Args { verb, text, job, output, common } = args;
    match verb {
        Some(Verb::Run(run)) => run::run(&Console::new(&common, &run.output, Voice::Statements)?, &run),
        Some(Verb::Check(check)) => {
            check::check(&Console::new(&common, &OutputArgs::default(), Voice::Outcomes)?, &check)
        }
        Some(Verb::Sql(sql)) => {
            sql::sql(&Console::new(&common, &sql.output, Voice::Outcomes)?, &sql.text, &sql.job, true)
        }
        Some(Verb::Models(action)) => models::models(&common, action.action),
        Some(Verb::Predict(args)) => predict::predict(&Console::new(&common, &args.output, Voice::Outcomes)?, &args),
        Some(Verb::Tables(action)) => tables::tables(&common, action.action),
        Some(Verb::Ls(args)) => places::ls(&Console::new(&common, &args.output, Voice::Outcomes)?, &args),
        Some(Verb::Du(args)) => places::du(&Console::new(&common, &args.output, Voice::Outcomes)?, &args),
        Some(Verb::Doctor(args)) => places::doctor(&Console::new(&common, &args.output, Voice::Outcomes)?, &args),
        Some(Verb::Submit(args)) => jobs::submit(&role(&common)?, &args),
        Some(Verb::Jobs(args)) => jobs::list(&Console::new(&common, &args.output, Voice::Outcomes)?),
        Some(Verb::Status(args)) => jobs::status(&Console::new(&common, &args.output, Voice::Outcomes)?, &args),
        Some(Verb::Logs(args)) => jobs::logs(&role(&common)?, &args),
        Some(Verb::Kill(args)) => jobs::kill(&role(&common)?, &args),
        Some(Verb::Cluster(action)) => cluster::cluster(&common, action.action),
        Some(Verb::Scheduler(args)) => scheduler::scheduler(&role(&common)?, &args),
        Some(Verb::Executor(args)) => executor::executor(&role(&common)?, args),
        Some(Verb::Config(action)) => config::config(&common, action.action),
        Some(Verb::Completions(completions)) => completions::completions(completions.shell),
        Some(Verb::Man(man)) => man::man(man.dir.as_deref()),
        None if nothing_typed(&text) && std::io::stdin().is_terminal() => {
            // Not a mistake, but nothing to do either.
            crate::printer::print_text(&crate::long_help())?;
            Ok(Exit::Usage)
        }
        None => sql::sql(&Console::new(&common, &output, Voice::Outcomes)?, &text, &job, false),
    }
}

/// The console of a process that serves others.
fn role(common: &CommonArgs) -> Result<Console> {
    Console::new(common, &OutputArgs::default(), Voice::Outcomes)
}

fn nothing_typed(text: &TextArgs) -> bool {
    text.command.is_empty() && text.file.is_none()
}

/// What every verb that touches data is given.
pub(crate) struct Console {
    pub(crate) config: Config,
    pub(crate) paint: Paint,
    pub(crate) display: Display,
    pub(crate) interrupt: Interrupt,
    pub(crate) voice: Voice,
    pub(crate) verbose: u8,
    output: Option<String>,
    /// Always there until the console goes.
    runtime: Option<Runtime>,
}

impl Console {
    /// Reads the configuration and starts the threads. `voice` is how much this verb says unless it is told otherwise.
    pub(crate) fn new(common: &CommonArgs, output: &OutputArgs, voice: Voice) -> Result<Self> {
        let extension = gristmill::extension();
        let config = Config::load(&Surroundings::of_process(), common, output, &extension.settings)?;
        match config.options.memory_limit {
            Some(_) => crate::allocator::give_back_soon(),
            None => crate::allocator::give_back_late(),
        }
        crate::log::start(common.verbose);
        let stderr_is_terminal = std::io::stderr().is_terminal();
        let paint = Paint::new(config.settings.color.resolve(stderr_is_terminal));
        let voice = match (common.quiet, common.verbose) {
            (true, _) => Voice::Quiet,
            (false, 0) => voice,
            (false, _) => Voice::Statements,
        };
        let bars = voice != Voice::Quiet && config.settings.progress.resolve(stderr_is_terminal);
        let display = Display::new(voice, bars, paint);
        if bars {
            crate::terminal::hide_control_echo();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.options.threads)
            .enable_all()
            .build()
            .map_err(|error| Error::Usage(format!("cannot start {} threads: {error}", config.options.threads)))?;
        let said = display.clone();
        let interrupt = Interrupt::watch(move |text| said.line(text));
        let output = output.output.clone();
        Ok(Console {
            config,
            paint,
            display,
            interrupt,
            voice,
            verbose: common.verbose,
            output,
            runtime: Some(runtime),
        })
    }

    /// A session with all that the configuration says.
    pub(crate) fn session(&self) -> Result<Session> {
        let stop = self.interrupt.token();
        let session = self.wait(async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(Error::Cancelled),
                session = gristmill::cluster_session(self.config.options.clone()) => session,
            }
        })?;
        session.count_process(Usage::now().peak_rss_bytes);
        self.interrupt.remove_on_leaving(session.temp_dir());
        Ok(session)
    }

    /// The cluster that --cluster or the configuration names.
    pub(crate) fn cluster(&self) -> Result<ClusterClient> {
        let address = self.config.options.cluster.clone();
        let address =
            address.ok_or_else(|| Error::Usage("which cluster? say --cluster gristmill://host:port".into()))?;
        Ok(ClusterClient::new(address))
    }

    /// The printer for this verb's results.
    pub(crate) fn printer(&self) -> Result<Printer> {
        self.printer_with(&self.config.settings)
    }

    /// A printer for results that are none of the file that -o names.
    pub(crate) fn printer_to_stdout(&self) -> Result<Printer> {
        Printer::new(&Settings::default(), None, terminal_width(), self.display.clone())
    }

    /// A printer with other settings than the configuration's.
    pub(crate) fn printer_with(&self, settings: &Settings) -> Result<Printer> {
        Printer::new(settings, self.output.as_deref(), terminal_width(), self.display.clone())
    }

    /// What was printed takes its place where -o says.
    pub(crate) fn commit(&self, printer: Printer) -> Result<()> {
        let stores = Stores::with(self.config.options.stores.clone());
        self.wait(printer.commit(&stores))
    }

    /// Says something that is neither result nor warning.
    pub(crate) fn remark(&self, text: &str) {
        if self.voice != Voice::Quiet {
            self.display.line(text);
        }
    }

    /// Waits for a future.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        // Boxed: a whole job's future is large, and this stack has planning to hold as well.
        self.runtime.as_ref().expect("the runtime lives as long as the console").block_on(Box::pin(future))
    }

    /// Waits for work on a thread of its own; gives it up when it was cancelled and hears nothing of it.
    pub(crate) fn work<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let runtime = self.runtime.as_ref().expect("the runtime lives as long as the console");
        Work::begin(runtime.handle(), work)?.wait(&self.interrupt.token())
    }

    /// Shows an error and gives the exit code that it asks for.
    pub(crate) fn fail(&self, error: &Error) -> Exit {
        self.display.close();
        match Exit::of(error) {
            Exit::Cancelled if self.interrupt.was_pressed() => {
                self.display.line("interrupted");
                Exit::Interrupted
            }
            exit => {
                self.display.line(render(error, self.paint).trim_end());
                exit
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // A cancelled query ends at its next pause, which a hot loop may not make for long: nobody waits for that.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(500));
        }
        self.interrupt.remove_temporary();
        crate::terminal::restore();
    }
}

/// Columns of the terminal that stdout is; `None` when it is none.
pub(crate) fn terminal_width() -> Option<usize> {
    std::io::stdout().is_terminal().then(|| comfy_table::Table::new().width().map_or(80, usize::from))
}
