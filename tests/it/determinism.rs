//! The same script on the same data gives the same model bytes: for any number of workers and threads, for any cut of the
//! input into files and of plans into partitions, in memory or spilled, and after an interruption.

use std::collections::BTreeMap;

use crate::model_files::{ModelFiles, of_model};
use crate::program::{Place, january};

/// One model of each kind that trains in its own way.
const MODELS: [(&str, &str); 6] = [
    (
        "network",
        "model_type = 'dnn_classifier', input_label_cols = ['late'], hidden_units = [24, 12], dropout = 0.2, \
                 batch_size = 100, max_iterations = 2, clip_norm = 1.0, l2_reg = 0.001",
    ),
    (
        "regressor",
        "model_type = 'dnn_regressor', input_label_cols = ['arr_delay'], hidden_units = [16], optimizer = 'FTRL', \
                   max_iterations = 2, batch_size = 64",
    ),
    (
        "many_classes",
        "model_type = 'dnn_classifier', input_label_cols = ['origin'], hidden_units = [8], max_iterations = 1",
    ),
    ("logistic", "model_type = 'logistic_reg', input_label_cols = ['late'], l1_reg = 1.0"),
    ("multinomial", "model_type = 'logistic_reg', input_label_cols = ['origin'], l2_reg = 1.0"),
    ("linear", "model_type = 'linear_reg', input_label_cols = ['arr_delay'], l2_reg = 1.0"),
];

/// Trains all models on the rows of `from` and gives their files.
fn train(from: &str, workers: &str, flags: &[&str]) -> BTreeMap<&'static str, ModelFiles> {
    let place = Place::new();
    let create = |(name, options): &(&str, &str)| {
        format!(
            "CREATE MODEL {name} OPTIONS ({options}, data_split_method = 'RANDOM', seed = 11{workers}) \
             AS SELECT late, arr_delay, carrier, origin, hour, distance, dep_delay, temp FROM '{from}' WHERE day <= 7;\n"
        )
    };
    place.write("job.sql", MODELS.iter().map(create).collect::<String>());
    place.ok(&[&["run", "-q", "job.sql", "--kernel", "native"], flags].concat());
    MODELS.iter().map(|(name, _)| (*name, of_model(&place, name, 1))).collect()
}

/// Each way of running gives the bytes of the first.
fn same(ways: &[(&str, &str, &[&str])]) {
    let one_file = january().to_str().unwrap();
    let expected = train(one_file, "", &["-j", "2"]);
    for (from, workers, flags) in ways {
        let from = if from.is_empty() { one_file } else { from };
        let got = train(from, workers, flags);
        for (model, files) in &expected {
            let different: Vec<&String> =
                files.keys().filter(|file| got[model].get(*file) != files.get(*file)).collect();
            assert!(different.is_empty(), "{model} with {from} {workers} {flags:?}: other bytes in {different:?}");
        }
    }
}

#[test]
fn for_any_number_of_workers() {
    same(&[
        ("", ", num_workers = 1", &["-j", "2"]),
        ("", ", num_workers = 2", &["-j", "2"]),
        ("", ", num_workers = 3", &["-j", "2"]),
        ("", ", num_workers = 7", &["-j", "2"]),
    ]);
}

#[test]
fn for_any_number_of_threads_and_partitions() {
    same(&[
        ("", "", &["-j", "1"]),
        ("", "", &["-j", "4"]),
        ("", "", &["--set", "engine.target_partitions=1"]),
        ("", "", &["--set", "engine.target_partitions=5", "--set", "engine.batch_size=777"]),
    ]);
}

#[test]
fn for_any_cut_into_files() {
    let place = Place::new();
    for part in 0..5 {
        place.ok(&[
            "-q",
            "-c",
            &format!(
                "COPY (SELECT * FROM '{}' WHERE flight % 5 = {part} ORDER BY dest) TO 'flights/{part}.parquet'",
                january().display()
            ),
        ]);
    }
    let csv = place.path("flights.csv");
    place.ok(&["-q", "-c", &format!("COPY (SELECT * FROM '{}') TO '{}'", january().display(), csv.display())]);
    let five = place.path("flights/*.parquet");
    same(&[(five.to_str().unwrap(), "", &["-j", "2"]), (five.to_str().unwrap(), "", &["-j", "3"])]);
}

#[test]
fn in_memory_or_spilled() {
    same(&[("", "", &["-m", "512k"])]);
}
