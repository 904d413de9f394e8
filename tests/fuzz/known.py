"""What differs from DuckDB and is no fault.

`DEFINED_DIFFERENTLY` is what the generator never writes, or the comparison allows: both engines are right in their own
way. `NOT_YET` switches off features whose kinds are still answered wrongly: each has its reason, and the list is to become
empty."""

from __future__ import annotations

import re

DEFINED_DIFFERENTLY = {
    "whole-number division": "`/` of whole numbers is whole for us, as for PostgreSQL; the generator writes "
    "DuckDB's `//`, which is `/` in ours",
    "division by zero": "an error for us, NULL or an error for DuckDB: whole divisors are written as nullif(x, 0)",
    "order of NULLs": "DuckDB is told to sort them as PostgreSQL does",
    "type of sums": "sum of BIGINT is BIGINT for us and HUGEINT for DuckDB: values are compared, not types",
    "columns of NATURAL JOIN": "the common ones come first for us, as the standard says: no `*` over NATURAL and USING",
    "DATE and TIMESTAMP": "a date is compared as its midnight: date_trunc and interval arithmetic give either",
    "casts of DOUBLE to text": "digits are written differently",
    "casts of DOUBLE to whole numbers": "DuckDB rounds half to even",
    "avg of decimals": "DECIMAL for us, DOUBLE for DuckDB: as many digits as ours has are compared",
    "empty texts in CSV": "DuckDB and we disagree on which of them is NULL: CSV files have none",
    "position in an empty list": "array_length([]) is NULL or 0",
    "negative zero": "-0.0 and 0.0 are compared as equal",
    "rows in order": "(1, 2) < (NULL, 3) is NULL for us, as the standard says; DuckDB takes NULL for the greatest value: "
    "row values are compared by = and <> and without NULLs",
    "years after 9999": "Python has none",
}

# Feature -> why it is off.
NOT_YET: dict[str, str] = {}

# A difference that is explained: (what the SQL must match, what the difference must match, why).
EXPLAINED: list[tuple[re.Pattern, re.Pattern, str]] = [
    (re.compile(""), re.compile("beyond Python's years"), "Python has no years after 9999"),
]


def has(everything: bool, extra: list[str]):
    """Says which features the generator may use: those of `extra` whatever `NOT_YET` says."""
    unknown = [feature for feature in extra if feature not in NOT_YET]
    if unknown:
        raise SystemExit(f"{unknown} are not switched off; those are {', '.join(sorted(NOT_YET))}")
    return lambda feature: everything or feature in extra or feature not in NOT_YET


def explanation(sql: str, difference: str) -> str | None:
    """Why a difference is none."""
    for query, found, reason in EXPLAINED:
        if query.search(sql) and found.search(difference):
            return reason
    return None
