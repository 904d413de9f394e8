"""Makes a failing case small while it still fails in the same way: first its statements, then the text of each by its
brackets, clauses, items and operands, then the rows and columns of the tables."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator

TOKEN = re.compile(r"'(?:[^']|'')*'|[A-Za-z_][A-Za-z_0-9.]*|\d+(?:\.\d+)?|<>|<=|>=|\|\||//|\S")
CLAUSES = {
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "WINDOW",
    "WITH",
    "PARTITION",
    "ROWS",
    "RANGE",
    "GROUPS",
    "FILTER",
    "IGNORE",
    "ELSE",
    "ESCAPE",
    "NULLS",
}
JOINS = {"JOIN", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL", ","}
ENDS = (
    CLAUSES | JOINS | {"UNION", "INTERSECT", "EXCEPT", "WHEN", "THEN", "END", "AND", "OR", "FROM", "ON", "ASC", "DESC"}
)
SIMPLE = ["NULL", "1", "TRUE", "'a'"]


def tokens(sql: str) -> list[str]:
    return TOKEN.findall(sql)


def text(parts: list[str]) -> str:
    sql = " ".join(parts)
    return re.sub(r"\( ", "(", re.sub(r" ([),])", r"\1", re.sub(r"\b([a-z_]+) \(", r"\1(", sql)))


def closing(parts: list[str], at: int) -> int:
    """Where the bracket at `at` is closed."""
    pairs, depth = {"(": ")", "[": "]", "{": "}"}, 0
    for index in range(at, len(parts)):
        depth += (parts[index] in pairs) - (parts[index] in pairs.values())
        if depth == 0:
            return index
    return at


def cuts(parts: list[str]) -> Iterator[list[str]]:
    """Smaller texts, the largest cuts first. Many are no SQL, which both engines say."""
    candidates = []
    for at, token in enumerate(parts):
        word = token.upper()
        if token in "([":
            end = closing(parts, at)
            if end > at + 1:
                # What is in the brackets alone, the brackets gone, or something simple in their place.
                inside = parts[at + 1 : end]
                if inside[0].upper() in ("SELECT", "WITH"):
                    candidates.append(inside)
                candidates.append(parts[:at] + inside + parts[end + 1 :])
                start = at - 1 if at and re.fullmatch(r"[a-z_]\w*", parts[at - 1]) else at
                candidates += [parts[:start] + [simple] + parts[end + 1 :] for simple in SIMPLE]
                candidates += [parts[:start] + inside + parts[end + 1 :]]
        if word == "CASE":
            end = next((i for i in range(at, len(parts)) if parts[i].upper() == "END"), at)
            candidates += [parts[:at] + [simple] + parts[end + 1 :] for simple in SIMPLE]
        if word in CLAUSES | JOINS or word in ("WHEN", "UNION", "INTERSECT", "EXCEPT"):
            candidates += [parts[:at] + parts[end:] for end in stops(parts, at + 1)]
        if word in ("AND", "OR", "UNION", "INTERSECT", "EXCEPT", "||", "+", "-", "*"):
            for end in stops(parts, at + 1):
                candidates.append(parts[:at] + parts[end:])
            begin = begin_of(parts, at)
            candidates.append(parts[:begin] + parts[at + 1 :])
        if word in ("NOT", "DISTINCT", "ALL", "ASC", "DESC", "AS", "-", "IS"):
            candidates.append(parts[:at] + parts[at + 1 :])
        if token == ",":
            begin = begin_of(parts, at)
            candidates.append(parts[:begin] + parts[at + 1 :])
    yield from sorted((one for one in candidates if len(one) < len(parts)), key=len)


def stops(parts: list[str], at: int) -> list[int]:
    """Ends at which something that begins before `at` may end, on its level of brackets."""
    ends, index = [], at
    while index < len(parts) and parts[index] not in ")]}":
        if index > at and parts[index].upper() in ENDS:
            ends.append(index)
        index = closing(parts, index) + 1 if parts[index] in "([{" else index + 1
    ends.append(index)
    return ends[:1] + ends[-3:] + ends[1:4]


def begin_of(parts: list[str], at: int) -> int:
    """Where the item or operand before `at` begins."""
    depth = 0
    for index in range(at - 1, -1, -1):
        depth += (parts[index] in ")]}") - (parts[index] in "([{")
        if depth < 0 or (
            depth == 0 and (parts[index] == "," or parts[index].upper() in ENDS | {"SELECT", "BY", "DISTINCT"})
        ):
            return index + 1
    return 0


class Shrinker:
    """`fails(world, statements)` tells whether the case still fails."""

    def __init__(self, fails: Callable, seconds: float):
        self.fails, self.until = fails, time.monotonic() + seconds

    def over(self) -> bool:
        return time.monotonic() > self.until

    def shrink(self, world, statements: list[str]):
        statements = self.fewer(statements, lambda some: self.fails(world, some))
        for index in range(len(statements)):
            statements = self.shorter(world, statements, index)
        world = copy.deepcopy(world)
        used = [table for table in world.tables if re.search(rf"\b{table.name}\b", " ".join(statements))]
        if self.holds(world, statements, used):
            world.tables = used
        for table in world.tables:
            self.smaller(world, table, statements)
        return world, statements

    def holds(self, world, statements, tables) -> bool:
        trial = copy.copy(world)
        trial.tables = tables
        return not self.over() and self.fails(trial, statements)

    def fewer(self, items: list, holds: Callable[[list], bool]) -> list:
        """Leaves out runs of items, from half of them down to one."""
        size = max(len(items) // 2, 1)
        while size and not self.over():
            at, changed = 0, False
            while at < len(items) and not self.over():
                some = items[:at] + items[at + size :]
                if len(items) > 1 and holds(some):
                    items, changed = some, True
                else:
                    at += size
            size = size if changed and size == 1 else size // 2
        return items

    def shorter(self, world, statements: list[str], index: int) -> list[str]:
        parts, seen = tokens(statements[index]), set()
        progress = True
        while progress and not self.over():
            progress = False
            for candidate in cuts(parts):
                sql = text(candidate)
                if self.over() or sql in seen:
                    continue
                seen.add(sql)
                trial = [*statements[:index], sql, *statements[index + 1 :]]
                if self.fails(world, trial):
                    statements, parts, progress = trial, candidate, True
                    break
        return statements

    def smaller(self, world, table, statements) -> None:
        def holds_rows(rows):
            kept, table.rows = table.rows, rows
            if self.fails(world, statements):
                return True
            table.rows = kept
            return False

        if not holds_rows([]):
            table.rows = self.fewer(table.rows, holds_rows)
        for storage, parts in (("values", 1), (table.storage, 1)):
            kept = table.storage, table.parts
            table.storage, table.parts = storage, parts
            if not self.over() and self.fails(world, statements):
                break
            table.storage, table.parts = kept
        self.fewer_columns(world, table, statements)

    def fewer_columns(self, world, table, statements) -> None:
        for column in list(table.columns):
            if self.over() or re.search(rf"\b{column.name}\b", " ".join(statements)) or len(table.columns) == 1:
                continue
            kept, at = (table.columns, table.rows), table.columns.index(column)
            table.columns = table.columns[:at] + table.columns[at + 1 :]
            table.rows = [row[:at] + row[at + 1 :] for row in table.rows]
            if not self.fails(world, statements):
                table.columns, table.rows = kept
