//! From raw files to a trained, evaluated, saved model in a Rust program: which flights out of New York arrive late? The same
//! job as `examples/jobs/late_flights.sql`, with DataFrame calls instead of SQL.
//!
//! ```text
//! cargo run --release --example late_flights [DATA_DIR] [OUT_DIR]
//! ```
//!
//! DATA_DIR is examples/data/nycflights13. OUT_DIR (out/late_flights_rs) receives the scored flights, and the models in its
//! folder `warehouse`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use gristmill::prelude::*;

/// Minutes after which a flight is late.
const LATE_MINUTES: i64 = 15;
/// What the weather stations tell.
const WEATHER: [&str; 7] = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"];
/// Columns of text, and of numbers, that the models see.
const CATEGORIES: [&str; 3] = ["carrier", "origin", "dest"];
const NUMBERS: [&str; 7] = ["month", "hour", "dow", "distance", "dep_delay", "plane_age", "seats"];

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().unwrap_or_else(|| "examples/data/nycflights13".to_string());
    let out = arguments.next().unwrap_or_else(|| "out/late_flights_rs".to_string());
    let session = gristmill::session(Options { warehouse: format!("{out}/warehouse"), ..Options::default() })?;

    // 1. Raw files, cleaned and joined.
    let trips = trips(&session, &data).await?;
    let count = trips.clone().count().await?;
    println!("{count} flights");

    // 2. A network, and the plain model beside it; a fifth of the flights is held out.
    let transform =
        Transform::new().keep(["late"]).one_hot_encoder(CATEGORIES).standard_scaler(NUMBERS).standard_scaler(WEATHER);
    let network = ModelSpec::dnn_classifier("late_flights")
        .label("late")
        .transform(transform)
        .option("hidden_units", [64, 64])
        .option("optimizer", "ADAM")
        .option("learn_rate", 0.001)
        .option("batch_size", 256)
        .option("max_iterations", 5)
        .option("early_stop", false);
    let plain = ModelSpec::logistic_reg("late_flights_logistic").label("late");
    let held_out = |spec: ModelSpec| {
        spec.option("data_split_method", "RANDOM")
            .option("data_split_eval_fraction", 0.2)
            .option("seed", 7)
            .or_replace()
    };
    let network = train(&session, &held_out(network), trips.clone()).await?;
    let plain = train(&session, &held_out(plain), trips.clone().drop_columns(&["day", "flight"])?).await?;

    // 3. Are they good enough?
    for model in [&network, &plain] {
        println!("{model}: {}", model.evaluate().await?);
    }

    // 4. Every flight with its prediction, a directory a month.
    let scored = network.predict(trips).await?.select_columns(&[
        "month",
        "day",
        "carrier",
        "flight",
        "late",
        "predicted_late",
        "predicted_late_probs",
    ])?;
    let written = session.write(scored, format!("{out}/scored/")).partitioned_by(["month"]).overwrite().await?;
    println!("{} rows in {} files of {}", written.rows, written.files, written.location);

    // 5. A report from what was written.
    let right = avg(when(col("late").eq(col("predicted_late")), lit(1.0)).otherwise(lit(0.0))?);
    let report = session.read(format!("{out}/scored/")).await?;
    report
        .aggregate(vec![col("month")], vec![count_all().alias("flights"), round(vec![right, lit(4)]).alias("right")])?
        .sort_by(vec![col("month")])?
        .show()
        .await?;
    Ok(())
}

/// Flights that arrived, each with the weather at its departure and what is known of its plane.
async fn trips(session: &Session, data: &str) -> Result<DataFrame> {
    let hour = ["origin", "year", "month", "day", "hour"];
    let flights = session.read(format!("{data}/flights.parquet")).await?.filter(col("arr_delay").is_not_null())?;
    // The clock was set back on 3 November: one hour has two readings, of which the mean is taken.
    let weather = session
        .read(format!("{data}/weather.csv"))
        .option("null_value", "NA")
        .await?
        .aggregate(hour.map(col).to_vec(), WEATHER.map(|column| avg(col(column)).alias(column)).to_vec())?;
    let planes = session.read(format!("{data}/planes.csv")).option("null_value", "NA").await?.select(vec![
        col("tailnum"),
        col("year").alias("built"),
        col("seats"),
    ])?;

    let late = col("flights.arr_delay").gt(lit(LATE_MINUTES)).alias("late");
    let date = make_date(col("flights.year"), col("flights.month"), col("flights.day"));
    let of_flights = ["carrier", "origin", "dest", "flight", "month", "day", "hour", "distance", "dep_delay"];
    let mut columns = vec![late, date_part(lit("dow"), date).alias("dow")];
    columns.extend(of_flights.map(|column| col(format!("flights.{column}"))));
    columns.extend(WEATHER.map(col));
    columns.extend([(lit(2013) - col("built")).alias("plane_age"), col("seats")]);
    let trips = flights
        .join(weather, JoinType::Left, &hour, &hour, None)?
        .join(planes, JoinType::Left, &["tailnum"], &["tailnum"], None)?
        .select(columns)?;
    Ok(trips)
}
