"""What is printed: each failure with its statements and both answers, and at the end how often what came out."""

from __future__ import annotations

import collections
import time

import compare
from trial import BOTH, EQUAL, OURS, THEIRS


class Report:
    """Counts outcomes and shows failures: `most` of them, `each` of one kind."""

    def __init__(self, seed: str, most: int, each: int):
        self.seed, self.most, self.each, self.begun = seed, most, each, time.monotonic()
        self.failures = 0
        self.shown: collections.Counter = collections.Counter()
        self.outcomes = collections.Counter()
        self.kinds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.messages: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.examples: dict[tuple[str, str], str] = {}

    def is_new(self, case, outcome) -> bool:
        """Whether a failure is to be shrunk and shown: not when many of its kind were."""
        what, words = outcome.kind()
        kind = (what, words or case.kind)
        self.shown[kind] += 1
        self.failures += 1
        return self.shown[kind] <= self.each and sum(min(n, self.each) for n in self.shown.values()) <= self.most

    def count(self, place: str, case, outcome) -> None:
        self.outcomes[place, outcome.what] += 1
        self.kinds[case.kind][outcome.what] += 1
        if outcome.what in (OURS, BOTH, THEIRS):
            message = compare.kind_of_message(outcome.detail)
            self.messages[outcome.what][message] += 1
            known = self.examples.get((outcome.what, message))
            if known is None or len(outcome.statement) < len(known):
                self.examples[outcome.what, message] = outcome.statement

    def failure(self, place: str, number: int, case, outcome, trial) -> None:
        print(f"\n=== {outcome.what}: {outcome.detail}")
        print(f"    {place}, kind `{case.kind}`, --seed {self.seed} --case {number}")
        for statement in [*trial.setup(), *trial_statements(trial, outcome)]:
            print(f"{statement};")
        print(f"--- ours:   {shown(outcome.ours)}")
        print(f"--- DuckDB: {shown(outcome.theirs)}", flush=True)

    def summary(self) -> None:
        print(f"\nseed {self.seed}, {time.monotonic() - self.begun:.0f} s")
        for (place, what), count in sorted(self.outcomes.items()):
            print(f"  {place:8} {what:20} {count}")
        for what in (OURS, BOTH, THEIRS):
            for message, count in self.messages[what].most_common(30 if what == OURS else 8):
                print(f"  {what}, {count} times: {message}")
                if what == OURS:
                    print(f"      such as {self.examples[what, message][:400]}")
        poor = {name: counts[EQUAL] / counts.total() for name, counts in self.kinds.items() if counts.total() > 3}
        for name, share in sorted(poor.items(), key=lambda item: item[1]):
            if share < 0.7:
                print(f"  of kind `{name}` {share:.0%} are compared")
        for (what, words), count in self.shown.most_common():
            print(f"  FAILED {count} times: {what}, {words}")
        print(f"{self.outcomes.total()} cases, {self.failures} failures", flush=True)


def trial_statements(trial, outcome) -> list[str]:
    return trial.last or [outcome.statement]


def shown(answer) -> str:
    """An answer in some lines."""
    if answer is None:
        return "nothing"
    if answer.error:
        return answer.error.partition("\n -->")[0][:600]
    rows = answer.rows or []
    return f"{len(rows)} rows {[tuple(row) for row in rows[:12]]}"
