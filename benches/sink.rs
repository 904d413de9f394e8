//! How many rows a second are written and committed: a million rows in memory, to files that appear whole.
//!
//! ```text
//! cargo bench --bench sink [-- FILTER]
//! ```
//!
//! Rows are dates, keys, amounts and short texts of seven columns. Every round replaces the rows of the one before, so a
//! commit and the removal of files that it replaced are part of it. Files lie in the temporary directory.
#![allow(clippy::expect_used, reason = "a bench that cannot go on fails")]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gristmill::prelude::*;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: u64 = 1_000_000;

fn writes(criterion: &mut Criterion) {
    let place = tempfile::tempdir().expect("a place for files");
    let path = |name: &str| format!("{}/{name}/", place.path().display());
    let options = Options { warehouse: path("warehouse"), ..Options::default() };
    let session = gristmill::session(options).expect("a session");
    let runtime = Runtime::new().expect("threads");
    let query = format!(
        "SELECT value AS id, value * 7919 % 100003 AS customer, DATE '2024-01-01' + CAST(value % 366 AS INT) AS day, \
         value % 12 AS month, CAST(value * 31 % 1000000 AS DOUBLE) / 100 AS amount, value % 97 < 3 AS returned, \
         'item ' || (value * 17 % 5000) AS item FROM generate_series(1, {ROWS})"
    );
    let rows = runtime.block_on(async { session.sql(&query).await.expect("a query").cache().await.expect("rows") });

    let mut group = criterion.benchmark_group("write");
    group.throughput(Throughput::Elements(ROWS)).sample_size(20);
    for (name, format, partitions) in [
        ("parquet", "parquet", &[][..]),
        ("parquet by month", "parquet", &["month"]),
        ("csv", "csv", &[]),
        ("json", "json", &[]),
        ("delta", "delta", &[]),
    ] {
        let target = path(name);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let write =
                    session.write(rows.clone(), &target).format(format).partitioned_by(partitions.iter().copied());
                let written = runtime.block_on(async { write.overwrite().await.expect("rows can be written") });
                assert_eq!(written.rows, ROWS);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = sink;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = writes
}
criterion_main!(sink);
