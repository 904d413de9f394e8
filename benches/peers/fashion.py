"""The founding document's network in a peer: 784-64-64-10, ReLU, Adam, batch 32, on Fashion-MNIST as our converter wrote it.

usage: fashion.py sklearn|torch DATA [EPOCHS]
DATA holds train.parquet and test.parquet (cargo run --release --example fashion_mnist_convert). Prints samples per second
of the training loop alone, and the test accuracy.
"""
import sys
import time
import warnings

import numpy as np
import pyarrow.parquet as pq

peer, data = sys.argv[1], sys.argv[2]
epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 10


def load(name):
    table = pq.read_table(f"{data}/{name}.parquet")
    pixels = table["pixels"].combine_chunks().values.to_numpy(zero_copy_only=False).reshape(table.num_rows, 784)
    return pixels, table["label"].to_numpy()


def report(seconds, accuracy):
    print(f"{peer} {len(x) * epochs / seconds:,.0f} samples/s, {seconds:.2f} s, test accuracy {accuracy:.4f}")


x, y = load("train")
x_test, y_test = load("test")
if peer == "sklearn":
    from sklearn.neural_network import MLPClassifier

    warnings.filterwarnings("ignore")
    network = MLPClassifier((64, 64), batch_size=32, max_iter=epochs, n_iter_no_change=1000, alpha=0)
    begun = time.time()
    network.fit(x, y)
    report(time.time() - begun, network.score(x_test, y_test))
else:
    import torch

    inputs, labels = torch.from_numpy(x.copy()), torch.from_numpy(y.copy())
    network = torch.nn.Sequential(
        torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    loss = torch.nn.CrossEntropyLoss()
    begun = time.time()
    for _ in range(epochs):
        order = torch.randperm(len(inputs))
        for start in range(0, len(inputs), 32):
            batch = order[start:start + 32]
            optimizer.zero_grad()
            loss(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    seconds = time.time() - begun
    with torch.no_grad():
        accuracy = (network(torch.from_numpy(x_test.copy())).argmax(1).numpy() == y_test).mean()
    report(seconds, accuracy)
