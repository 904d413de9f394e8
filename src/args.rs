//! What the user typed: verbs and flags. Values are checked here as far as their own text goes; which flag overrides
//! which setting is known to [`crate::config`]. Nothing is read and nothing is run here.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  gristmill run examples/jobs/late_flights.sql -p min_auc=0.90
  gristmill check examples/jobs/late_flights.sql
  gristmill -c \"SELECT carrier, avg(arr_delay) FROM 'flights.parquet' GROUP BY 1 ORDER BY 2\"
  gristmill sql
  gristmill models ls
  gristmill predict late_flights new_flights.csv -o scored.parquet
  gristmill cluster start --executors 3
  gristmill run job.sql --cluster gristmill://127.0.0.1:50050

Results go to stdout, all else to stderr. Exit codes: 0 ok, 1 a statement failed, 2 usage or configuration,
3 an assertion failed, 4 cancelled, 5 the cluster cannot be reached or was lost, 130 interrupted.";

/// Raw data in, trained models out: SQL on files, and models trained where the data is.
#[derive(Debug, Parser)]
#[command(name = "gristmill", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 110)]
#[command(propagate_version = true, infer_subcommands = false)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a job script from top to bottom and report what it did
    Run(RunArgs),
    /// Plan every statement of a script; reads schemas, no data, and writes nothing
    Check(CheckArgs),
    /// Open the SQL shell, or run the SQL of -c, -f or standard input
    Sql(SqlArgs),
    /// List, show, remove or reproduce trained models
    Models(ModelsArgs),
    /// List the versions of a table of files, go back to an earlier one
    Tables(TablesArgs),
    /// Predict with a trained model for every row of a file
    Predict(PredictArgs),
    /// List what is at a place: a directory, a bucket, a glob
    Ls(PlaceArgs),
    /// Count files and bytes below a place
    Du(PlaceArgs),
    /// Try out what works between this machine and a store, and say what to do about the rest
    Doctor(PlaceArgs),
    /// Hand a script over to a cluster, where it runs without this process
    Submit(SubmitArgs),
    /// List the jobs of a cluster
    Jobs(JobsArgs),
    /// Show how a job stands
    Status(StatusArgs),
    /// Print a job's log: results to stdout, all else to stderr
    Logs(LogsArgs),
    /// Stop jobs; what they have committed stays
    Kill(KillArgs),
    /// Start a cluster on this machine: a scheduler and executors, until Ctrl-C
    Cluster(ClusterArgs),
    /// Be the scheduler of a cluster
    Scheduler(SchedulerArgs),
    /// Be an executor of a cluster
    Executor(ExecutorArgs),
    /// Show the configuration and where each value came from
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man(ManArgs),
}

/// Flags that every verb takes.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Session")]
pub(crate) struct CommonArgs {
    /// Memory the queries and the training data may use before they spill to disk, e.g. 512m, 4g
    #[arg(short = 'm', long, global = true, value_name = "SIZE")]
    pub(crate) memory_limit: Option<String>,
    /// Threads to use [default: all cores]
    #[arg(short = 'j', long, global = true, value_name = "N")]
    pub(crate) threads: Option<String>,
    /// Directory of models and tables that scripts create [default: warehouse]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) warehouse: Option<String>,
    /// Run on this cluster, e.g. gristmill://host:50050 [default: in this process]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) cluster: Option<String>,
    /// Matrix kernel: auto takes the one written in Rust where it knows the processor
    #[arg(long, global = true, value_name = "auto|blas|native")]
    pub(crate) kernel: Option<String>,
    /// Set any option for this run, as SET does in a script (see `gristmill config show`)
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Bars that show how far work is: auto draws them on a terminal and prints plain lines otherwise
    #[arg(long, global = true, value_name = "auto|always|never")]
    pub(crate) progress: Option<String>,
    /// Colours in messages [default: auto]
    #[arg(long, global = true, value_name = "auto|always|never")]
    pub(crate) color: Option<String>,
    /// Say nothing but results, warnings and errors
    #[arg(short = 'q', long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; twice for the engine's own log
    #[arg(short = 'v', long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What a script is given.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct JobArgs {
    /// Give a declared parameter its value; may be repeated
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE")]
    pub(crate) parameters: Vec<String>,
}

/// Where results go and in which shape.
#[derive(Debug, Default, Clone, ClapArgs)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Format of results [default: table, or what the name given to -o ends with]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Leave out the header line, and the footer of a table
    #[arg(long)]
    pub(crate) no_header: bool,
    /// Text for NULL [default: NULL in tables, nothing in csv and tsv]
    #[arg(long, value_name = "TEXT")]
    pub(crate) null: Option<String>,
    /// Write the result to a file of any location (s3://...)
    #[arg(short = 'o', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<String>,
}

/// SQL that does not come from `run FILE`.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct TextArgs {
    /// Run this SQL (one or more statements) and print its results; may be repeated
    #[arg(short = 'c', long = "command", value_name = "SQL", conflicts_with = "file")]
    pub(crate) command: Vec<String>,
    /// Run the statements of this file and print their results; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// The script; - is standard input
    #[arg(value_name = "SCRIPT", value_hint = ValueHint::FilePath)]
    pub(crate) script: PathBuf,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckArgs {
    /// The script; - is standard input
    #[arg(value_name = "SCRIPT", value_hint = ValueHint::FilePath)]
    pub(crate) script: PathBuf,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SqlArgs {
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) action: ModelsAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsAction {
    /// List the models of the warehouse
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a model: its data, options, metrics and files
    Show {
        /// NAME, NAME@VERSION or NAME@ALIAS
        #[arg(value_name = "NAME")]
        model: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove a model with all its versions, or one version; not one that an alias names
    Rm {
        /// NAME or NAME@VERSION
        #[arg(value_name = "NAME", required = true)]
        models: Vec<String>,
        /// Also versions that an alias names; the alias goes with them
        #[arg(long)]
        force: bool,
    },
    /// Show what differs between two versions: options, inputs, metrics, weights
    Diff {
        /// NAME, NAME@VERSION or NAME@ALIAS
        #[arg(value_name = "FIRST")]
        first: String,
        /// NAME, NAME@VERSION or NAME@ALIAS
        #[arg(value_name = "SECOND")]
        second: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Train a model again from what it remembers and compare the bytes
    Reproduce {
        /// NAME, NAME@VERSION or NAME@ALIAS
        #[arg(value_name = "NAME")]
        model: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TablesArgs {
    #[command(subcommand)]
    pub(crate) action: TablesAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TablesAction {
    /// List the versions of a table whose manifests are kept
    Versions {
        /// The table's directory
        #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
        table: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make an earlier version the table's content again, while its files are there
    Rollback {
        /// The table's directory
        #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
        table: String,
        /// The version to go back to, as `tables versions` lists it
        #[arg(long, value_name = "VERSION")]
        to: u64,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PredictArgs {
    /// NAME, NAME@VERSION or NAME@ALIAS
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// A file, directory or glob that holds the model's input columns; - is standard input
    #[arg(value_name = "DATA", value_hint = ValueHint::AnyPath)]
    pub(crate) data: String,
    /// From which probability on the answer is the second class, for models of two classes
    #[arg(long, value_name = "P")]
    pub(crate) threshold: Option<f64>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// A place, and how its answer is printed.
#[derive(Debug, ClapArgs)]
pub(crate) struct PlaceArgs {
    /// A path or a URL, such as s3://bucket/prefix/
    #[arg(value_name = "URL", value_hint = ValueHint::AnyPath)]
    pub(crate) place: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    pub(crate) action: ClusterAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterAction {
    /// Start a scheduler and executors as processes of this machine; Ctrl-C stops all
    Start(ClusterStartArgs),
    /// List the executors of a cluster (--cluster)
    Executors {
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ClusterStartArgs {
    /// Number of executors
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) executors: usize,
    /// Tasks that each executor runs at a time [default: this machine's cores, shared out]
    #[arg(long, value_name = "N")]
    pub(crate) cores: Option<usize>,
    /// Memory of each executor, e.g. 4g [default: 7 tenths of the machine's, shared out]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Where the scheduler listens; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    pub(crate) bind: String,
    /// Where the history of submitted jobs is kept [default: gristmill/scheduler in the XDG state directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where executors keep rows between stages [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) work_dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SchedulerArgs {
    /// Where it listens; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    pub(crate) bind: String,
    /// The name under which executors and drivers reach it [default: the address it listens at]
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Option<String>,
    /// Where the history of submitted jobs is kept [default: gristmill/scheduler in the XDG state directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// A script to hand over to a cluster.
#[derive(Debug, ClapArgs)]
pub(crate) struct SubmitArgs {
    /// The script; - is standard input. Left out with --resume
    #[arg(value_name = "SCRIPT", value_hint = ValueHint::FilePath, required_unless_present = "resume")]
    pub(crate) script: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Let a job that failed, was cancelled or lost go on after its last finished statement
    #[arg(long, value_name = "JOB", conflicts_with_all = ["script", "parameters"])]
    pub(crate) resume: Option<String>,
    /// Follow the job's log and end as the job ends
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// A job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogsArgs {
    /// A job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    pub(crate) id: String,
    /// Go on until the job has ended
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KillArgs {
    /// Ids of jobs, or the beginnings of them
    #[arg(value_name = "JOB", required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExecutorArgs {
    /// The scheduler to work for
    #[arg(long, value_name = "URL", default_value = "gristmill://127.0.0.1:50050")]
    pub(crate) scheduler: String,
    /// Where it listens
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,
    /// The name under which others reach it [default: the address it listens at]
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Option<String>,
    /// Port that gives out rows; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) port: u16,
    /// Port that takes tasks; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) task_port: u16,
    /// Port that takes ranks of trainings; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) gang_port: u16,
    /// Its name in lists and messages [default: made up]
    #[arg(long, value_name = "NAME")]
    pub(crate) id: Option<String>,
    /// Tasks that it runs at a time [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) cores: Option<usize>,
    /// Memory of its tasks together, e.g. 24g [default: 7 tenths of the machine's]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Where it keeps rows between stages [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) work_dir: Option<PathBuf>,
    /// End when the scheduler was away for this long, e.g. 90s, 10m, 2h [default: wait for it]
    #[arg(long, value_name = "TIME")]
    pub(crate) give_up_after: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Print every setting, its value and where the value came from
    Show {
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete in
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Write one page for every verb into this directory instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns that fit the terminal
    Table,
    /// Comma-separated values
    Csv,
    /// Tab-separated values
    Tsv,
    /// One JSON array of objects
    Json,
    /// One JSON object a line
    Jsonl,
    /// A Markdown table
    Markdown,
    /// Arrow IPC stream (a file with -o)
    Arrow,
    /// Parquet
    Parquet,
}

impl Args {
    /// A flag that was given before a verb which takes it after itself.
    ///
    /// Flags of the session may stand anywhere; those of a script or of its output belong to one verb.
    pub(crate) fn misplaced(&self) -> Option<&'static str> {
        self.verb.as_ref()?;
        let output = &self.output;
        [
            (!self.text.command.is_empty(), "-c"),
            (self.text.file.is_some(), "-f"),
            (!self.job.parameters.is_empty(), "-p"),
            (output.format.is_some(), "--format"),
            (output.no_header, "--no-header"),
            (output.null.is_some(), "--null"),
            (output.output.is_some(), "-o"),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_that_people_know_parse() {
        for line in [
            "run job.sql -p min_auc=0.9 -p year=2013 -m 512m -j 2",
            "-m 1g run job.sql",
            "check job.sql",
            "-c SELECT",
            "-f job.sql --format csv --no-header",
            "sql -c SELECT --null NA -o out.parquet",
            "models ls",
            "models show late_flights@2 --format json",
            "models rm a b@1",
            "models reproduce a@1",
            "predict m new.csv -o scored.parquet --threshold 0.4",
            "ls s3://lake/raw/",
            "du gs://lake/ --format csv",
            "doctor abfss://c@a.dfs.core.windows.net/",
            "config show",
            "completions bash",
            "run job.sql --cluster gristmill://host:50050",
            "cluster start --executors 3 --cores 1 --memory 2g",
            "cluster executors --cluster host",
            "scheduler --bind 0.0.0.0:50050 --advertise host --state-dir /var/lib/gristmill",
            "submit job.sql --cluster host -p day=2013-07-04 --wait",
            "submit --resume 0198f --cluster host",
            "jobs --cluster host",
            "status 0198f --cluster host",
            "logs 0198f -f --cluster host",
            "kill 0198f --cluster host",
            "executor --scheduler gristmill://host:50050 --cores 8 --memory 24g --work-dir /data",
            "man --dir out",
            "--set ml.seed=7 --kernel native --progress never --color never -q run -",
        ] {
            let words = ["gristmill"].into_iter().chain(line.split(' '));
            let args = Args::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(args.misplaced(), None, "{line}");
        }
    }

    #[test]
    fn a_flag_of_a_verb_before_the_verb_is_named() {
        for (line, flag) in [("-p a=1 run x.sql", "-p"), ("-o x.csv config show", "-o"), ("-c SELECT check x", "-c")] {
            let args = Args::try_parse_from(["gristmill"].into_iter().chain(line.split(' '))).unwrap();
            assert_eq!(args.misplaced(), Some(flag), "{line}");
        }
    }

    #[test]
    fn wrong_flags_are_refused() {
        for line in ["run", "run a.sql --formt csv", "--format xml -c x", "-q -v -c x", "-c x -f y", "models"] {
            let words = ["gristmill"].into_iter().chain(line.split(' '));
            assert!(Args::try_parse_from(words).is_err(), "{line}");
        }
    }
}
