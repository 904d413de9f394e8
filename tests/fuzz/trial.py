"""Both engines over the same tables: runs a case in both and says how it came out."""

from __future__ import annotations

import copy
import pathlib
import re
from dataclasses import dataclass

import compare
import known
from duck import Duck
from ours import Answer, Ended, Shell, spelled

EQUAL, BOTH, OURS, THEIRS = "equal", "both refuse", "we refuse", "DuckDB refuses"
UNSURE, EXPLAINED = "DuckDB is not sure", "explained"
DIFFERENT, WORDS, ENDED, TABLE = "DIFFERENT", "the engine's words", "ended", "a table is refused"
FAILURES = (DIFFERENT, WORDS, ENDED, TABLE)


@dataclass
class Outcome:
    """How a case came out, and at which of its statements."""

    what: str
    statement: str = ""
    detail: str = ""
    ours: object = None
    theirs: object = None

    @property
    def failed(self) -> bool:
        return self.what in FAILURES

    def kind(self) -> tuple[str, str]:
        """What failures have in common."""
        words = compare.kind_of_message(self.detail) if self.what in (WORDS, OURS, TABLE) else ""
        return self.what, words

    def is_like(self, other: Outcome) -> bool:
        """Whether a smaller case fails in the same way; what DuckDB answers it must go on to answer."""
        answered = [one.theirs is not None and one.theirs.error is None for one in (self, other)]
        return self.kind() == other.kind() and answered[0] == answered[1]


class Trial:
    """A session of ours and a database of DuckDB's."""

    def __init__(self, binary: str, directory: pathlib.Path, arguments: list[str], seconds: float):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.shell = Shell(binary, directory, ["-q", *arguments], seconds)
        self.duck = Duck()
        self.world = None
        self.arranged: dict[str, object] = {}
        self.places = 0
        # Tables that ours could not make, with its message.
        self.refused: dict[str, str] = {}
        # The statements of the last run.
        self.last: list[str] = []

    def arrange(self, world) -> None:
        """Brings the tables into both engines; what is there already stays."""
        self.world = world
        for table in world.tables:
            if self.arranged.get(table.name) == table and self.shell.process is not None:
                continue
            self.duck.connection.execute(table.ddl_duckdb())
            # A place of its own each time: what was read once may be remembered.
            self.places += 1
            place = self.directory / str(self.places)
            table.write(place)
            self.refused.pop(table.name, None)
            for statement in table.ddl_ours(place):
                answer = self.shell.ask(statement)
                if answer.error:
                    self.refused[table.name] = answer.error
            self.arranged[table.name] = copy.deepcopy(table)

    def run(self, world, statements: list[str], order=()) -> Outcome:
        """Runs the statements, up to the first that does not come out equal."""
        self.last = [spelled(sql) for sql in statements]
        try:
            if self.shell.process is None:
                self.arranged.clear()
            self.arrange(world)
            for message in self.refused.values():
                return Outcome(TABLE, detail=message)
            self.forget_changed(statements)
            return self.compared(statements, list(order))
        except Ended as ended:
            self.arranged.clear()
            return Outcome(ENDED, statements[-1], str(ended))

    def forget_changed(self, statements: list[str]) -> None:
        """The table that cases change belongs to each of them alone."""
        if any(re.search(r"\bz\b", sql) for sql in statements):
            self.duck.ask("DROP TABLE IF EXISTS z")
            self.shell.ask("DROP TABLE IF EXISTS z")

    def compared(self, statements: list[str], order: list[int]) -> Outcome:
        for number, sql in enumerate(statements):
            truth = self.duck.ask(sql)
            try:
                answer = self.shell.ask(sql)
            except Ended as ended:
                return Outcome(ENDED, sql, str(ended), theirs=truth)
            last = number == len(statements) - 1
            outcome = self.judged(sql, answer, truth, order if last else [])
            if outcome.what == DIFFERENT:
                outcome.what = self.second_opinion(statements[: number + 1], answer, truth, order if last else [])
            if outcome.what != EQUAL:
                return outcome
        return Outcome(EQUAL)

    @staticmethod
    def judged(sql: str, answer: Answer, truth, order: list[int]) -> Outcome:
        if answer.error is not None:
            message = answer.error.removeprefix("error: ")
            # The excerpt of the statement may have any words.
            if compare.ENGINE_WORDS.search(message.partition("\n -->")[0]):
                return Outcome(WORDS, sql, message, answer, truth)
            return Outcome(OURS if truth.error is None else BOTH, sql, message, answer, truth)
        if truth.error is not None:
            return Outcome(THEIRS, sql, truth.error, answer, truth)
        found = compare.difference(answer, truth, order)
        if found is None:
            return Outcome(EQUAL)
        reason = known.explanation(sql, found)
        return Outcome(EXPLAINED, sql, reason) if reason else Outcome(DIFFERENT, sql, found, answer, truth)

    def second_opinion(self, statements: list[str], answer, truth, order: list[int]) -> str:
        """DuckDB asked again, with the rows of all tables turned round and without its optimizer: what it then answers
        otherwise is left to chance, or its own fault, and nothing to judge ours by."""
        other = Duck()
        other.connection.execute("PRAGMA disable_optimizer")
        for table in self.world.tables:
            turned = copy.copy(table)
            turned.rows = table.rows[::-1]
            other.connection.execute(turned.ddl_duckdb())
        for sql in statements:
            again = other.ask(sql)
        if compare.same_truth(truth, again):
            return DIFFERENT
        return EQUAL if again.rows is not None and not compare.difference(answer, again, order) else UNSURE

    def setup(self) -> list[str]:
        """The statements that make the tables, for whoever wants to see it again."""
        return [spelled(s) for table in self.world.tables for s in reproducible(table)]

    def stop(self) -> None:
        self.shell.stop()


def reproducible(table) -> list[str]:
    """The table's making without files of ours."""
    if table.storage == "values":
        return [f"CREATE TABLE {table.name} AS {table.values()}"]
    required = ", ".join(column.name for column in table.columns if column.required)
    how = f"-- {table.name}: {table.storage}, {table.parts} files{', required: ' if required else ''}{required}"
    return [f"{how}\nCREATE TABLE {table.name} AS {table.values()}"]
