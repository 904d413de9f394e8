"""Golden numbers for the optimizers and for a whole network's training: 50 steps of PyTorch, written to optimizers.json.

    python tests/golden/optimizers.py

PyTorch computes in float32 as we do. FTRL, which it does not have, is the formula of McMahan et al. (2013) in float64.
"""
import json
import math
import pathlib

import numpy as np
import torch

STEPS = 50
torch.set_num_threads(1)


def start(i):
    return math.sin(1.0 + 3.0 * i)


def push(i, t):
    """The part of the gradient that does not depend on the weight; element 3 gets none for a while."""
    return 0.0 if i == 3 and t < 20 else math.sin(0.7 * i + 0.3 * t) * (1.0 + i % 4)


N = 24
w0 = torch.tensor([start(i) for i in range(N)], dtype=torch.float32)


def run(make):
    w = w0.clone().requires_grad_(True)
    optimizer = make([w])
    trace = {}
    for t in range(STEPS):
        p = torch.tensor([push(i, t) for i in range(N)], dtype=torch.float32)
        w.grad = p + 0.5 * w.detach()
        optimizer.step()
        if t + 1 in (1, 2, 10, STEPS):
            trace[str(t + 1)] = [float(v) for v in w.detach()]
    return trace


def ftrl(rate, l1, l2, initial):
    w = w0.numpy().astype(np.float64)
    n = np.full(N, initial)
    z = -w * math.sqrt(initial) / rate
    trace = {}
    for t in range(STEPS):
        g = np.array([push(i, t) for i in range(N)]) + 0.5 * w
        sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / rate
        z += g - sigma * w
        n += g * g
        w = np.where(np.abs(z) <= l1, 0.0, -(z - np.sign(z) * l1) / (np.sqrt(n) / rate + l2))
        if t + 1 in (1, 2, 10, STEPS):
            trace[str(t + 1)] = [float(v) for v in w]
    return trace


optim = torch.optim
cases = [
    ({"kind": "sgd"}, 0.01, 0.0, 0.0, run(lambda p: optim.SGD(p, lr=0.01))),
    ({"kind": "sgd"}, 0.01, 0.0, 0.1, run(lambda p: optim.SGD(p, lr=0.01, weight_decay=0.1))),
    ({"kind": "momentum", "momentum": 0.9}, 0.01, 0.0, 0.0, run(lambda p: optim.SGD(p, lr=0.01, momentum=0.9))),
    ({"kind": "adam", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}, 0.01, 0.0, 0.0, run(lambda p: optim.Adam(p, lr=0.01))),
    ({"kind": "adam", "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}, 0.01, 0.0, 0.02,
     run(lambda p: optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.02))),
    ({"kind": "adam_w", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.1}, 0.01, 0.0, 0.0,
     run(lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1))),
    ({"kind": "adagrad", "initial": 0.0, "epsilon": 1e-10}, 0.05, 0.0, 0.0, run(lambda p: optim.Adagrad(p, lr=0.05))),
    ({"kind": "adagrad", "initial": 0.1, "epsilon": 1e-10}, 0.05, 0.0, 0.0,
     run(lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1))),
    ({"kind": "rms_prop", "decay": 0.99, "epsilon": 1e-8}, 0.01, 0.0, 0.0, run(lambda p: optim.RMSprop(p, lr=0.01))),
    ({"kind": "ftrl", "initial": 0.1}, 0.1, 0.0, 0.0, ftrl(0.1, 0.0, 0.0, 0.1)),
    ({"kind": "ftrl", "initial": 0.1}, 0.1, 0.5, 0.2, ftrl(0.1, 0.5, 0.2, 0.1)),
]

# A network 6 - 8 - 5 - 3, ReLU, softmax cross-entropy, Adam, the same 32 rows at every step.
D, H1, H2, C, ROWS = 6, 8, 5, 3, 32
x = torch.tensor([[math.sin(0.9 * r + 1.7 * c * c) for c in range(D)] for r in range(ROWS)], dtype=torch.float32)
y = torch.tensor([(r * r + r // 3) % C for r in range(ROWS)])
net = torch.nn.Sequential(torch.nn.Linear(D, H1), torch.nn.ReLU(), torch.nn.Linear(H1, H2), torch.nn.ReLU(), torch.nn.Linear(H2, C))
linears = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
with torch.no_grad():
    for k, layer in enumerate(linears):
        for tensor in (layer.weight, layer.bias):
            tensor.copy_(torch.tensor([0.6 * math.sin(1.0 + k + 2.3 * i) for i in range(tensor.numel())]).reshape(tensor.shape))


def flat():
    """Our order: weights [inputs, outputs], then bias, layer after layer."""
    return [float(v) for layer in linears for part in (layer.weight.t().reshape(-1), layer.bias) for v in part.detach()]


initial = flat()
adam = optim.Adam(net.parameters(), lr=0.01)
losses = []
for _ in range(STEPS):
    adam.zero_grad()
    loss = torch.nn.functional.cross_entropy(net(x), y)
    loss.backward()
    adam.step()
    losses.append(loss.item())
network = {"dense": D, "hidden": [H1, H2], "classes": C, "x": [float(v) for v in x.reshape(-1)], "labels": [float(v) for v in y],
           "initial": initial, "final": flat(), "losses": losses}

keys = ("optimizer", "rate", "l1", "l2", "weights")
golden = {"torch": torch.__version__.split("+")[0], "elements": N, "cases": [dict(zip(keys, case)) for case in cases], "network": network}
path = pathlib.Path(__file__).with_name("optimizers.json")
path.write_text(json.dumps(golden) + "\n")
