"""Golden numbers for ml/src/linear: the same rows fitted by scikit-learn, to convergence.

Run: python tests/golden/linear.py   (writes linear.json beside itself; numpy, scikit-learn and statsmodels)

Rows have 3 dense inputs (rounded to sixteenths, so that they are the same numbers in single precision) and two one-hot
groups of 3 and 4 columns, of which a row may set none. Objectives: see ml/src/linear/mod.rs.
"""

import json
import pathlib
import warnings

import numpy as np
import statsmodels.api as sm
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge

warnings.simplefilter("ignore")
rng = np.random.default_rng(7)
N, DENSE, GROUPS, NONE = 240, 3, [3, 4], -1


def sixteenths(x):
    return np.round(x * 16) / 16


dense = sixteenths(rng.normal(size=(N, DENSE)) * [1, 3, 0.5] + [0, 40, -2])
full = np.stack([rng.integers(0, width, N) for width in GROUPS], axis=1)
gaps = np.where(rng.random(full.shape) < 0.2, NONE, full)


def matrix(indices):
    columns = [dense]
    for group, width in enumerate(GROUPS):
        columns.append((indices[:, [group]] == np.arange(width)).astype(float))
    return np.hstack(columns)


X_gaps, X_full = matrix(gaps), matrix(full)
truth = rng.normal(size=X_gaps.shape[1])
score = X_gaps @ truth - 40 * truth[1]
value = sixteenths(score + rng.normal(size=N))
binary = (score + rng.logistic(size=N) > np.median(score)).astype(int)
three = np.argmax((X_gaps - X_gaps.mean(axis=0)) @ rng.normal(size=(X_gaps.shape[1], 3)) + rng.gumbel(size=(N, 3)), axis=1)
weights = sixteenths(rng.gamma(4.0, 0.25, N) + 0.0625)


def case(name, kind, labels, model, indices=gaps, l1=0.0, l2=0.0, weight=None, p_values=None):
    X = X_full if indices is full else X_gaps
    # saga stands still too early unless the inputs are centred; the intercept, which is free, is moved back after
    centre = X.mean(axis=0) if getattr(model, "solver", "") == "saga" else np.zeros(X.shape[1])
    model.fit(X - centre, labels, sample_weight=weight)
    if model.fit_intercept:
        model.intercept_ = model.intercept_ - model.coef_ @ centre
    if kind == "multinomial":
        model.intercept_ = model.intercept_ - np.mean(model.intercept_)  # which changes no probability
    out = {
        "name": name, "kind": kind, "l1": l1, "l2": l2, "fit_intercept": bool(model.fit_intercept),
        "indices": "full" if indices is full else "gaps", "labels": labels.tolist(),
        "weights": None if weight is None else weight.tolist(),
        "coefficients": np.atleast_2d(model.coef_).T.ravel().tolist(),
        "intercepts": np.atleast_1d(model.intercept_).tolist() if model.fit_intercept else None,
    }
    if p_values is not None:
        out |= p_values
    return out


def inference(model, X, y, intercept=True, **options):
    """Standard errors and p-values, intercept last."""
    A = np.hstack([X, np.ones((len(X), 1))]) if intercept else X
    fitted = model(y, A).fit(**options)
    return {"standard_errors": fitted.bse.tolist(), "p_values": fitted.pvalues.tolist()}


newton = {"method": "newton", "tol": 1e-13, "maxiter": 100, "disp": False}


def logistic(**options):
    return LogisticRegression(tol=1e-13, max_iter=100_000, **options)


tight = {"tol": 1e-14, "max_iter": 1_000_000}
golden = {
    "dense": dense.ravel().tolist(), "groups": GROUPS, "gaps": gaps.ravel().tolist(), "full": full.ravel().tolist(),
    "cases": [
        case("least squares", "regression", value, LinearRegression(), p_values=inference(sm.OLS, X_gaps, value)),
        case("least squares, collinear", "regression", value, LinearRegression(), indices=full),
        case("least squares, no intercept", "regression", value, LinearRegression(fit_intercept=False),
             p_values=inference(sm.OLS, X_gaps, value, intercept=False)),
        case("least squares, weighted", "regression", value, LinearRegression(), weight=weights),
        case("ridge", "regression", value, Ridge(alpha=2.5), l2=2.5),
        case("ridge, collinear, weighted", "regression", value, Ridge(alpha=0.5), indices=full, l2=0.5, weight=weights),
        case("lasso", "regression", value, ElasticNet(alpha=9.0 / N, l1_ratio=1.0, **tight), l1=9.0),
        case("elastic net", "regression", value, ElasticNet(alpha=12.0 / N, l1_ratio=0.75, **tight), l1=9.0, l2=3.0),
        case("logistic", "binary", binary, logistic(C=np.inf, solver="newton-cholesky"),
             p_values=inference(sm.Logit, X_gaps, binary, **newton)),
        case("logistic, no intercept", "binary", binary,
             logistic(C=np.inf, solver="newton-cholesky", fit_intercept=False),
             p_values=inference(sm.Logit, X_gaps, binary, intercept=False, **newton)),
        case("logistic, ridge", "binary", binary, logistic(C=0.5, solver="newton-cholesky"), l2=2.0),
        case("logistic, ridge, collinear, weighted", "binary", binary, logistic(C=1.0, solver="newton-cholesky"),
             indices=full, l2=1.0, weight=weights),
        case("logistic, ridge, no intercept", "binary", binary,
             logistic(C=1.0, solver="newton-cholesky", fit_intercept=False), l2=1.0),
        case("logistic, lasso", "binary", binary, logistic(C=0.25, l1_ratio=1.0, solver="saga"), l1=4.0),
        case("logistic, elastic net", "binary", binary, logistic(C=0.25, l1_ratio=0.5, solver="saga"), l1=2.0, l2=2.0),
        case("multinomial, ridge", "multinomial", three, logistic(C=0.5, solver="newton-cholesky"), l2=2.0),
        case("multinomial, ridge, weighted", "multinomial", three, logistic(C=1.0, solver="newton-cholesky"),
             l2=1.0, weight=weights),
        case("multinomial, lasso", "multinomial", three, logistic(C=0.25, l1_ratio=1.0, solver="saga"), l1=4.0),
    ],
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
