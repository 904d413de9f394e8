"""Random statements against DuckDB: `python tests/fuzz --binary target/debug/gristmill -n 1000`. See README.md."""

from __future__ import annotations

import argparse
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import known
from kinds import KINDS, random_case
from report import Report
from shrink import Shrinker
from trial import TABLE, Trial
from world import random_world

# Queries over the same tables.
WORLD = 25


def arguments():
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--binary", required=True, help="the gristmill to try")
    parser.add_argument("-n", type=int, default=300, help="cases in one process")
    parser.add_argument("--cluster", type=int, default=0, help="cases on a cluster of two executors")
    parser.add_argument("--address", help="of a cluster that is there already")
    parser.add_argument("--seed", default="1", help="what the cases follow from")
    parser.add_argument("--only", choices=list(KINDS), help="one kind of statement")
    parser.add_argument("--case", type=int, help="only the case of this number")
    parser.add_argument("--everything", action="store_true", help="also what known.py switches off")
    parser.add_argument("--with", dest="extra", action="append", default=[], help="one feature of these")
    parser.add_argument("--shrink", type=float, default=40, help="seconds for making a failing case small")
    parser.add_argument("--failures", type=int, default=25, help="show so many at most")
    parser.add_argument("--each", type=int, default=2, help="show so many of one kind at most")
    parser.add_argument("--set", action="append", default=[], help="an option of every session, as gristmill --set")
    parser.add_argument("--timeout", type=float, default=60, help="seconds after which a statement hangs")
    return parser.parse_args()


class Cluster:
    """`gristmill cluster start` with two executors."""

    def __init__(self, binary: str, directory: pathlib.Path):
        command = [binary, "cluster", "start", "--executors", "2", "--cores", "1", "--bind", "127.0.0.1:0"]
        command += ["--state-dir", str(directory / "state"), "--work-dir", str(directory)]
        self.log = (directory / "cluster.log").open("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self.log, cwd=directory)
        self.address = self.ready(directory / "cluster.log")

    def ready(self, log: pathlib.Path) -> str:
        begun = time.monotonic()
        while time.monotonic() - begun < 120 and self.process.poll() is None:
            for line in log.read_text(errors="replace").splitlines():
                if "--cluster " in line:
                    return line.partition("--cluster ")[2].split()[0]
            time.sleep(0.1)
        sys.exit(f"the cluster did not start:\n{log.read_text(errors='replace')}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


def run(options, count: int, report: Report, place: str, session: list[str], directory: pathlib.Path) -> None:
    """Runs the cases of one place, from number 0."""
    has = known.has(options.everything, options.extra)
    for option in options.set:
        session += ["--set", option]
    trial = Trial(options.binary, directory, session, options.timeout)
    try:
        for number in range(count) if options.case is None else [options.case]:
            seed = f"{place}:{options.seed}:{number // WORLD}"
            world = random_world(random.Random(seed), has, place == "cluster")
            case = random_case(random.Random(f"{seed}:{number}"), world, has, options.only)
            outcome = trial.run(world, case.statements, case.order)
            report.count(place, case, outcome)
            if outcome.failed and report.is_new(case, outcome):
                shrunk = shrink(trial, world, case, outcome, options.shrink)
                again = trial.run(*shrunk, case.order if outcome.detail == "another order" else ())
                report.failure(place, number, case, again if again.failed else outcome, trial)
    finally:
        trial.stop()


def shrink(trial: Trial, world, case, outcome, seconds: float):
    order = case.order if outcome.detail == "another order" else []

    def fails(some_world, statements):
        return trial.run(some_world, statements, order).is_like(outcome)

    if outcome.what == TABLE:
        return world, case.statements
    return Shrinker(fails, seconds).shrink(world, case.statements)


def both(options, report: Report) -> None:
    """In one process, then on a cluster."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
        directory = pathlib.Path(made)
        if options.n:
            run(options, options.n, report, "local", ["-j", "2"], directory / "local")
        if options.cluster:
            cluster = None if options.address else Cluster(options.binary, directory)
            address = options.address or cluster.address
            try:
                run(options, options.cluster, report, "cluster", ["--cluster", address], directory / "cluster")
            finally:
                if cluster:
                    cluster.stop()


def main() -> int:
    options = arguments()
    options.binary = str(pathlib.Path(options.binary).resolve())
    report = Report(options.seed, options.failures, options.each)
    try:
        both(options, report)
    except KeyboardInterrupt:
        print("\nasked to end")
    report.summary()
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
