//! The 22 queries derived from TPC-H on Parquet files, warm, in one process: seconds of each, the least of some runs.
//!
//! ```text
//! cargo bench --bench tpch -- DATA QUERIES [RUNS] [KEY=VALUE...]
//! ```
//!
//! DATA holds lineitem.parquet and its seven companions (files or directories), QUERIES q01.sql to q22.sql; `tpch.sh` makes
//! both and asks the peers in turn. KEY=VALUE is an option as `--set` takes it; `only=9,18` asks just those. One line a query:
//! its number, its seconds, its rows.
#![allow(clippy::print_stdout, reason = "a bench speaks on stdout")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gristmill::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// What was typed.
struct Arguments {
    data: PathBuf,
    queries: PathBuf,
    runs: usize,
    only: Vec<usize>,
    options: Options,
}

fn arguments() -> std::result::Result<Arguments, String> {
    // cargo passes `--bench` to every bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let (settings, words): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.contains('='));
    let [data, queries, rest @ ..] = &words[..] else {
        return Err("usage: tpch DATA QUERIES [RUNS] [KEY=VALUE...]".to_string());
    };
    let runs =
        rest.first().map_or(Ok(3), |text| text.parse()).map_err(|_| "RUNS: expected a whole number".to_string())?;
    let (mut options, mut only) = (Options::default(), Vec::new());
    for setting in settings {
        let (key, value) = setting.split_once('=').expect("chosen for it");
        if key == "only" {
            only = value.split(',').filter_map(|number| number.parse().ok()).collect();
        } else {
            options.set(key, value, &[]).map_err(|error| error.to_string())?;
        }
    }
    Ok(Arguments { data: data.into(), queries: queries.into(), runs, only, options })
}

/// Where a table's rows are: one file or a directory of them.
fn place(data: &Path, table: &str) -> String {
    let file = data.join(table).with_extension("parquet");
    if file.is_file() { file.display().to_string() } else { format!("{}/", data.join(table).display()) }
}

/// Runs a query to its end; gives its rows.
async fn ask(session: &Session, query: &str) -> Result<usize> {
    let frame = session.plan_query(query).await?;
    Ok(session.collect(frame).await?.iter().map(|batch| batch.num_rows()).sum())
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { data, queries, runs, only, options } = arguments().unwrap_or_else(|problem| {
        println!("{problem}");
        std::process::exit(2)
    });
    let session = gristmill::cluster_session(options).await?;
    for table in TABLES {
        let location = place(&data, table);
        session.sql(&format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{location}'")).await?;
    }
    let mut total = 0.0;
    for number in (1..=22).filter(|number| only.is_empty() || only.contains(number)) {
        let path = queries.join(format!("q{number:02}.sql"));
        let query = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (mut best, mut rows) = (f64::INFINITY, 0);
        for _ in 0..runs {
            let begun = Instant::now();
            rows = ask(&session, query.trim().trim_end_matches(';')).await?;
            best = best.min(begun.elapsed().as_secs_f64());
        }
        total += best;
        println!("q{number} {best:.3} {rows}");
    }
    println!("total {total:.2}");
    Ok(())
}
