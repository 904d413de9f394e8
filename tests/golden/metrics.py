"""Golden numbers for ml/src/metric: the same predictions measured by scikit-learn.

Run: python tests/golden/metrics.py   (writes metrics.json beside itself; numpy and scikit-learn)
"""

import json
import pathlib
import warnings

import numpy as np
from sklearn import metrics

warnings.simplefilter("ignore")
rng = np.random.default_rng(20130101)


def binary(name, labels, p, threshold):
    predicted = (p >= threshold).astype(int)
    tn, fp, fn, tp = metrics.confusion_matrix(labels, predicted, labels=[0, 1]).ravel()
    fpr, tpr, thresholds = metrics.roc_curve(labels, p, drop_intermediate=False)
    return {
        "name": name, "classes": 2, "threshold": threshold, "labels": labels.tolist(), "probabilities": p.tolist(),
        "precision": metrics.precision_score(labels, predicted), "recall": metrics.recall_score(labels, predicted),
        "accuracy": metrics.accuracy_score(labels, predicted), "f1_score": metrics.f1_score(labels, predicted),
        "log_loss": metrics.log_loss(labels, p, labels=[0, 1]), "roc_auc": metrics.roc_auc_score(labels, p),
        "confusion": [int(tn), int(fp), int(fn), int(tp)],
        # scikit-learn starts with a threshold of infinity, at which nothing is predicted
        "roc_curve": [list(point) for point in zip(thresholds[1:].tolist(), tpr[1:].tolist(), fpr[1:].tolist())],
    }


def multiclass(name, labels, p):
    predicted = p.argmax(axis=1)
    classes = p.shape[1]
    macro = {"average": "macro", "zero_division": 0}
    return {
        "name": name, "classes": classes, "threshold": 0.5, "labels": labels.tolist(),
        "probabilities": p.ravel().tolist(),
        "precision": metrics.precision_score(labels, predicted, **macro),
        "recall": metrics.recall_score(labels, predicted, **macro),
        "accuracy": metrics.accuracy_score(labels, predicted), "f1_score": metrics.f1_score(labels, predicted, **macro),
        "log_loss": metrics.log_loss(labels, p, labels=range(classes)),
        "roc_auc": metrics.roc_auc_score(labels, p, multi_class="ovr", average="macro"),
        "confusion": metrics.confusion_matrix(labels, predicted, labels=range(classes)).ravel().tolist(),
    }


def regression(name, y, p):
    log_error = metrics.mean_squared_log_error(y, p) if min(y.min(), p.min()) > -1 else None
    return {
        "name": name, "labels": y.tolist(), "predictions": p.tolist(),
        "mean_absolute_error": metrics.mean_absolute_error(y, p),
        "mean_squared_error": metrics.mean_squared_error(y, p), "mean_squared_log_error": log_error,
        "median_absolute_error": metrics.median_absolute_error(y, p), "r2_score": metrics.r2_score(y, p),
        "explained_variance": metrics.explained_variance_score(y, p),
    }


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


labels = rng.integers(0, 2, 80)
scores = 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(size=80))))
four = rng.integers(0, 4, 90)
three = softmax(rng.normal(size=(60, 4)) + [0, 0, 0, -9])  # class 3 is never predicted
y = rng.gamma(2.0, 30.0, 61)

golden = {
    "classification": [
        binary("scores", labels, scores, 0.5),
        binary("ties", labels, np.round(scores, 1), 0.5),
        binary("certain and wrong", labels, np.where(scores > 0.8, 1.0, np.where(scores < 0.2, 0.0, scores)), 0.35),
        binary("nothing predicted positive", labels, scores * 0.4, 0.5),
        multiclass("four classes", four, softmax(rng.normal(size=(90, 4)) + 1.5 * np.eye(4)[four])),
        multiclass("a class never predicted", np.arange(60) % 4, three),
    ],
    "regression": [
        regression("positive", y, np.abs(y + rng.normal(size=61) * 12)),
        regression("delays of both signs", y - 60, y - 58 + rng.normal(size=61) * 20),
        # few digits: a JSON reader need not round longer ones to the nearest number
        regression("far from zero", np.round(y + 1e9, 3), np.round(y + 1e9 + rng.normal(size=61), 3)),
        regression("constant labels", np.full(5, 3.0), np.array([3.0, 3.5, 2.0, 3.0, 4.0])),
        regression("constant labels met", np.full(4, 3.0), np.full(4, 3.0)),
    ],
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, indent=None, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
