"""Compares our text with DuckDB's values: the same rows as often, in the same order where there is one."""

from __future__ import annotations

import datetime
import json
import math
import re
from decimal import Decimal, InvalidOperation

# Words that no user of ours should have to read.
ENGINE_WORDS = re.compile(
    r"Internal error|LogicalPlan|please report|help us to resolve|Physical plan|PhysicalExpr|__correlated|Arrow error"
    r"|\bdatafusion/|DataFusion's code|OuterReferenceColumn|ScalarSubquery\(|InSubquery\(|Exists\(|SanityCheckPlan"
    r"|panicked|unwrap\(\)|called `|Expected concrete|LogicalExpr|Exec\b|Assertion failed|Field \{|RuntimeTracker",
    re.IGNORECASE,
)


class Unreadable(Exception):
    """Our text is no value of DuckDB's type."""


def difference(answer, truth, order: list[int]) -> str | None:
    """What is different between our answer and DuckDB's, in a line; nothing when they are the same."""
    if truth.rows is None:
        return None
    if answer.rows is None:
        return "no rows were printed"
    if len(answer.header) != len(truth.types):
        return f"{len(answer.header)} columns, DuckDB {len(truth.types)}"
    try:
        ours = [[parse(cell, kind) for cell, kind in zip(row, truth.types)] for row in answer.rows]
    except Unreadable as error:
        return str(error)
    theirs = [["" if kind == "INTERVAL" else normal(c) for c, kind in zip(row, truth.types)] for row in truth.rows]
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, DuckDB {len(theirs)}"
    if not same_rows(sorted(ours, key=sort_key), sorted(theirs, key=sort_key)):
        return "other rows"
    if order and not same_rows([[row[p] for p in order] for row in ours], [[row[p] for p in order] for row in theirs]):
        return "another order"
    return None


def same_rows(ours, theirs) -> bool:
    if all(all(map(same, one, other)) for one, other in zip(ours, theirs)):
        return True
    # Numbers that are nearly equal may sort differently: each row looks for its own.
    if len(ours) > 300 or not any(isinstance(cell, (float, Decimal)) for row in theirs for cell in row):
        return False
    left = list(theirs)
    for row in ours:
        found = next((index for index, other in enumerate(left) if all(map(same, row, other))), None)
        if found is None:
            return False
        left.pop(found)
    return True


def parse(text: str | None, kind: str):
    """Our text as a value of DuckDB's type."""
    if text is None:
        return None
    try:
        if kind == "BOOLEAN":
            return {"true": True, "false": False}[text]
        if kind in ("DOUBLE", "FLOAT"):
            return number(text)
        if kind.startswith("DECIMAL") or kind.endswith("INT") or kind in ("INTEGER", "BIGNUM"):
            return Decimal(text)
        if kind == "DATE" or kind.startswith("TIMESTAMP"):
            return moment(text)
        if kind == "INTERVAL":
            # Written in too many ways; queries compare and add them.
            return ""
        if kind.endswith("]") or kind.startswith("STRUCT"):
            return normal(json.loads(text))
    except (ValueError, KeyError, InvalidOperation):
        raise Unreadable(f"{text!r} is no {kind}") from None
    return text


def number(text: str):
    value = float(text)
    # Decimals that we round where DuckDB answers with DOUBLE: as many digits as they have are compared.
    digits = len(text.partition(".")[2])
    return Rounded(value, digits) if 4 <= digits <= 10 and "e" not in text.lower() else value


class Rounded(float):
    """A number that was perhaps rounded to some digits."""

    def __new__(cls, value: float, digits: int):
        made = super().__new__(cls, value)
        made.digits = digits
        return made


def moment(text: str):
    """A date is its midnight."""
    text = text.replace(" ", "T").removesuffix("Z").removesuffix("+00:00")
    day, _, time = text.partition("T")
    if len(day) > 10 or day.startswith("-"):
        raise Unreadable(f"{text!r} is beyond Python's years")
    time = time or "00:00:00"
    seconds, _, fraction = time.partition(".")
    seconds += ":00" * (2 - seconds.count(":"))
    return datetime.datetime.fromisoformat(f"{day}T{seconds}.{(fraction + '000000')[:6]}")


def normal(value):
    """A value of DuckDB's as it is compared."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, float)):
        return value
    if isinstance(value, (int, Decimal)):
        return Decimal(value)
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, datetime.date):
        return datetime.datetime.combine(value, datetime.time())
    if isinstance(value, (list, tuple)):
        return tuple(normal(item) for item in value)
    if isinstance(value, dict):
        return tuple(normal(item) for item in value.values())
    return str(value)


def same(one, other) -> bool:
    if isinstance(one, (float, Decimal)) and isinstance(other, (float, Decimal)):
        return same_number(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def same_number(one, other) -> bool:
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return one == other
    one_float, other_float = float(one), float(other)
    if math.isnan(one_float) or math.isnan(other_float):
        return math.isnan(one_float) and math.isnan(other_float)
    tolerance = 10.0**-one.digits if isinstance(one, Rounded) else 1e-9
    return math.isclose(one_float, other_float, rel_tol=1e-9, abs_tol=tolerance)


def sort_key(row):
    return [cell_key(cell) for cell in row]


def cell_key(cell):
    if cell is None:
        return (0, "")
    if isinstance(cell, bool):
        return (1, cell)
    if isinstance(cell, (float, Decimal)):
        value = float(cell)
        # Nearly equal numbers sort as equal; -0.0 as 0.0.
        return (3, 0.0) if math.isnan(value) else (2, float(f"{value:.7g}") + 0.0)
    if isinstance(cell, tuple):
        return (5, [cell_key(item) for item in cell])
    return (4, str(cell))


def kind_of_message(message: str) -> str:
    """A message without its nouns, for counting."""
    first = message.partition("\n")[0]
    first = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", "_", first)
    return re.sub(r"\d+", "N", first)[:110]


def same_truth(one, other) -> bool:
    """Whether two answers of DuckDB's are the same rows."""
    if one.rows is None or other.rows is None:
        return one.rows is None and other.rows is None
    sides = [sorted(([normal(cell) for cell in row] for row in side.rows), key=sort_key) for side in (one, other)]
    return len(one.rows) == len(other.rows) and same_rows(*sides)
