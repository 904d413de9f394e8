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
NOT_YET: dict[str, str] = {
    "any and all": "ANY and ALL compare a column with itself where both sides have one of that name",
    "changes": "DELETE and UPDATE lose conditions that fold or become joins; what a literal gave is NOT NULL for ever",
    "correlated not in": "NOT IN that is correlated is refused in the engine's words, or wrong",
    "correlation anywhere": "columns of the query around are known in the condition of the subquery only",
    "correlation two levels out": "refused in the engine's words",
    "correlation by inequality": "refused in the engine's words",
    "decimal literals": "are DOUBLE",
    "distinct on": "a column that is twice in ORDER BY makes DISTINCT ON panic",
    "endless recursion that is cut": "ORDER BY above takes the LIMIT away",
    "equal names in a result": "refused: two columns of one name",
    "far dates": "beyond 1677 to 2262 there are no nanoseconds",
    "from first": "FROM without SELECT has no columns",
    "hours added to dates": "are dropped",
    "intersect all and except all": "every copy of a row stays, or none",
    "is distinct from": "binds more weakly than AND",
    "lateral": "LIMIT in a lateral subquery is refused in the engine's words",
    "nan from arithmetic": "0.0 / 0.0 is another NaN than 'NaN', smaller than all numbers",
    "not in": "NULLs: below OR, with a constant on the left, on a cluster",
    "null-safe correlation": "refused in the engine's words",
    "null-safe joins": "an equality of WHERE becomes null-safe as well",
    "other letters for ESCAPE": "refused: only the backslash",
    "refined windows": "a named window with a frame loses its PARTITION BY",
    "row values": "only of columns and literals",
    "row values in subqueries": "refused",
    "scalar subquery by limit": "refused in the engine's words",
    "scalar subquery without rows": "a literal is NOT NULL for ever",
    "subqueries in case": "refused in the engine's words",
    "subqueries in groups": "in GROUP BY, aggregates and HAVING: refused in the engine's words",
    "subqueries in changes": "DELETE and UPDATE lose their condition",
    "subqueries in on": "EXISTS and IN there are refused in the engine's words",
    "subqueries in order by": "refused in the engine's words",
    "subqueries in the select list": "EXISTS and IN there are refused in the engine's words",
    "tablesample": "does nothing",
    "using in full join": "the key of rows without a partner on the left is NULL",
    "using in right join": "the key of rows without a partner on the left is NULL",
}

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
