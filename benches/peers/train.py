"""A network on random rows in a peer: train.py torch|sklearn|keras founding|large

The networks and the numbers of rows are those of benches/train_step.rs. Prints samples per second of the best epoch.
"""
import os
import sys
import time
import warnings

import numpy as np

peer, case = sys.argv[1:3]
rows, hidden, batch = {"founding": (60_000, 64, 32), "large": (16_000, 1024, 256)}[case]
chance = np.random.default_rng(1)
x = chance.uniform(-1, 1, (rows, 784)).astype(np.float32)
y = chance.integers(0, 10, rows)
times = []

if peer == "torch":
    import torch

    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    layers = [torch.nn.Linear(784, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, hidden), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(hidden, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    loss = torch.nn.CrossEntropyLoss()
    for _ in range(4):
        begun = time.time()
        order = torch.randperm(rows)
        for start in range(0, rows, batch):
            taken = order[start:start + batch]
            optimizer.zero_grad()
            loss(network(inputs[taken]), labels[taken]).backward()
            optimizer.step()
        times.append(time.time() - begun)
elif peer == "sklearn":
    from sklearn.neural_network import MLPClassifier

    warnings.filterwarnings("ignore")
    network = MLPClassifier((hidden, hidden), batch_size=batch, alpha=0)
    for _ in range(4):
        begun = time.time()
        network.partial_fit(x, y, classes=np.arange(10))
        times.append(time.time() - begun)
else:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from tensorflow import keras

    layers = [keras.layers.Dense(hidden, activation="relu"), keras.layers.Dense(hidden, activation="relu")]
    network = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10, activation="softmax")])
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    for _ in range(4):
        begun = time.time()
        network.fit(x, y, batch_size=batch, epochs=1, verbose=0)
        times.append(time.time() - begun)
print(f"{case:>8} batch {batch:>3}, {peer}: best {rows / min(times):,.0f} samples/s")
