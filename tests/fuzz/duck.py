"""DuckDB, with its settings where they make it define things as we do."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

SETTINGS = [
    # NULLs as PostgreSQL sorts them: greater than all values.
    "SET default_null_order = 'nulls_last_on_asc_first_on_desc'",
    "SET order_by_non_integer_literal = true",
    "SET threads = 1",
    "SET TimeZone = 'UTC'",
]


@dataclass
class Truth:
    """What came of a statement: rows of Python values with the names of their types, or a message."""

    types: list[str] | None = None
    rows: list[tuple] | None = None
    error: str | None = None


class Duck:
    """One database in memory."""

    def __init__(self):
        self.connection = duckdb.connect()
        for setting in SETTINGS:
            self.connection.execute(setting)

    def ask(self, sql: str) -> Truth:
        try:
            result = self.connection.execute(sql)
            if not sql.lstrip(" (").upper().startswith(("SELECT", "WITH", "FROM")):
                return Truth()
            types = [str(column[1]) for column in result.description]
            return Truth(types=types, rows=result.fetchall())
        except (duckdb.Error, RuntimeError) as error:
            if "interrupted" in str(error):
                raise KeyboardInterrupt from error
            return Truth(error=str(error))
        except (ValueError, OverflowError) as error:
            # A value that Python has no room for.
            return Truth(error=f"cannot be read: {error}")
