//! Reading and COPY through a proxy that does to answers what networks do: every round ends rightly or with a named error,
//! and nothing is ever half visible. `GRISTMILL_ROUNDS=500` for the full count.

use std::time::Duration;

use crate::program::{Ended, Place, finish};
use crate::servers::proxy::{Fault, Proxy, Weather};
use crate::servers::{Kind, Server, said};

/// Rounds unless the environment says another number.
const ROUNDS: u64 = 6;
/// Of 1,000 requests, this many meet a fault.
const PER_MILLE: u64 = 60;

fn rounds() -> u64 {
    std::env::var("GRISTMILL_ROUNDS").ok().map_or(ROUNDS, |text| text.parse().unwrap())
}

/// The program through a proxy, with little patience, so that a stall takes a second and not thirty.
fn through(server: &Server, proxy: &Proxy, place: &Place, sql: &str) -> Ended {
    let patience = ["--set", "storage.request_timeout=1", "--set", "storage.retry_timeout=20"];
    let arguments = [&patience[..], &["-q", "--format", "csv", "--no-header", "-c", sql]].concat();
    let mut command = place.command(arguments);
    command.envs(server.environment_through(proxy.address()));
    finish(&mut command)
}

fn on(kind: Kind) {
    let Some(server) = kind.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    let table = format!("{root}t/");
    let copy = |round: u64, mode: &str| {
        format!(
            "COPY (SELECT {round} AS round, value AS a FROM generate_series(1, 5000)) TO '{table}' STORED AS PARQUET MODE {mode}"
        )
    };
    server.ok(&place, &["-q", "-c", &copy(0, "ERROR")]);
    let mut known = vec![0];
    let (mut met, mut failed) = (std::collections::HashMap::<Fault, usize>::new(), 0);
    for round in 1..=rounds() {
        let weather =
            Weather { seed: round, per_mille: PER_MILLE, stall: Duration::from_secs(2), ..Weather::default() };
        let proxy = Proxy::start(server.address(), weather);

        let sum = format!("SELECT count(*), sum(a), sum(round) FROM '{table}'");
        let read = through(server, &proxy, &place, &sum);
        let tables = known.len() as u64;
        let expected = format!("{},{},{}\n", tables * 5000, tables * 12_502_500, known.iter().sum::<u64>() * 5000);
        right_or_named(&read, &expected, round);
        failed += usize::from(read.code != 0);

        let mode = if round % 3 == 0 { "OVERWRITE" } else { "APPEND" };
        let wrote = through(server, &proxy, &place, &copy(round, mode));
        right_or_named(&wrote, "", round);
        failed += usize::from(wrote.code != 0);
        for (_, fault) in proxy.seen() {
            if let Some(fault) = fault {
                *met.entry(fault).or_default() += 1;
            }
        }
        drop(proxy);

        // In fair weather: the table is as it was, or as it would be; never between.
        let seen = server.rows(&place, &format!("SELECT round, count(*) FROM '{table}' GROUP BY round ORDER BY round"));
        let shows = |rounds: &[u64]| rounds.iter().map(|round| format!("{round},5000\n")).collect::<String>();
        let after = if mode == "OVERWRITE" { vec![round] } else { [&known[..], &[round]].concat() };
        if seen == shows(&after) {
            // A COPY that failed may have been published before its last answer was lost: whole, then.
            known = after;
        } else {
            assert_ne!(wrote.code, 0, "round {round}: COPY said that it was done, and the table is\n{seen}");
            assert_eq!(seen, shows(&known), "round {round}: {}", wrote.stderr);
        }
    }
    said(&format!("{kind:?}: {} rounds, faults {met:?}, {failed} statements ended with a named error", rounds()));
    assert!(!met.is_empty(), "the weather was fair");
}

/// It said what is right, or which place could not be reached.
fn right_or_named(ended: &Ended, stdout: &str, round: u64) {
    if ended.code == 0 {
        assert_eq!(ended.stdout, stdout, "round {round}");
    } else {
        assert_eq!(ended.code, 1, "round {round}: {ended:?}");
        let named = ["s3://", "gs://", "az://", "azure://", "abfs"].iter().any(|scheme| ended.stderr.contains(scheme));
        assert!(named && !ended.stderr.contains("panicked"), "round {round}: {}", ended.stderr);
    }
}

#[test]
fn moto() {
    on(Kind::Moto);
}

#[test]
fn google_cloud_storage() {
    on(Kind::Gcs);
}

#[test]
fn azurite() {
    on(Kind::Azurite);
}
