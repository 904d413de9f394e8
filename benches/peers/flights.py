"""The main job in a peer: read flights and weather, clean, join, encode, split, train, evaluate, write predictions.

usage: flights.py spark|sklearn|torch DATA
DATA is examples/data/nycflights13. The wall time of the whole process counts, from start to exit.
"""
import sys
import tempfile
import time

started = time.time()
peer, data = sys.argv[1], sys.argv[2]

SQL = """
select cast(f.arr_delay > 15 as int) as late, f.carrier, f.origin, f.dest, f.month, f.hour,
       dayofweek(make_date({ymd})) as dow,
       cast(f.distance as double) as distance, cast(f.dep_delay as double) as dep_delay,
       w.temp, w.dewp, w.humid, w.wind_speed, w.precip, w.pressure, w.visib
from flights f
left join weather w
  on f.origin = w.origin and f.year = w.year and f.month = w.month and f.day = w.day and f.hour = w.hour
where f.arr_delay is not null"""
CATEGORIES = ["carrier", "origin", "dest"]
NUMBERS = ["month", "hour", "dow", "distance", "dep_delay", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]


def spark():
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression, MultilayerPerceptronClassifier
    from pyspark.ml.evaluation import BinaryClassificationEvaluator
    from pyspark.ml.feature import Imputer, OneHotEncoder, StandardScaler, StringIndexer, VectorAssembler
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import col

    session = (
        SparkSession.builder.master("local[2]").config("spark.driver.memory", "8g").config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "8").getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    session.read.parquet(f"{data}/flights.parquet").createOrReplaceTempView("flights")
    session.read.csv(f"{data}/weather.csv", header=True, nullValue="NA", inferSchema=True).createOrReplaceTempView("weather")
    rows = session.sql(SQL.format(ymd="f.year, f.month, f.day"))
    rows = rows.select("late", *CATEGORIES, *[col(c).cast("double").alias(c) for c in NUMBERS])
    train, test = rows.randomSplit([0.8, 0.2], 7)
    stages = [
        Imputer(inputCols=NUMBERS, outputCols=[c + "_i" for c in NUMBERS]),
        *[StringIndexer(inputCol=c, outputCol=c + "_x", handleInvalid="keep") for c in CATEGORIES],
        OneHotEncoder(inputCols=[c + "_x" for c in CATEGORIES], outputCols=[c + "_o" for c in CATEGORIES]),
        VectorAssembler(inputCols=[c + "_i" for c in NUMBERS], outputCol="n"),
        StandardScaler(inputCol="n", outputCol="ns", withMean=True),
        VectorAssembler(inputCols=["ns"] + [c + "_o" for c in CATEGORIES], outputCol="features"),
    ]
    pipeline = Pipeline(stages=stages).fit(train)
    train, test = pipeline.transform(train).cache(), pipeline.transform(test).cache()
    train.count(), test.count()
    evaluator = BinaryClassificationEvaluator(labelCol="late")
    inputs = train.first().features.size

    begun = time.time()
    logistic = LogisticRegression(labelCol="late", maxIter=20).fit(train)
    took = time.time() - begun
    print(f"spark logistic auc {evaluator.evaluate(logistic.transform(test)):.4f} fit {took:.2f} s", flush=True)
    begun = time.time()
    network = MultilayerPerceptronClassifier(labelCol="late", layers=[inputs, 64, 64, 2], maxIter=20, blockSize=128, seed=7)
    network = network.fit(train)
    took = time.time() - begun
    scored = network.transform(test)
    print(f"spark network auc {evaluator.evaluate(scored):.4f} fit {took:.2f} s", flush=True)
    scored.select("late", "prediction").write.mode("overwrite").parquet(tempfile.mkdtemp() + "/scored")


def prepared():
    """Training and test features and labels, by DuckDB and scikit-learn; and the frame of the test rows."""
    import duckdb
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    connection = duckdb.connect()
    connection.execute("set threads=2")
    connection.execute(f"create view flights as select * from '{data}/flights.parquet'")
    connection.execute(f"create view weather as select * from read_csv('{data}/weather.csv', nullstr='NA')")
    rows = connection.execute(SQL.format(ymd="f.year::int, f.month::int, f.day::int")).df()
    chosen = np.random.default_rng(7).random(len(rows)) < 0.8
    transform = ColumnTransformer([
        ("n", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        ("c", OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
    ])
    x = transform.fit_transform(rows[chosen]).astype(np.float32)
    x_test = transform.transform(rows[~chosen]).astype(np.float32)
    print(f"{peer} prepared {x.shape} after {time.time() - started:.2f} s", flush=True)
    return x, rows.late[chosen].to_numpy(), x_test, rows.late[~chosen].to_numpy(), rows[~chosen]


def write(rows, probability):
    rows.assign(probability=probability).to_parquet(tempfile.mkdtemp() + "/scored.parquet")


def sklearn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.neural_network import MLPClassifier

    x, y, x_test, y_test, rows = prepared()
    begun = time.time()
    logistic = LogisticRegression(max_iter=20).fit(x, y)
    auc = roc_auc_score(y_test, logistic.predict_proba(x_test)[:, 1])
    print(f"sklearn logistic auc {auc:.4f} fit {time.time() - begun:.2f} s", flush=True)
    begun = time.time()
    network = MLPClassifier((64, 64), batch_size=256, max_iter=5, n_iter_no_change=99).fit(x, y)
    took = time.time() - begun
    probability = network.predict_proba(x_test)[:, 1]
    print(f"sklearn network auc {roc_auc_score(y_test, probability):.4f} fit {took:.2f} s", flush=True)
    write(rows, probability)


def torch():
    import numpy as np
    import torch
    from sklearn.metrics import roc_auc_score

    x, y, x_test, y_test, rows = prepared()
    begun = time.time()
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))
    network = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    loss = torch.nn.BCEWithLogitsLoss()
    for _ in range(5):
        order = torch.randperm(len(inputs))
        for start in range(0, len(inputs), 256):
            batch = order[start:start + 256]
            optimizer.zero_grad()
            loss(network(inputs[batch]).squeeze(1), labels[batch]).backward()
            optimizer.step()
    took = time.time() - begun
    with torch.no_grad():
        probability = torch.sigmoid(network(torch.from_numpy(x_test)).squeeze(1)).numpy()
    print(f"torch network auc {roc_auc_score(y_test, probability):.4f} fit {took:.2f} s", flush=True)
    write(rows, probability)


{"spark": spark, "sklearn": sklearn, "torch": torch}[peer]()
print(f"{peer} whole process {time.time() - started:.2f} s")
