//! From raw columns to inputs and from inputs to predictions, on one thread and on all of them.
//!
//! ```text
//! cargo bench --bench predict [-- FILTER]
//! ```
//!
//! * `transform`: scaling, one-hot encoding and hashing of all flights of `examples/data/nycflights13`, rows that are in memory;
//! * `predict`: 784-64-64-10, rows that are in memory, to labels and sorted probabilities, and to scores alone;
//! * `one row`: the same network, and the one of the flights, from a batch of one row to its prediction.
#![allow(clippy::print_stdout, reason = "a bench speaks on stdout")]
#![allow(clippy::expect_used, reason = "a bench that cannot go on fails")]
#![allow(clippy::unwrap_used, reason = "the same")]

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{RunSettings, Script};
use gristmill::prelude::*;
use ml::kernel::KernelChoice;
use ml::{ModelName, Predictor};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows of a batch, as scans give them.
const BATCH: usize = 8192;
const PICTURE_BATCHES: usize = 8;

/// A model and rows for it.
struct Case {
    predictor: Arc<Predictor>,
    batches: Vec<RecordBatch>,
}

impl Case {
    fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    /// Gives every batch to `work`, on so many threads.
    fn each(&self, threads: usize, work: impl Fn(&Predictor, &RecordBatch) + Sync) {
        thread::scope(|scope| {
            for first in 0..threads {
                let work = &work;
                scope.spawn(move || {
                    self.batches.iter().skip(first).step_by(threads).for_each(|batch| work(&self.predictor, batch));
                });
            }
        });
    }
}

/// All flights, and a network of one epoch on them.
async fn flights(session: &Session) -> Result<Case> {
    let job = include_str!("../examples/jobs/late_flights.sql");
    let (views, _) = job.split_once("-- 3. ").expect("the job has a third part");
    let (_, create) = job.split_once("CREATE OR REPLACE MODEL late_flights\n").expect("the job makes the network");
    let (create, _) = create.split_once(';').expect("a statement has an end");
    let create = create
        .replace("AS carrier,", "AS carrier, ML.HASH_BUCKETIZE(CAST(flight AS STRING), 64) AS flight,")
        .replace("max_iterations = 5", "max_iterations = 1");
    let script = Script::parse("flights.sql", format!("{views}\nCREATE MODEL late {create};"))?;
    session.run_script(&script, &RunSettings::default()).await?;
    let trips = session.sql("SELECT * FROM trips").await?;
    let batches = session.collect(trips).await.expect("flights can be read");
    Ok(Case { predictor: load(session, "late").await?, batches })
}

/// Random pictures of 784 numbers, and the founding network on them.
async fn pictures(session: &Session) -> Result<Case> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("label", DataType::Int64, false),
        Field::new_fixed_size_list("pixels", Field::new_list_field(DataType::Float32, false), 784, false),
    ]));
    let batch = |number: usize| {
        let pixel = |i: usize| ((i + number * 31).wrapping_mul(2_654_435_761) >> 8) as u8 as f32 / 255.0;
        let pixels = Arc::new(Float32Array::from_iter_values((0..BATCH * 784).map(pixel)));
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values((0..BATCH as i64).map(|row| row % 10))),
            Arc::new(FixedSizeListArray::new(item, 784, pixels, None)),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns of one length")
    };
    let batches: Vec<RecordBatch> = (0..PICTURE_BATCHES).map(batch).collect();
    let spec = ModelSpec::dnn_classifier("pictures")
        .label("label")
        .transform(Transform::new().keep(["label", "pixels"]))
        .option("hidden_units", [64, 64])
        .option("batch_size", 32)
        .option("max_iterations", 1)
        .option("early_stop", false)
        .option("data_split_method", "NO_SPLIT");
    train(session, &spec, session.context().read_batches(batches.clone()).expect("batches of one schema")).await?;
    Ok(Case { predictor: load(session, "pictures").await?, batches })
}

async fn load(session: &Session, name: &str) -> Result<Arc<Predictor>> {
    let name = ml::registry::version_of(session, &ModelName::parse(name)?).await?;
    ml::registry::load(session, &name).await
}

fn cases() -> (Case, Case) {
    let warehouse = tempfile::tempdir().expect("a place for models");
    let options = Options { warehouse: warehouse.path().display().to_string(), ..Options::default() };
    let session = gristmill::session(options).expect("a session");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let cases = (flights(&session).await, pictures(&session).await);
        (cases.0.unwrap(), cases.1.unwrap())
    })
}

fn benches(criterion: &mut Criterion) {
    println!("kernel {}", ml::kernel::choose(KernelChoice::Auto).expect("a kernel answers right"));
    let (flights, pictures) = cases();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut threads = vec![1, cores];
    threads.dedup();

    let mut group = criterion.benchmark_group("rows");
    for threads in threads {
        group.throughput(Throughput::Elements(flights.rows()));
        group.bench_function(format!("transform of flights, {threads} threads"), |bench| {
            bench.iter(|| flights.each(threads, |model, rows| drop(black_box(model.inputs(rows).unwrap()))));
        });
        group.bench_function(format!("predict flights, {threads} threads"), |bench| {
            bench.iter(|| flights.each(threads, |model, rows| drop(black_box(model.predict(rows, 0.5).unwrap()))));
        });
        group.throughput(Throughput::Elements(pictures.rows()));
        group.bench_function(format!("scores of pictures, {threads} threads"), |bench| {
            bench.iter(|| pictures.each(threads, |model, rows| drop(black_box(model.scores(rows).unwrap()))));
        });
        group.bench_function(format!("predict pictures, {threads} threads"), |bench| {
            bench.iter(|| pictures.each(threads, |model, rows| drop(black_box(model.predict(rows, 0.5).unwrap()))));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("one row");
    for (name, case) in [("flights", &flights), ("pictures", &pictures)] {
        let row = case.batches[0].slice(0, 1);
        group.bench_function(name, |bench| bench.iter(|| black_box(case.predictor.predict(&row, 0.5).unwrap())));
    }
    group.finish();
}

criterion_group! {
    name = predict;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = benches
}
criterion_main!(predict);
