"""Golden numbers for ml/src/transform/target.rs: the same rows encoded by scikit-learn's TargetEncoder.

Run: python tests/golden/target.py   (writes target.json beside itself; numpy and scikit-learn)

Fitted on all of `train` and applied to `test`, which has a category that training did not show. NULL is a category. Each
case comes as it is, and standardised over the training rows.
"""

import json
import pathlib

import numpy as np
from sklearn.preprocessing import StandardScaler, TargetEncoder

rng = np.random.default_rng(1871)
N = 97
categories = np.array(["AA", "B6", "UA", "VX", "a longer name than sixteen bytes", None], dtype=object)
s = rng.choice(categories, N, p=[0.4, 0.2, 0.2, 0.02, 0.08, 0.1])
test = np.concatenate([categories, np.array(["ZZ"], dtype=object)])
effect = {c: i * 0.7 - 1.5 for i, c in enumerate(categories)}
score = np.array([effect[c] for c in s]) + rng.normal(size=N)
labels = {
    "continuous": np.round(score * 8) / 8,
    "binary": (score > 0).astype(int),
    "multiclass": np.digitize(score, [-0.8, 0.6]),
}


def encoded(encoder, rows):
    return encoder.transform(rows.reshape(-1, 1))


cases = []
for kind, y in labels.items():
    encoder = TargetEncoder(target_type=kind, smooth="auto").fit(s.reshape(-1, 1), y)
    scaler = StandardScaler().fit(encoded(encoder, s))
    cases.append({
        "kind": kind, "labels": y.tolist(), "encoded": encoded(encoder, test).tolist(),
        "standardised": scaler.transform(encoded(encoder, test)).tolist(),
    })
target = pathlib.Path(__file__).with_suffix(".json")
target.write_text(json.dumps({"train": s.tolist(), "test": test.tolist(), "cases": cases}) + "\n")
