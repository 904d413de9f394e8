#!/usr/bin/env python3
"""Ten small data sets, default options: held-out metrics of ours beside scikit-learn's, as the table of README.md.

    python3 -m venv venv && venv/bin/pip install scikit-learn pandas pyarrow statsmodels vega_datasets palmerpenguins
    GRISTMILL=target/release/gristmill venv/bin/python benches/quality.py

Names of data sets as arguments leave out the others. Each is split three times into three quarters and a quarter. Both
sides see the same rows of the first part, and are measured on the rest. Ours gets the table as it is, without an option
but the model type; scikit-learn's models have their defaults, too, behind what its manual recommends: numbers imputed with
the mean and standardised, categories one-hot encoded, a timestamp as its seconds. Metrics of both are scikit-learn's, from
the predictions.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import pandas as pd
import palmerpenguins
import sklearn.datasets
import statsmodels.api as sm
import vega_datasets
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

GRISTMILL = os.path.abspath(os.environ.get("GRISTMILL", "target/release/gristmill"))
SPLITS = 3


def of_sklearn(name, classes):
    data = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
    table = data.data.rename(columns=lambda c: "".join(x if x.isalnum() else "_" for x in c))
    return table.assign(label=data.target), classes


def of_statsmodels(name, label, classes, rows=None):
    table = getattr(sm.datasets, name).load_pandas().data.rename(columns={label: "label"})
    table = table.sample(rows, random_state=0) if rows else table
    return (table.astype({"label": "int64"}) if classes else table), classes


def penguins():
    table = palmerpenguins.load_penguins().rename(columns={"species": "label"})
    return table, True


def cars():
    table = vega_datasets.data.cars().rename(columns={"Miles_per_Gallon": "label"}).drop(columns="Name")
    return table[table.label.notna()], False


def weather():
    table = vega_datasets.data.seattle_weather().rename(columns={"weather": "label"})
    return table, True


def star98():
    table = sm.datasets.star98.load_pandas().data
    return table.assign(label=table.NABOVE / (table.NABOVE + table.NBELOW)).drop(columns=["NABOVE", "NBELOW"]), False


DATA = {
    "iris": lambda: of_sklearn("iris", True),
    "wine": lambda: of_sklearn("wine", True),
    "breast_cancer": lambda: of_sklearn("breast_cancer", True),
    "digits": lambda: of_sklearn("digits", True),
    "penguins": penguins,
    "anes96": lambda: of_statsmodels("anes96", "vote", True),
    "seattle_weather": weather,
    "diabetes": lambda: of_sklearn("diabetes", False),
    "cars": cars,
    "star98": star98,
}


def behind_the_usual(model):
    """The model behind what scikit-learn's manual recommends."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(
        make_column_transformer(
            (numbers, make_column_selector(dtype_include="number")),
            (categories, make_column_selector(dtype_exclude="number")),
        ),
        model,
    )


def seconds(table):
    times = table.select_dtypes("datetime")
    return table.assign(**{name: times[name].astype("int64") // 10**9 for name in times})


def theirs(train, test, classes):
    if classes:
        models = [LogisticRegression(), MLPClassifier(random_state=0)]
    else:
        models = [LinearRegression(), MLPRegressor(random_state=0)]
    for model in models:
        fitted = behind_the_usual(model).fit(seconds(train.drop(columns="label")), train.label)
        inputs = seconds(test.drop(columns="label"))
        yield fitted.predict(inputs), fitted.predict_proba(inputs) if classes else None


def ours(train, test, classes):
    types = ["logistic_reg", "dnn_classifier"] if classes else ["linear_reg", "dnn_regressor"]
    with tempfile.TemporaryDirectory() as place:
        at = pathlib.Path(place)
        train.to_parquet(at / "train.parquet", index=False)
        test.assign(row_number=range(len(test))).to_parquet(at / "test.parquet", index=False)
        for kind in types:
            struct = ", STRUCT(TRUE AS probs_as_columns)" if classes else ""
            script = f"""
                CREATE MODEL {kind} OPTIONS (model_type = '{kind}') AS SELECT * FROM 'train.parquet';
                COPY (SELECT * FROM ML.PREDICT(MODEL {kind}, (SELECT * FROM 'test.parquet'){struct}) ORDER BY row_number)
                TO '{kind}.parquet';"""
            (at / "job.sql").write_text(script)
            command = [GRISTMILL, "-q", "--progress", "never", "--warehouse", at / "warehouse", "run", "job.sql"]
            subprocess.run(list(map(str, command)), cwd=at, check=True, stderr=subprocess.DEVNULL)
            answer = pd.read_parquet(at / f"{kind}.parquet").sort_values("row_number")
            names = [name for name in answer if name.startswith("predicted_label_probs_")]
            yield answer.predicted_label, answer[names].to_numpy() if classes else None


def measured(answers, test, classes):
    for predicted, probabilities in answers:
        if classes:
            labels = np.unique(test.attrs["labels"])
            yield accuracy_score(test.label, predicted), log_loss(test.label, probabilities, labels=labels)
        else:
            yield r2_score(test.label, predicted), None


def main():
    warnings.filterwarnings("ignore")
    print("| data | rows, columns | metric | linear: ours | scikit-learn | network: ours | scikit-learn |")
    print("|---|---|---|---|---|---|---|")
    for name, load in DATA.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        table, classes = load()
        table = table.reset_index(drop=True)
        figures = []
        for split in range(SPLITS):
            held_out = np.random.default_rng(split).random(len(table)) < 0.25
            train, test = table[~held_out].copy(), table[held_out].copy()
            test.attrs["labels"] = list(table.label)
            both = [measured(side(train, test, classes), test, classes) for side in (ours, theirs)]
            figures.append([value for pair in zip(*both) for value in pair])
        means = np.array([[m for m, _ in row] for row in figures]).mean(0)
        losses = np.array([[l or 0 for _, l in row] for row in figures]).mean(0)
        shown = [f"{m:.3f}" + (f" ({l:.3f})" if classes else "") for m, l in zip(means, losses)]
        metric = "accuracy (log loss)" if classes else "R2"
        print(f"| {name} | {len(table)}, {table.shape[1] - 1} | {metric} | {' | '.join(shown)} |", flush=True)


main()
