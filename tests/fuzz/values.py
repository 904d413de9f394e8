"""Types and their random values: few different ones, so that keys meet, and odd ones (NULL, NaN, -0.0, '')."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal

# The name by which the generator knows a type -> how both engines spell it.
SPELLED = {
    "smallint": "SMALLINT",
    "int": "INT",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "decimal": "DECIMAL(10, 2)",
    "text": "VARCHAR",
    "bool": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "ints": "INT[]",
    "pair": "STRUCT(a INT, b VARCHAR)",
}

WHOLE = ("smallint", "int", "bigint")
LARGEST = {"smallint": 2**15 - 1, "int": 2**31 - 1, "bigint": 2**63 - 1}

# Sums of these are exact in every order: whole quarters.
DOUBLES = [0.0, 1.0, -1.0, 0.25, 2.5, -3.75, 7.0, 100.5, -20.25]
ODD_DOUBLES = [math.nan, math.inf, -math.inf, -0.0]
TEXTS = ["", "a", "A", "b", "B", "ab", "aB", "zz", "Äb", "日本", "it's", " a ", "a%b", "a_b", "10", "9", "x,y", 'q"q']
DATES = ["1970-01-01", "1999-12-31", "2000-02-29", "2020-01-01", "2020-01-31", "2024-02-29", "2024-03-31", "2024-12-30"]
FAR_DATES = ["0001-01-01", "1582-10-15", "1677-09-20", "2262-04-12", "9999-12-31"]
TIMES = ["00:00:00", "00:00:01", "12:30:00", "23:59:59", "06:00:00.250000"]


def kin(type_: str) -> str:
    """The family of a type: what may be compared and set together without a cast."""
    return "int" if type_ in WHOLE else type_


def random_value(rng, type_: str, odd: bool, far: bool):
    """A value that is not NULL, as Python has it."""
    if type_ in WHOLE:
        if odd and rng.random() < 0.03:
            return rng.choice([LARGEST[type_], -LARGEST[type_] - 1, LARGEST[type_] - 1])
        return rng.choice([0, 1, 1, 2, 2, 3, 4, 5, 7, 10, -1, -2, 100])
    if type_ == "double":
        return rng.choice(ODD_DOUBLES if odd and rng.random() < 0.15 else DOUBLES)
    if type_ == "decimal":
        return Decimal(rng.choice([0, 100, 125, 250, -50, 999, 1075, -2000, 12345])) / 100
    if type_ == "text":
        return rng.choice(TEXTS)
    if type_ == "bool":
        return rng.random() < 0.5
    if type_ == "date":
        return datetime.date.fromisoformat(rng.choice(FAR_DATES if far and rng.random() < 0.15 else DATES))
    if type_ == "timestamp":
        day = rng.choice(FAR_DATES if far and rng.random() < 0.15 else DATES)
        return datetime.datetime.fromisoformat(f"{day}T{rng.choice(TIMES)}")
    if type_ == "ints":
        return [maybe_null(rng, 0.2, lambda: rng.choice([0, 1, 2, 3])) for _ in range(rng.choice([0, 1, 2, 3]))]
    if type_ == "pair":
        return {
            "a": maybe_null(rng, 0.2, lambda: rng.choice([1, 2])),
            "b": maybe_null(rng, 0.2, lambda: rng.choice("xy")),
        }
    raise ValueError(type_)


def maybe_null(rng, share: float, make):
    """NULL with this probability."""
    return None if rng.random() < share else make()


def bare_literal(value, type_: str) -> str:
    """The value as one writes it in a query."""
    if value is None:
        return "NULL"
    if type_ == "double":
        return repr(value) if math.isfinite(value) and math.copysign(1, value) > 0 else literal(value, type_)
    if kin(type_) == "int" or type_ in ("decimal", "bool"):
        return str(value).upper() if type_ == "bool" else str(value)
    if type_ == "text":
        return "'" + value.replace("'", "''") + "'"
    if type_ == "date":
        return f"DATE '{value.isoformat()}'"
    if type_ == "timestamp":
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    return literal(value, type_)


def literal(value, type_: str) -> str:
    """The value with exactly this type."""
    spelled = SPELLED[type_]
    if value is None:
        return f"CAST(NULL AS {spelled})"
    if type_ == "double":
        return f"CAST('{value!r}' AS DOUBLE)"
    if type_ == "decimal":
        return f"CAST('{value}' AS {spelled})"
    if type_ == "ints":
        return f"CAST([{', '.join('NULL' if item is None else str(item) for item in value)}] AS INT[])"
    if type_ == "pair":
        text = "NULL" if value["b"] is None else f"'{value['b']}'"
        return f"CAST({{'a': {'NULL' if value['a'] is None else value['a']}, 'b': {text}}} AS {spelled})"
    if kin(type_) == "int":
        return f"CAST({value} AS {spelled})"
    return bare_literal(value, type_)
