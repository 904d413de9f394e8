//! CREATE MODEL with workers that are not this process's own, as far as the session knows: the files, the order, the
//! reports and the result go the whole way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use engine::events::Event;
use engine::gang::{GangEvent, GangOrder, Gangs, ThreadGangs};
use engine::runner::{Execution, Gather, LocalRunner, Runner};
use engine::{Options, Result, RunSettings, Script, Session};
use storage::Stores;
use tokio_util::sync::CancellationToken;

use crate::registry;

/// Plans are executed here, gangs are formed "elsewhere".
struct Elsewhere(Arc<dyn Gangs>);

#[async_trait]
impl Runner for Elsewhere {
    fn name(&self) -> &'static str {
        "elsewhere"
    }
    fn gangs(&self) -> Option<Arc<dyn Gangs>> {
        Some(Arc::clone(&self.0))
    }
    async fn run(&self, session: &Session, plan: LogicalPlan, gather: Gather) -> Result<Execution> {
        LocalRunner.run(session, plan, gather).await
    }
}

/// Threads that are said to be far away; a worker that was never there is said to be lost first.
struct Far(ThreadGangs);

#[async_trait]
impl Gangs for Far {
    async fn run(
        &self,
        order: GangOrder,
        cancel: &CancellationToken,
        watch: &(dyn Fn(GangEvent) + Send + Sync),
    ) -> Result<Vec<u8>> {
        watch(GangEvent::Lost { worker: "e-7".into(), cause: "no heartbeat".into(), step: Some(1204) });
        self.0.run(order, cancel, watch).await
    }
    async fn available(&self) -> Result<usize> {
        self.0.available().await
    }
    fn is_local(&self) -> bool {
        false
    }
}

const ROWS: &str = "CREATE VIEW rows AS SELECT CAST(value AS DOUBLE) AS x, (value * 7919) % 13 - 6 AS z, \
                    CASE value % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'c' END AS c, \
                    CASE value % 5 WHEN 0 THEN 'p' WHEN 1 THEN 'q' ELSE 'r' END AS d, \
                    value > 2500 AS label, CAST(value % 17 AS DOUBLE) AS y FROM generate_series(1, 5000);\n";

const MODELS: [(&str, &str); 5] = [
    (
        "network",
        "model_type = 'dnn_classifier', hidden_units = [16], max_iterations = 2, batch_size = 128, dropout = 0.1",
    ),
    (
        "regressor",
        "model_type = 'dnn_regressor', input_label_cols = ['y'], hidden_units = [8], max_iterations = 2, \
         data_split_test_fraction = 0.1, data_split_method = 'RANDOM'",
    ),
    ("logistic", "model_type = 'logistic_reg', data_split_method = 'NO_SPLIT'"),
    ("multinomial", "model_type = 'logistic_reg', input_label_cols = ['d'], l2_reg = 1.0"),
    (
        "linear",
        "model_type = 'linear_reg', input_label_cols = ['y'], optimize_strategy = 'BATCH_GRADIENT_DESCENT', \
         max_iterations = 10",
    ),
];

/// Trains all models with `workers` far ones, or here; gives the hashes of their files and what the user was told.
async fn train(
    warehouse: &Path,
    workers: Option<usize>,
    memory: Option<u64>,
) -> (BTreeMap<String, String>, Vec<String>) {
    let stores = Stores::new();
    let options = Options { warehouse: warehouse.display().to_string(), threads: 2, ..Options::default() };
    let mut builder = Session::builder(stores.clone(), options).extension(crate::extension());
    if let Some(threads) = workers {
        let gangs = Far(ThreadGangs { tasks: super::tasks(), stores, scratch: std::env::temp_dir(), threads, memory });
        builder = builder.runner(Arc::new(Elsewhere(Arc::new(gangs))));
    }
    let session = builder.build().unwrap();
    let create = |(name, options): &(&str, &str)| {
        format!(
            "CREATE MODEL {name} OPTIONS ({options}, early_stop = FALSE, seed = 5, \
             kernel = 'NATIVE') AS SELECT x, z, c, label, y, d FROM rows;\n"
        )
    };
    let text = format!("{ROWS}{}", MODELS.iter().map(create).collect::<String>());
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&told);
    let events: engine::events::EventSink = Arc::new(move |event| {
        if let Event::Note(text) = event {
            hear.lock().unwrap().push(text);
        }
    });
    let settings = RunSettings { events, ..RunSettings::default() };
    session.run_script(&Script::parse("test.sql", text).unwrap(), &settings).await.unwrap();
    let mut hashes = BTreeMap::new();
    for (name, _) in MODELS {
        let artifact = registry::store(&session).open(name, None).await.unwrap();
        for file in artifact
            .files()
            .iter()
            .filter(|file| !["model.json", "MLmodel", "training.parquet"].contains(&file.name.as_str()))
        {
            hashes.insert(format!("{name}/{}", file.name), file.sha256.clone());
        }
    }
    let told = std::mem::take(&mut *told.lock().unwrap());
    (hashes, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_elsewhere_give_the_same_bytes_and_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (expected, _) = train(&directory.path().join("here"), None, None).await;
    assert!(expected.len() >= 5 * MODELS.len(), "{expected:?}");
    for (workers, memory) in [(1, None), (2, None), (3, Some(0)), (5, Some(60_000))] {
        let warehouse = directory.path().join(format!("{workers}"));
        let (got, told) = train(&warehouse, Some(workers), memory).await;
        assert_eq!(got, expected, "{workers} workers, {memory:?}");
        let line = format!("executor e-7 lost at step 1,204; resumed from step 0 on {}", workers.min(8));
        assert!(told.iter().any(|note| note.starts_with(&line)), "{told:?}");
        let left: Vec<_> = std::fs::read_dir(&warehouse).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["models"]);
    }
}

#[test]
fn another_kernel_is_refused_with_both_names() {
    let chosen = crate::kernel::choose(crate::kernel::KernelChoice::Native).unwrap();
    let other = crate::kernel::ChosenKernel { fingerprint: "native-0000".into(), ..chosen.clone() };
    let named = super::order::NamedKernel::of(&other);
    let error = named.the_same_here(3).unwrap_err().to_string();
    for noun in ["worker 3", "native-0000", chosen.fingerprint.as_str()] {
        assert!(error.contains(noun), "{error}");
    }
    assert_eq!(super::order::NamedKernel::of(&chosen).the_same_here(0).unwrap(), chosen);
}
