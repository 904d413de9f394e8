#!/usr/bin/env python3
"""Fits a cost model to measured exchanges of a gang and draws it: scaling.py MEASURED SCALING.svg [median|least]

On a machine with other work the least time of a step is the one to compare; otherwise it is the median. MEASURED holds what `cargo bench --bench reduce` and `cargo bench --bench train_step -- 1` print. Needs numpy and
matplotlib. A step of W workers with B bytes of gradients has two exchanges, in each of which a worker's one thread sends
W-1 messages of B/W bytes and receives as many:

    compute(W, B) = k (2 a (W-1) + 2 c(B) (W-1)/W)     a: of a message
    c(B)          = c min(B, x) + d max(0, B - x)       c: of a byte with its copies and its addition as long as vectors of
                                                        x bytes fit into the cache, d: of one that does not
    wire(W, B)    = 2 B (W-1)/W / r                     r: what a link carries each way, while the thread copies
    t(W, B)       = 2 l + max(compute, wire)            l: of an exchange, whatever it carries: to be woken up

k is how many workers share a core, 1 when each has one of its own. l, a, c, d and x are fitted to networks without a limit,
r to those with one, by least squares of the relative errors.
"""

import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "scaling"})
import matplotlib.pyplot as plt
import numpy as np

WORKERS = 2 ** np.arange(1, 11)
SIZES = {400_000: ("0.4 MB", "#1b9e77"), 40_000_000: ("40 MB", "#d95f02"), 440_000_000: ("440 MB", "#7570b3")}
UNLIMITED = ("loopback", "hosts")
# Parameters of the bench's networks that have dense inputs alone.
NETWORKS = {"founding": 55_050, "large": 1_863_690}
ROWS = 512  # a worker and step, in the panel of speedups


def read(path, which):
    """(cores, build), {network: rows of (workers, bytes, seconds)}, {network of layers: samples/s of one worker}."""
    machine, exchanges, samples = None, {}, {}
    for line in open(path):
        words = line.split()
        if words[:1] == ["machine"]:
            machine = (int(words[1]), words[2])
        elif words[:1] == ["reduce"]:
            exchanges.setdefault(words[1], []).append([float(word) for word in (*words[2:4], words[4 if which == "median" else 5])])
        elif "samples/s" in line and words[0] in NETWORKS and words[3] == "1":
            samples[words[0]] = float(words[words.index("best") + 1])
    return machine, {name: np.array(rows) for name, rows in exchanges.items()}, samples


def bits_per_second(rate):
    units = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
    return float(rate[:-4]) * units[rate[-4:]]


def compute(constants, workers, size, cores):
    _, a, c, d, x = constants
    k = np.maximum(1.0, workers / cores)
    copied = c * np.minimum(size, x) + d * np.maximum(size - x, 0)
    return k * (2 * a * (workers - 1) + 2 * copied * (workers - 1) / workers)


def wire(rate, workers, size):
    return 2 * size * (workers - 1) / workers / rate


def step(constants, workers, size, cores, rate=np.inf):
    return 2 * constants[0] + np.maximum(compute(constants, workers, size, cores), wire(rate, workers, size))


def fit_constants(rows, cores):
    """(l, a, c, d, x). For a given x they are linear; x is the best of some."""
    fits = [fit_linear(rows, cores, x) for x in 2.0 ** np.arange(18, 25)]
    return min(fits, key=lambda constants: squares(rows, step(constants, rows[:, 0], rows[:, 1], cores)))


def fit_linear(rows, cores, x):
    """A constant that would be negative is nothing."""
    workers, size, seconds = rows.T
    units = np.concatenate([np.eye(4), np.full((4, 1), x)], axis=1)
    columns = np.stack([step(unit, workers, size, cores) for unit in units], axis=1) / seconds[:, None]
    used = [0, 1, 2, 3]
    while True:
        found = np.linalg.lstsq(columns[:, used], np.ones(len(seconds)), rcond=None)[0]
        if (found >= 0).all():
            break
        used.pop(int(found.argmin()))
    constants = np.zeros(5)
    constants[used] = found
    constants[4] = x
    return constants


def squares(rows, predicted):
    return np.sum((predicted / rows[:, 2] - 1) ** 2)


def fit_rate(rows, constants, cores, nominal):
    """r in bytes a second: the best of a fine grid, there is no formula for it under a maximum."""
    workers, size, _ = rows.T
    grid = nominal / 8 * np.linspace(0.5, 1.1, 1201)
    errors = [squares(rows, step(constants, workers, size, cores, rate)) for rate in grid]
    return grid[int(np.argmin(errors))]


def errors(rows, predicted):
    relative = np.abs(predicted / rows[:, 2] - 1)
    return f"error median {100 * np.median(relative):.0f} %, largest {100 * relative.max():.0f} % of {len(rows)}"


def seconds_of_row(samples):
    """Of one row and parameter on one core, for small and for large networks."""
    return {name: 1 / (rate * NETWORKS[name]) for name, rate in samples.items()}


def draw_exchange(axes, title, rows, cores, constants, rate=np.inf):
    """Points that were measured, the fit through them, and its continuation. On a network whose links are the limit every
    worker goes on with a core of its own; on loopback all have what they had."""
    for size, (name, colour) in SIZES.items():
        points = rows[rows[:, 1] == size]
        axes.plot(points[:, 0], points[:, 2] * 1e3, "o", color=colour, ms=5)
        reached = points[:, 0].max() if len(points) else 0
        inside, beyond = WORKERS[WORKERS <= reached], WORKERS[WORKERS >= max(reached, 2)]
        axes.plot(inside, 1e3 * step(constants, inside, size, cores, rate), "-", color=colour, lw=1.5)
        later = 1e3 * step(constants, beyond, size, cores if np.isinf(rate) else beyond, rate)
        axes.plot(beyond, later, "--", color=colour, lw=1.2, label=name)
    axes.axvspan(rows[:, 0].max() * 1.2, WORKERS[-1] * 1.1, color="0.94", zorder=0)
    axes.set(xscale="log", yscale="log", ylabel="ms of a step's two exchanges")
    finish(axes, title)


def draw_speedup(axes, title, constants, rate, row_seconds):
    for size, (_, colour) in SIZES.items():
        work = ROWS * row_seconds["founding" if size < 1_000_000 else "large"] * size / 4
        speedup = WORKERS * work / (work + step(constants, WORKERS, size, WORKERS, rate))
        axes.plot(WORKERS, speedup, "--", color=colour, lw=1.2)
    axes.plot(WORKERS, WORKERS, ":", color="0.5", lw=1)
    axes.axvspan(1.8, WORKERS[-1] * 1.1, color="0.94", zorder=0)
    axes.set(xscale="log", yscale="log", ylabel="times the rows a second of one worker")
    finish(axes, title)


def finish(axes, title):
    axes.set_xlabel("workers")
    ticks = WORKERS[::3]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(1.8, WORKERS[-1] * 1.1)
    axes.set_title(title, fontsize=9)
    axes.text(0.97, 0.03, "model", transform=axes.transAxes, ha="right", fontsize=9, color="0.4", style="italic")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="0.85", lw=0.5)
    axes.tick_params(labelsize=8)


def main(measured, target, which="median"):
    (cores, build), exchanges, samples = read(measured, which)
    print(f"{cores} cores, {build} build, {which} of each")
    constants, rates = {}, {}
    for network in UNLIMITED:
        if network in exchanges:
            rows = exchanges[network]
            constants[network] = fit_constants(rows, cores)
            l, a, c, d, x = constants[network]
            print(f"{network}: l {l * 1e6:.0f} us, a {a * 1e6:.1f} us, c {c * 1e9:.2f} ns, d {d * 1e9:.2f} ns beyond {x * 1e-6:.1f} MB; "
                  + errors(rows, step(constants[network], rows[:, 0], rows[:, 1], cores)))
    for network in sorted(set(exchanges) - set(UNLIMITED), key=bits_per_second, reverse=True):
        rows, nominal = exchanges[network], bits_per_second(network)
        rates[network] = fit_rate(rows, constants["hosts"], cores, nominal)
        print(f"{network}: r {rates[network] * 1e-6:.1f} MB/s, {800 * rates[network] / nominal:.0f} % of the rate; "
              + errors(rows, step(constants["hosts"], rows[:, 0], rows[:, 1], cores, rates[network])))
    row_seconds = seconds_of_row(samples)
    for name, seconds in row_seconds.items():
        for network, rate in rates.items():
            # As many rows as are computed while a step's bytes, 8 a parameter, are on the wire.
            print(f"{name}: {seconds * 1e12:.0f} ps a row and parameter; at {network} a step computes as long as it "
                  f"exchanges with {8 / rate / seconds:.0f} rows a worker")

    limited = next(iter(rates), None)
    panels = [("loopback", f"Loopback, all workers on {cores} cores")]
    panels += [(limited, f"Links of {limited}: on {cores} cores, then a core each")] if limited else []
    figure, all_axes = plt.subplots(1, len(panels) + bool(limited and row_seconds), figsize=(13, 4.2))
    all_axes = np.atleast_1d(all_axes)
    for axes, (network, title) in zip(all_axes, panels):
        known = constants.get(network, constants.get("hosts"))
        draw_exchange(axes, title, exchanges[network], cores, known, rates.get(network, np.inf))
    if limited and row_seconds:
        title = f"A link of {limited}, a core and {ROWS} rows for each"
        draw_speedup(all_axes[-1], title, constants["hosts"], rates[limited], row_seconds)
    all_axes[0].legend(title="gradients", fontsize=8, title_fontsize=8, frameon=False)
    figure.text(0.5, 0.005, f"points: measured, {which} of each, {build} build; lines: fitted to them; dashed on grey: model", ha="center", fontsize=8)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
