//! Fifty jobs at once: all of them end well, those of one user in the order of submission, no user waits for all of
//! another's, and the cluster's processes do not grow.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::cluster::ClusterClient;
use engine::cluster::api::{JobInfo, JobRequest, JobState};

use crate::cluster_process::ClusterProcess;

const FLIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/nycflights13/flights.parquet");
const USERS: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];
const JOBS_OF_A_USER: usize = 10;
/// The jobs take no longer, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(600);
/// How much a process may grow from the first ten jobs to the sixtieth: what allocators keep, and what the scheduler knows
/// of plans for a minute after their end.
const GROWTH_MAX_KIB: u64 = 112 << 10;

#[test]
#[allow(clippy::print_stderr, reason = "the memory is told to whoever asked for it")]
fn fifty_jobs_at_once() {
    let cluster = ClusterProcess::start(2, 1);
    let client = ClusterClient::new(cluster.address().clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let target = cluster.directory().join("out");
    let script = |user: &str, number: usize| {
        format!(
            "SELECT carrier, count(*) FROM '{FLIGHTS}' GROUP BY 1 ORDER BY 2;\n\
             COPY (SELECT dest, avg(arr_delay) AS delay FROM '{FLIGHTS}' GROUP BY 1) TO '{}/{user}/{number}/' STORED AS PARQUET;",
            target.display()
        )
    };
    runtime.block_on(async {
        let submit = async |user: &str, number: usize| {
            let request = JobRequest { script: script(user, number), user: user.to_string(), ..JobRequest::default() };
            let (http, url) = client.http("jobs");
            client.answer::<JobInfo>(http.post(url).json(&request)).await.unwrap().id
        };
        // The first few make the processes as large as they have to be.
        let mut warm = Vec::new();
        for number in 0..10 {
            warm.push(submit("warm", number).await);
        }
        all_ended(&client, &warm).await;
        let before = memory(&cluster);

        let of_users = futures::future::join_all(USERS.map(async |user| {
            let mut ids = Vec::new();
            for number in 0..JOBS_OF_A_USER {
                ids.push(submit(user, number).await);
            }
            ids
        }))
        .await;
        let ids: Vec<String> = of_users.iter().flatten().cloned().collect();
        let jobs = all_ended(&client, &ids).await;
        for job in jobs.values() {
            assert_eq!(job.state, JobState::Succeeded, "{job:?}");
        }
        for own in &of_users {
            let started: Vec<u64> = own.iter().map(|id| jobs[id].started_ms.unwrap()).collect();
            assert!(started.is_sorted(), "{started:?}");
        }
        nobody_starves(&jobs);
        let after = memory(&cluster);
        eprintln!("resident memory in KiB before and after 50 jobs: {before:?}, {after:?}");
        for ((process, before), (_, after)) in before.iter().zip(&after) {
            assert!(*after <= before + GROWTH_MAX_KIB, "{process} grows from {before} to {after} KiB");
        }
    });
}

/// Waits until these jobs have ended, and gives them by id.
async fn all_ended(client: &ClusterClient, ids: &[String]) -> BTreeMap<String, JobInfo> {
    let begun = Instant::now();
    loop {
        let (http, url) = client.http("jobs");
        let jobs: Vec<JobInfo> = client.answer(http.get(url)).await.unwrap();
        let own: BTreeMap<String, JobInfo> =
            jobs.into_iter().filter(|job| ids.contains(&job.id)).map(|job| (job.id.clone(), job)).collect();
        assert_eq!(own.len(), ids.len(), "jobs got lost");
        if own.values().all(|job| job.state.is_final()) {
            return own;
        }
        assert!(begun.elapsed() < PATIENCE, "the jobs do not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whenever a job begins, no user with a waiting one is far behind: four run at once, the others take turns.
fn nobody_starves(jobs: &BTreeMap<String, JobInfo>) {
    let mut order: Vec<&JobInfo> = jobs.values().collect();
    order.sort_by_key(|job| (job.started_ms, &job.id));
    let mut began: BTreeMap<&str, usize> = USERS.into_iter().map(|user| (user, 0)).collect();
    for job in order {
        let now = job.started_ms.unwrap();
        let own = began[job.user.as_str()];
        for user in USERS {
            let waited = jobs.values().filter(|other| other.user == user && other.submitted_ms < now).count();
            if began[user] < waited {
                assert!(own <= began[user] + 2, "{} begins its {own}. job when {user} has begun {began:?}", job.user);
            }
        }
        *began.get_mut(job.user.as_str()).unwrap() += 1;
    }
}

/// Resident KiB of the scheduler and the executors, without the pages of the program itself.
fn memory(cluster: &ClusterProcess) -> Vec<(String, u64)> {
    let processes = ["scheduler", "executor"].into_iter().flat_map(|role| {
        cluster
            .processes(role)
            .into_iter()
            .enumerate()
            .map(move |(number, process)| (format!("{role} {number}"), process))
    });
    let resident = |process: i32| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().to_string();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    };
    processes.map(|(name, process)| (name, resident(process))).collect()
}
