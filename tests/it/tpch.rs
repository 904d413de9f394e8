//! The 22 queries of TPC-H at scale 0.1, from the first byte on: tables are generated as text, a job makes Parquet of them
//! through our sink, and the queries run on that. Query texts and answers are those that DataFusion publishes.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sqllogictest::Record;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};

use crate::datafusion_slt::{ENGINES, Engine, Kind, Place, Records, scratch_directory};
use crate::upstream::package;

/// The scale of the published answers.
const SCALE: f64 = 0.1;

const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// The directory with `lineitem.tbl` and its seven companions, generated once for a build directory.
pub(crate) fn tables() -> &'static Path {
    static TABLES: OnceLock<PathBuf> = OnceLock::new();
    TABLES.get_or_init(|| {
        let directory = scratch_directory().join(format!("tpch-{SCALE}"));
        if !directory.exists() {
            let making = tempfile::tempdir_in(scratch_directory()).unwrap();
            generate(making.path());
            // Another process may have been faster; its tables are the same.
            let _ = std::fs::rename(making.path(), &directory);
        }
        directory
    })
}

fn generate(directory: &Path) {
    let write = |table: &str, rows: &mut dyn Iterator<Item = String>| {
        let mut file = BufWriter::new(File::create(directory.join(table).with_extension("tbl")).unwrap());
        rows.for_each(|row| writeln!(file, "{row}").unwrap());
        file.flush().unwrap();
    };
    fn text<T: Display>(rows: impl IntoIterator<Item = T>) -> impl Iterator<Item = String> {
        rows.into_iter().map(|row| row.to_string())
    }
    write("customer", &mut text(CustomerGenerator::new(SCALE, 1, 1).iter()));
    write("lineitem", &mut text(LineItemGenerator::new(SCALE, 1, 1).iter()));
    write("nation", &mut text(NationGenerator::new(SCALE, 1, 1).iter()));
    write("orders", &mut text(OrderGenerator::new(SCALE, 1, 1).iter()));
    write("part", &mut text(PartGenerator::new(SCALE, 1, 1).iter()));
    write("partsupp", &mut text(PartSuppGenerator::new(SCALE, 1, 1).iter()));
    write("region", &mut text(RegionGenerator::new(SCALE, 1, 1).iter()));
    write("supplier", &mut text(SupplierGenerator::new(SCALE, 1, 1).iter()));
}

/// The records of a file of the suite's directory for TPC-H.
fn records(file: &str) -> Vec<Record<Kind>> {
    let path = package("datafusion-sqllogictest").join("test_files/tpch").join(file);
    sqllogictest::parse_file(&path).unwrap()
}

/// Makes Parquet of the generated text, then asks the 22 queries.
async fn answers_are_right(engine: &Engine) {
    let place = Arc::new(Place::new());
    let mut text = Records::new(engine, &place);
    for record in records("create_tables.slt.part") {
        text.run(record).await;
    }
    let mut parquet = Records::new(engine, &place);
    for table in TABLES {
        let directory = place.root().join("parquet").join(table);
        let directory = directory.display();
        text.script(&format!("COPY {table} TO '{directory}/' STORED AS PARQUET")).await;
        parquet.script(&format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{directory}/'")).await;
    }
    let mut asked = 0;
    for number in 1..=22 {
        for record in records(&format!("answers/q{number}.slt.part")) {
            asked += u32::from(matches!(record, Record::Query { .. }));
            parquet.run(record).await;
        }
    }
    assert!(asked >= 22, "{asked} queries were asked");
}

fn run(engine: &Engine) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(32 << 20)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(answers_are_right(engine));
}

#[test]
fn local() {
    run(&ENGINES[0]);
}
