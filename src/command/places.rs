//! `gristmill ls`, `du` and `doctor`: what is at a place, how much, and whether the store behind it works.

use engine::{Error, Result};
use storage::doctor::Verdict;
use storage::{Location, Stores, doctor, survey};

use super::Console;
use crate::args::PlaceArgs;
use crate::diagnostic::Exit;

fn stores(console: &Console) -> Stores {
    Stores::with(console.config.options.stores.clone())
}

/// Runs one question and prints its rows.
fn show(
    console: &Console,
    columns: &[&str],
    rows: impl Future<Output = Result<(Vec<Vec<Option<String>>>, Exit)>>,
) -> Result<Exit> {
    let printer = console.printer()?;
    let shown = console.wait(async {
        let (rows, exit) = rows.await?;
        printer.print_strings(columns, &rows).await?;
        Ok(exit)
    });
    Ok(match shown.and_then(|exit| console.commit(printer).map(|()| exit)) {
        Ok(exit) => exit,
        Err(error) => console.fail(&error),
    })
}

pub(super) fn ls(console: &Console, args: &PlaceArgs) -> Result<Exit> {
    let location = Location::parse(&args.place)?;
    let rows = async {
        let entries = survey::entries(&stores(console), &location).await.map_err(Error::Storage)?;
        let rows = entries.into_iter().map(|entry| {
            // A directory has neither, which is no NULL.
            let bytes = entry.bytes.map_or(String::new(), |bytes| bytes.to_string());
            [entry.name, bytes, entry.modified.unwrap_or_default()].map(Some).to_vec()
        });
        Ok((rows.collect(), Exit::Ok))
    };
    show(console, &["name", "bytes", "modified"], rows)
}

pub(super) fn du(console: &Console, args: &PlaceArgs) -> Result<Exit> {
    let location = Location::parse(&args.place)?;
    let rows = async {
        let amounts = survey::amounts(&stores(console), &location).await.map_err(Error::Storage)?;
        let (files, bytes) = amounts.values().fold((0, 0), |(f, b), amount| (f + amount.files, b + amount.bytes));
        let row = |name: &str, files: u64, bytes: u64| {
            vec![Some(name.to_string()), Some(files.to_string()), Some(bytes.to_string())]
        };
        let mut rows: Vec<_> = amounts.iter().map(|(name, amount)| row(name, amount.files, amount.bytes)).collect();
        rows.push(row("total", files, bytes));
        Ok((rows, Exit::Ok))
    };
    show(console, &["name", "files", "bytes"], rows)
}

pub(super) fn doctor(console: &Console, args: &PlaceArgs) -> Result<Exit> {
    let location = Location::parse(&args.place)?;
    let rows = async {
        let findings = doctor::examine(&stores(console), &location).await.map_err(Error::Storage)?;
        let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
        let rows = findings.into_iter().map(|finding| {
            let verdict = match finding.verdict {
                Verdict::Ok => "ok",
                Verdict::Note => "note",
                Verdict::Failed => "failed",
                Verdict::Skipped => "skipped",
            };
            [finding.what, verdict, &finding.detail].map(|text| Some(text.to_string())).to_vec()
        });
        Ok((rows.collect(), if failed { Exit::Failed } else { Exit::Ok }))
    };
    show(console, &["step", "result", "detail"], rows)
}
