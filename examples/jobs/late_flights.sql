-- From raw files to a trained, evaluated, saved model: which flights out of New York arrive late?
--
--   gristmill run examples/jobs/late_flights.sql
--   gristmill run examples/jobs/late_flights.sql -p min_auc=0.90 -p out=/tmp/late
--
-- 336,776 flights of 2013 (Parquet), hourly weather and planes (CSV with NA for what is missing).

DECLARE data             STRING DEFAULT 'examples/data/nycflights13';
DECLARE out              STRING DEFAULT 'out/late_flights';
DECLARE late_minutes     BIGINT DEFAULT 15;      -- later than this is late
DECLARE min_auc          DOUBLE DEFAULT 0.92;    -- the network must reach this on held-out flights
DECLARE min_logistic_auc DOUBLE DEFAULT 0.905;

-- 1. Raw tables, each as it is delivered ---------------------------------------------------------------------------

CREATE EXTERNAL TABLE flights  STORED AS PARQUET LOCATION '${data}/flights.parquet';
CREATE EXTERNAL TABLE airlines STORED AS PARQUET LOCATION '${data}/airlines.parquet';

CREATE EXTERNAL TABLE weather_raw (
  origin STRING, year BIGINT, month BIGINT, day BIGINT, hour BIGINT,
  temp DOUBLE, dewp DOUBLE, humid DOUBLE, wind_dir DOUBLE, wind_speed DOUBLE, wind_gust DOUBLE,
  precip DOUBLE, pressure DOUBLE, visib DOUBLE, time_hour STRING
) STORED AS CSV LOCATION '${data}/weather.csv'
  OPTIONS ('format.has_header' 'true', 'format.null_regex' '^NA$');

CREATE EXTERNAL TABLE planes_raw STORED AS CSV LOCATION '${data}/planes.csv'
  OPTIONS ('format.has_header' 'true');

-- 2. Cleaning ------------------------------------------------------------------------------------------------------

-- The clock was set back on 3 November: one hour has two readings, of which the mean is taken.
CREATE VIEW weather AS
SELECT origin, year, month, day, hour,
       avg(temp) AS temp, avg(dewp) AS dewp, avg(humid) AS humid, avg(wind_speed) AS wind_speed,
       avg(precip) AS precip, avg(pressure) AS pressure, avg(visib) AS visib
FROM weather_raw
GROUP BY origin, year, month, day, hour;

-- Without a schema a column that holds NA is text: numbers are taken where there are numbers.
CREATE VIEW planes AS
SELECT tailnum, TRY_CAST(year AS BIGINT) AS built, TRY_CAST(seats AS DOUBLE) AS seats, NULLIF(engine, 'NA') AS engine
FROM planes_raw;

-- Cancelled and diverted flights have no arrival delay and are left out.
CREATE VIEW trips AS
SELECT f.arr_delay > $late_minutes AS late,
       f.carrier, f.origin, f.dest, f.flight, f.month, f.day, f.hour,
       date_part('dow', make_date(f.year, f.month, f.day)) AS dow,
       CAST(f.distance AS DOUBLE) AS distance, CAST(f.dep_delay AS DOUBLE) AS dep_delay,
       w.temp, w.dewp, w.humid, w.wind_speed, w.precip, w.pressure, w.visib,
       CAST(2013 - p.built AS DOUBLE) AS plane_age, p.seats
FROM flights f
LEFT JOIN weather w ON f.origin = w.origin AND f.year = w.year AND f.month = w.month AND f.day = w.day AND f.hour = w.hour
LEFT JOIN planes p ON f.tailnum = p.tailnum
WHERE f.arr_delay IS NOT NULL;

-- 3. Is the data what we believe it to be? -------------------------------------------------------------------------

ASSERT (SELECT count(*) FROM trips) = (SELECT count(*) FROM flights WHERE arr_delay IS NOT NULL)
  AS 'the joins neither lose nor multiply flights';
ASSERT (SELECT count(*) FROM flights WHERE distance <= 0 OR hour NOT BETWEEN 0 AND 23) = 0
  AS 'distances and hours are possible';
ASSERT (SELECT avg(CASE WHEN temp IS NULL THEN 1.0 ELSE 0.0 END) FROM trips) < 0.01
  AS 'the weather is known for 99 of 100 flights';
ASSERT (SELECT avg(CASE WHEN seats IS NULL THEN 1.0 ELSE 0.0 END) FROM trips) < 0.10
  AS 'the plane is known for 9 of 10 flights' ON FAILURE WARN;

-- 4. Train ---------------------------------------------------------------------------------------------------------

CREATE OR REPLACE MODEL late_flights
TRANSFORM (
  late,
  ML.ONE_HOT_ENCODER(carrier) OVER () AS carrier,
  ML.ONE_HOT_ENCODER(origin)  OVER () AS origin,
  ML.ONE_HOT_ENCODER(dest)    OVER () AS dest,
  ML.STANDARD_SCALER(month)      OVER () AS month,
  ML.STANDARD_SCALER(hour)       OVER () AS hour,
  ML.STANDARD_SCALER(dow)        OVER () AS dow,
  ML.STANDARD_SCALER(distance)   OVER () AS distance,
  ML.STANDARD_SCALER(dep_delay)  OVER () AS dep_delay,
  ML.STANDARD_SCALER(temp)       OVER () AS temp,
  ML.STANDARD_SCALER(dewp)       OVER () AS dewp,
  ML.STANDARD_SCALER(humid)      OVER () AS humid,
  ML.STANDARD_SCALER(wind_speed) OVER () AS wind_speed,
  ML.STANDARD_SCALER(precip)     OVER () AS precip,
  ML.STANDARD_SCALER(pressure)   OVER () AS pressure,
  ML.STANDARD_SCALER(visib)      OVER () AS visib,
  ML.STANDARD_SCALER(plane_age)  OVER () AS plane_age,
  ML.STANDARD_SCALER(seats)      OVER () AS seats
)
OPTIONS (
  model_type = 'dnn_classifier', input_label_cols = ['late'],
  hidden_units = [64, 64], activation_fn = 'RELU', optimizer = 'ADAM', learn_rate = 0.001,
  batch_size = 256, max_iterations = 5, early_stop = FALSE,
  data_split_method = 'RANDOM', data_split_eval_fraction = 0.2, seed = 7
)
AS SELECT * FROM trips;

-- The plain model beside it; without TRANSFORM numbers are standardised and strings one-hot encoded.
CREATE OR REPLACE MODEL late_flights_logistic
OPTIONS (
  model_type = 'logistic_reg', input_label_cols = ['late'],
  data_split_method = 'RANDOM', data_split_eval_fraction = 0.2, seed = 7
)
AS SELECT late, carrier, origin, dest, month, hour, dow, distance, dep_delay,
          temp, dewp, humid, wind_speed, precip, pressure, visib, plane_age, seats
FROM trips;

-- 5. Is it good enough? --------------------------------------------------------------------------------------------

ASSERT (SELECT roc_auc FROM ML.EVALUATE(MODEL late_flights)) >= $min_auc
  AS 'the network tells late flights from punctual ones';
ASSERT (SELECT roc_auc FROM ML.EVALUATE(MODEL late_flights_logistic)) >= $min_logistic_auc
  AS 'so does logistic regression';

SELECT 'network 64-64' AS model, * FROM ML.EVALUATE(MODEL late_flights)
UNION ALL
SELECT 'logistic regression' AS model, * FROM ML.EVALUATE(MODEL late_flights_logistic)
ORDER BY roc_auc DESC;

-- 6. Predict every flight and keep the answers, a directory a month ------------------------------------------------

COPY (
  SELECT month, day, carrier, flight, origin, dest, late, predicted_late, predicted_late_probs
  FROM ML.PREDICT(MODEL late_flights, TABLE trips)
) TO '${out}/scored/' STORED AS PARQUET PARTITIONED BY (month) MODE OVERWRITE;

-- 7. Report, from what was written ---------------------------------------------------------------------------------

CREATE EXTERNAL TABLE scored STORED AS PARQUET LOCATION '${out}/scored/' PARTITIONED BY (month);

SELECT a.name AS airline,
       count(*) AS flights,
       round(100 * avg(CASE WHEN s.late THEN 1.0 ELSE 0.0 END), 1) AS late_percent,
       round(100 * avg(CASE WHEN s.predicted_late THEN 1.0 ELSE 0.0 END), 1) AS predicted_percent,
       round(100 * avg(CASE WHEN s.late = s.predicted_late THEN 1.0 ELSE 0.0 END), 1) AS right_percent
FROM scored s JOIN airlines a ON s.carrier = a.carrier
GROUP BY a.name
ORDER BY late_percent DESC, airline;
