"""The tables of a few dozen queries: random columns and rows, stored in files or in memory for ours, in memory for
DuckDB. Names collide between tables on purpose; only `id` is without duplicates and NULLs."""

from __future__ import annotations

import csv
import pathlib
from dataclasses import dataclass, field

from values import SPELLED, literal, maybe_null, random_value

# Name -> types that it may have. One name means much the same everywhere, so that USING and NATURAL find partners.
POOL = {
    "k": ["int", "int", "int", "bigint", "smallint"],
    "i": ["int"],
    "n": ["smallint"],
    "w": ["bigint"],
    "x": ["double"],
    "m": ["decimal"],
    "s": ["text"],
    "u": ["text"],
    "f": ["bool"],
    "d": ["date"],
    "t": ["timestamp"],
}
NESTED = {"l": ["ints"], "p": ["pair"]}
NAMES = ["a", "b", "c", "e"]
ROWS = [0, 1, 2, 3, 5, 8, 8, 8, 13, 13, 13, 20, 20, 20, 20, 30, 40]
NULLS = [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.5, 1.0]


@dataclass
class Column:
    """A column of a table or of a query."""

    name: str
    type: str
    # Whether a NULL is impossible by declaration.
    required: bool = False


@dataclass
class Table:
    """A table with its rows."""

    name: str
    columns: list[Column]
    rows: list[tuple]
    # parquet, csv, values, copied
    storage: str
    parts: int = 1
    part_rows: int = 1024

    def values(self) -> str:
        """The rows as a query. A table without rows keeps its types."""
        names = ", ".join(column.name for column in self.columns)
        if not self.rows:
            nulls = ", ".join(f"{literal(None, column.type)} AS {column.name}" for column in self.columns)
            return f"SELECT {nulls} WHERE FALSE"
        rows = (", ".join(literal(v, c.type) for v, c in zip(row, self.columns)) for row in self.rows)
        return f"SELECT * FROM (VALUES {', '.join(f'({row})' for row in rows)}) v({names})"

    def ddl_duckdb(self) -> str:
        """For DuckDB."""
        return f"CREATE OR REPLACE TABLE {self.name} AS {self.values()}"

    def ddl_ours(self, directory: pathlib.Path) -> list[str]:
        """For ours; the files are in `directory`."""
        place = directory / self.name
        if self.storage == "values":
            return [f"CREATE OR REPLACE TABLE {self.name} AS {self.values()}"]
        if self.storage == "copied":
            return [f"CREATE OR REPLACE TABLE {self.name} AS SELECT * FROM '{place}/'"]
        if self.storage == "csv":
            columns = ", ".join(f"{column.name} {SPELLED[column.type]}" for column in self.columns)
            return [
                f"CREATE OR REPLACE EXTERNAL TABLE {self.name} ({columns}) STORED AS CSV LOCATION '{place}/' "
                "OPTIONS ('format.has_header' 'true')"
            ]
        return [f"CREATE OR REPLACE EXTERNAL TABLE {self.name} STORED AS PARQUET LOCATION '{place}/'"]

    def write(self, directory: pathlib.Path) -> None:
        """Writes the files."""
        if self.storage == "values":
            return
        place = directory / self.name
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        # A table without rows is one file without rows.
        for part in range(max(self.parts, 1)):
            rows = self.rows[part :: self.parts]
            if self.storage == "csv":
                self._write_csv(place / f"part-{part}.csv", rows)
            else:
                self._write_parquet(place / f"part-{part}.parquet", rows)

    def _write_csv(self, path: pathlib.Path, rows: list[tuple]) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(column.name for column in self.columns)
            writer.writerows([cell(value) for value in row] for row in rows)

    def _write_parquet(self, path: pathlib.Path, rows: list[tuple]) -> None:
        import pyarrow
        import pyarrow.parquet

        types = {
            "smallint": pyarrow.int16(),
            "int": pyarrow.int32(),
            "bigint": pyarrow.int64(),
            "double": pyarrow.float64(),
            "decimal": pyarrow.decimal128(10, 2),
            "text": pyarrow.string(),
            "bool": pyarrow.bool_(),
            "date": pyarrow.date32(),
            "timestamp": pyarrow.timestamp("us"),
            "ints": pyarrow.list_(pyarrow.int32()),
            "pair": pyarrow.struct([("a", pyarrow.int32()), ("b", pyarrow.string())]),
        }
        fields = [pyarrow.field(c.name, types[c.type], nullable=not c.required) for c in self.columns]
        columns = [pyarrow.array([row[index] for row in rows], type=one.type) for index, one in enumerate(fields)]
        table = pyarrow.table(columns, schema=pyarrow.schema(fields))
        pyarrow.parquet.write_table(table, path, row_group_size=self.part_rows)


def cell(value) -> str:
    """A value in a CSV file; NULL is nothing."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass
class World:
    """Tables that queries are about."""

    tables: list[Table] = field(default_factory=list)

    def setup_duckdb(self) -> list[str]:
        return [table.ddl_duckdb() for table in self.tables]

    def setup_ours(self, directory: pathlib.Path) -> list[str]:
        return [statement for table in self.tables for statement in table.ddl_ours(directory)]

    def write(self, directory: pathlib.Path) -> None:
        for table in self.tables:
            table.write(directory)


def random_world(rng, has, cluster: bool) -> World:
    """`has` says which features are switched on. Plans reach a cluster for tables in files only."""
    storages = ["parquet"] * 5 + ["csv"] if cluster else ["parquet", "parquet", "csv", "values", "values", "copied"]
    return World([random_table(rng, name, rng.choice(storages), has) for name in NAMES])


def random_table(rng, name: str, storage: str, has) -> Table:
    odd, far = rng.random() < 0.3 and has("odd values"), rng.random() < 0.1 and has("far dates")
    pool = dict(POOL)
    if storage in ("parquet", "copied") and has("nested values"):
        pool |= NESTED
    names = rng.sample(sorted(pool), rng.choice([2, 3, 4, 5, 6]))
    if "k" not in names and rng.random() < 0.8:
        names[0] = "k"
    rng.shuffle(names)
    names.insert(rng.randrange(len(names) + 1), "id")
    count = rng.choice(ROWS)
    ids = rng.sample(range(1, 2 * count + 1), count)
    columns, cells = [], []
    for one in names:
        type_ = "int" if one == "id" else rng.choice(pool[one])
        nulls = 0.0 if one == "id" else rng.choice(NULLS)
        values = [maybe_null(rng, nulls, lambda: random_value(rng, type_, odd, far)) for _ in range(count)]
        if storage == "csv" and type_ == "text":
            # A CSV file does not tell an empty text from NULL.
            values = [value or None for value in values]
        required = storage in ("parquet", "copied") and None not in values and rng.random() < 0.4
        columns.append(Column(one, type_, required))
        cells.append(ids if one == "id" else values)
    rows = [tuple(column[row] for column in cells) for row in range(count)]
    return Table(name, columns, rows, storage, rng.choice([1, 1, 2, 3]), rng.choice([3, 1024]))
