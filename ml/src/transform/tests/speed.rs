//! How fast rows become features. Not a test of the suite; run it by hand:
//! `cargo test -p gristmill-ml --lib -- --ignored --nocapture rows_a_second`.

use std::time::Instant;

use super::*;

/// The shape of the flights: 14 numbers, some missing, and 3 strings of 16, 3 and 104 categories.
#[tokio::test]
#[ignore = "measures, and needs an otherwise idle machine"]
async fn rows_a_second() {
    let numbers: Vec<String> = (0..14)
        .map(|i| format!("CASE WHEN (i + {i}) % 50 = 0 THEN NULL ELSE sin(i * {i}.7) * 40 END AS x{i}"))
        .collect();
    let query = format!(
        "SELECT {}, concat('c', i % 16) AS carrier, concat('JF', i % 3) AS origin, concat('D', i % 104) AS dest
         FROM generate_series(1, 300000) AS g(i)",
        numbers.join(", ")
    );
    let (frame, batch) = rows(&query).await;
    let spec = TransformSpec::automatic(&schema_of(&frame), &[], AutomaticOptions::default()).unwrap();
    let started = Instant::now();
    let frozen = spec.fit(&frame, &FitOptions { medians: false, ..FitOptions::default() }).await.unwrap();
    println!("fit: {:.3} s for {} rows", started.elapsed().as_secs_f64(), batch.num_rows());
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let started = Instant::now();
        let mut rows = 0;
        for first in (0..batch.num_rows()).step_by(8192) {
            rows += frozen.apply(&batch.slice(first, 8192.min(batch.num_rows() - first))).unwrap().rows;
        }
        assert_eq!(rows, batch.num_rows());
        best = best.min(started.elapsed().as_secs_f64());
    }
    println!("apply: {:.2} million rows a second", batch.num_rows() as f64 / best / 1e6);
}
