//! Jobs that run on a cluster's scheduler: `submit`, `jobs`, `status`, `logs`, `kill`.

use std::time::Duration;

use engine::cluster::ClusterClient;
use engine::cluster::api::{JobInfo, JobRequest, JobState, LogLine, LogStream};
use engine::{Error, Result};

use super::Console;
use super::job::{parameters, read_script};
use crate::args::{KillArgs, LogsArgs, StatusArgs, SubmitArgs};
use crate::diagnostic::Exit;
use crate::progress::seconds;

pub(super) fn submit(console: &Console, args: &SubmitArgs) -> Result<Exit> {
    let client = console.cluster()?;
    let submitted = match (&args.resume, &args.script) {
        (Some(id), _) => {
            let (http, url) = client.http(&format!("jobs/{id}/resume"));
            console.wait(client.answer::<JobInfo>(http.post(url)))
        }
        (None, Some(script)) => request(console, script, args).and_then(|request| {
            let (http, url) = client.http("jobs");
            console.wait(client.answer::<JobInfo>(http.post(url).json(&request)))
        }),
        (None, None) => return Err(Error::Usage("submit what? give a script, or --resume JOB".to_string())),
    };
    let info = match submitted {
        Ok(info) => info,
        Err(error) => return Ok(console.fail(&error)),
    };
    if !args.wait {
        crate::printer::print_text(&format!("{}\n", info.id))?;
        return Ok(Exit::Ok);
    }
    console.remark(&format!("job {}", info.id));
    follow(console, &client, &info.id)
}

fn request(console: &Console, script: &std::path::Path, args: &SubmitArgs) -> Result<JobRequest> {
    let script = read_script(script)?;
    let given = parameters(&args.job)?;
    script.check_parameters(&given)?;
    if storage::redacted(script.text()).as_str() != &**script.text() {
        return Err(Error::Usage(format!(
            "{}: holds a secret in its OPTIONS, and the scheduler keeps the text of jobs; put it into the configuration or the \
             environment of the cluster's processes",
            script.name()
        )));
    }
    Ok(JobRequest {
        script: script.text().to_string(),
        name: script.name().to_string(),
        params: given.into_iter().collect(),
        settings: console.config.given_to_session().into_iter().collect(),
        user: console.config.user.clone(),
        directory: working_directory()?,
    })
}

/// Where relative places of the script are, as for `run`.
fn working_directory() -> Result<String> {
    let unreadable = |reason: &str| Error::Usage(format!("the working directory's name cannot be read: {reason}"));
    let directory = std::env::current_dir().map_err(|error| unreadable(&error.to_string()))?;
    directory.into_os_string().into_string().map_err(|_| unreadable("it is not UTF-8"))
}

pub(super) fn list(console: &Console) -> Result<Exit> {
    let client = console.cluster()?;
    let printer = console.printer()?;
    let listed = console.wait(async {
        let (http, url) = client.http("jobs");
        let jobs: Vec<JobInfo> = client.answer(http.get(url)).await?;
        let rows: Vec<Vec<Option<String>>> = jobs.iter().map(row).collect();
        printer.print_strings(&["job", "name", "user", "state", "statements", "seconds", "doing"], &rows).await
    });
    match listed {
        Ok(()) => console.commit(printer).map(|()| Exit::Ok),
        Err(error) => Ok(console.fail(&error)),
    }
}

fn row(info: &JobInfo) -> Vec<Option<String>> {
    vec![
        Some(info.id.clone()),
        Some(info.name.clone()),
        Some(info.user.clone()),
        Some(info.state.name().to_string()),
        Some(statements(info)),
        ran(info).map(|time| format!("{:.1}", time.as_secs_f64())),
        info.doing.clone(),
    ]
}

fn statements(info: &JobInfo) -> String {
    match info.statements {
        Some(all) => format!("{}/{all}", info.statements_done),
        None => info.statements_done.to_string(),
    }
}

/// How long it ran, when it has ended.
fn ran(info: &JobInfo) -> Option<Duration> {
    Some(Duration::from_millis(info.ended_ms?.saturating_sub(info.started_ms?)))
}

pub(super) fn status(console: &Console, args: &StatusArgs) -> Result<Exit> {
    let client = console.cluster()?;
    let printer = console.printer()?;
    let shown = console.wait(async {
        let (http, url) = client.http(&format!("jobs/{}", args.id));
        let info: JobInfo = client.answer(http.get(url)).await?;
        let mut rows = vec![
            ("job", Some(info.id.clone())),
            ("name", Some(info.name.clone())),
            ("user", Some(info.user.clone())),
            ("state", Some(info.state.name().to_string())),
            ("statements", Some(statements(&info))),
            ("doing", info.doing.clone()),
            ("ran", ran(&info).map(seconds)),
            ("exit_code", info.exit_code.map(|code| code.to_string())),
            ("error", info.error.clone()),
        ];
        rows.retain(|(_, value)| value.is_some());
        let rows: Vec<Vec<Option<String>>> =
            rows.into_iter().map(|(key, value)| vec![Some(key.to_string()), value]).collect();
        printer.print_strings(&["fact", "value"], &rows).await
    });
    match shown {
        Ok(()) => console.commit(printer).map(|()| Exit::Ok),
        Err(error) => Ok(console.fail(&error)),
    }
}

pub(super) fn logs(console: &Console, args: &LogsArgs) -> Result<Exit> {
    let client = console.cluster()?;
    if args.follow {
        return follow(console, &client, &args.id);
    }
    match console.wait(log(&client, &args.id, 0, false)) {
        Ok(lines) => lines.iter().try_for_each(|line| print(console, line)).map(|()| Exit::Ok),
        Err(error) => Ok(console.fail(&error)),
    }
}

pub(super) fn kill(console: &Console, args: &KillArgs) -> Result<Exit> {
    let client = console.cluster()?;
    for id in &args.ids {
        let (http, url) = client.http(&format!("jobs/{id}"));
        match console.wait(client.answer::<JobInfo>(http.delete(url))) {
            Ok(info) => console.remark(&format!("job {} is asked to end", info.id)),
            Err(error) => return Ok(console.fail(&error)),
        }
    }
    Ok(Exit::Ok)
}

async fn log(client: &ClusterClient, id: &str, after: u64, wait: bool) -> Result<Vec<LogLine>> {
    let (http, url) = client.http(&format!("jobs/{id}/log"));
    client.answer(http.get(url).query(&[("after", after.to_string()), ("wait", wait.to_string())])).await
}

/// Prints a job's log until the job has ended, and ends as it ended. Ctrl-C leaves the job alone.
fn follow(console: &Console, client: &ClusterClient, id: &str) -> Result<Exit> {
    let stop = console.interrupt.token();
    let mut after = 0;
    loop {
        let lines = console.wait(async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(Error::Cancelled),
                lines = log(client, id, after, true) => lines,
            }
        });
        let lines = match lines {
            Ok(lines) => lines,
            Err(error) => return Ok(console.fail(&error)),
        };
        lines.iter().try_for_each(|line| print(console, line))?;
        after = lines.last().map_or(after, |line| line.number);
        if lines.is_empty() {
            let (http, url) = client.http(&format!("jobs/{id}"));
            match console.wait(client.answer::<JobInfo>(http.get(url))) {
                Ok(info) if info.state.is_final() => return Ok(exit_of(console, &info)),
                Ok(_) => {}
                Err(error) => return Ok(console.fail(&error)),
            }
        }
    }
}

/// As `run` would have ended.
fn exit_of(console: &Console, info: &JobInfo) -> Exit {
    if info.state != JobState::Succeeded {
        console.remark(&format!("job {} {}", info.id, info.state.name()));
    }
    match (info.state, info.exit_code) {
        (JobState::Succeeded, _) => Exit::Ok,
        (JobState::Cancelled, _) => Exit::Cancelled,
        (JobState::Lost | JobState::Damaged, _) | (_, Some(5)) => Exit::ClusterLost,
        (_, Some(2)) => Exit::Usage,
        (_, Some(3)) => Exit::Assertion,
        _ => Exit::Failed,
    }
}

fn print(console: &Console, line: &LogLine) -> Result<()> {
    match line.stream {
        LogStream::Result => crate::printer::print_text(&format!("{}\n", line.text)),
        LogStream::Progress => {
            console.remark(&line.text);
            Ok(())
        }
        LogStream::Warning | LogStream::Error => {
            console.display.line(&line.text);
            Ok(())
        }
    }
}
