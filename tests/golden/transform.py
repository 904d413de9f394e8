"""Golden numbers for ml/src/transform: the same rows transformed by scikit-learn where its definition is ours.

Run: python tests/golden/transform.py   (writes transform.json beside itself; numpy and scikit-learn)

Columns: x (numbers, some missing), u and v (numbers), s (strings). Every case is fitted on `train` and applied to `test`,
which goes beyond the training range and has a category that training did not show.
"""

import json
import pathlib

import numpy as np
from sklearn import preprocessing as pre
from sklearn.impute import SimpleImputer

rng = np.random.default_rng(1913)


def rows(n, spread, categories):
    x = np.round(rng.normal(size=n) * spread + 12, 3)
    x[rng.random(n) < 0.1] = np.nan
    return {
        "x": x, "u": np.round(rng.exponential(spread, n), 3), "v": rng.integers(-9, 10, n).astype(float),
        "s": rng.choice(categories, n),
    }


train, test = rows(211, 5, ["AA", "B6", "UA", "a longer name than sixteen bytes"]), rows(40, 9, ["B6", "UA", "ZZ"])
known = ~np.isnan(train["x"])


def column(data, name):
    return data[name].reshape(-1, 1)


def numbers(transformer, name):
    transformer.fit(column(train, name))
    return transformer.transform(column(test, name)).ravel().tolist()


def one_hot(matrix):
    matrix = np.asarray(matrix.todense()) if hasattr(matrix, "todense") else matrix
    return [int(row.argmax()) if row.any() else -1 for row in matrix]


def missing_as(values, value):
    return [value if np.isnan(v) else v for v in values]


cases = []


def case(transform, numbers=None, indices=None):
    cases.append({"transform": transform, "numbers": numbers, "indices": indices})


# NULL becomes what the mean of the training rows becomes.
mean = float(np.mean(train["x"][known]))
for call, transformer in [
    ("ML.STANDARD_SCALER(x) OVER ()", pre.StandardScaler()),
    ("ML.MIN_MAX_SCALER(x) OVER ()", pre.MinMaxScaler(clip=True)),
    ("ML.ROBUST_SCALER(x) OVER ()", pre.RobustScaler()),
    ("ML.ROBUST_SCALER(x, [10, 90]) OVER ()", pre.RobustScaler(quantile_range=(10, 90))),
    ("ML.ROBUST_SCALER(x, [25, 75], FALSE) OVER ()", pre.RobustScaler(with_centering=False)),
    ("ML.ROBUST_SCALER(x, [25, 75], TRUE, FALSE) OVER ()", pre.RobustScaler(with_scaling=False)),
]:
    scaled = numbers(transformer, "x")
    case(call, [missing_as(scaled, float(transformer.transform([[mean]])[0, 0]))])
for strategy in ["mean", "median", "most_frequent"]:
    case(f"ML.IMPUTER(x, '{strategy}') OVER ()", [numbers(SimpleImputer(strategy=strategy), "x")])
absolute = pre.MaxAbsScaler().fit(column(train, "v"))
case("ML.MAX_ABS_SCALER(v) OVER ()", [np.clip(absolute.transform(column(test, "v")).ravel(), -1, 1).tolist()])
imputed = SimpleImputer(strategy="median").fit(column(train, "x"))
scaler = pre.StandardScaler().fit(imputed.transform(column(train, "x")))
case(
    "ML.STANDARD_SCALER(ML.IMPUTER(x, 'median') OVER ()) OVER ()",
    [scaler.transform(imputed.transform(column(test, "x"))).ravel().tolist()],
)
encoder = pre.OneHotEncoder(handle_unknown="ignore").fit(column(train, "s"))
case("ML.ONE_HOT_ENCODER(s, 'none', 100, 0) OVER ()", indices=one_hot(encoder.transform(column(test, "s"))))
ordinal = pre.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(column(train, "s"))
case("ML.LABEL_ENCODER(s, 100, 0) OVER ()", [(ordinal.transform(column(test, "s")).ravel() + 1).tolist()])
for bins in [2, 5, 10]:
    binner = pre.KBinsDiscretizer(bins, encode="ordinal", strategy="quantile", quantile_method="linear")
    binner.fit(column(train, "u"))
    # Buckets are named bin_1, bin_2, ..., so as categories bin_10 comes before bin_2.
    names = sorted(f"bin_{i + 1}" for i in range(bins))
    placed = [names.index(f"bin_{int(b) + 1}") for b in binner.transform(column(test, "u")).ravel()]
    case(f"ML.QUANTILE_BUCKETIZE(u, {bins}) OVER () AS u", indices=placed)
for degree in [1, 2, 3]:
    expanded = pre.PolynomialFeatures(degree, include_bias=False).fit_transform(np.c_[test["u"], test["v"]])
    case(f"ML.POLYNOMIAL_EXPAND(STRUCT(u, v), {degree}) AS p", expanded.T.tolist())
for norm, p in [("l1", "1"), ("l2", "2"), ("max", "CAST('inf' AS DOUBLE)")]:
    normalized = pre.normalize(np.c_[test["u"], test["v"]], norm)
    case(f"ML.NORMALIZER([u, v], {p}) AS n", normalized.T.tolist())


def plain(data):
    return {k: [None if isinstance(x, float) and np.isnan(x) else x for x in v.tolist()] for k, v in data.items()}


target = pathlib.Path(__file__).with_name("transform.json")
target.write_text(json.dumps({"train": plain(train), "test": plain(test), "cases": cases}) + "\n")
