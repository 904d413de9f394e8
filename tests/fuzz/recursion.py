"""WITH RECURSIVE, and what unfolds lists: shapes of their own, with random parts."""

from __future__ import annotations

from scope import Query
from world import Column


class Recursions:
    """A mixin of the grammar."""

    def recursion(self) -> Query:
        return self.pick([self.counted, self.followed, self.cut_off])()

    def counted(self) -> Query:
        """Numbers up to a bound, joined with a table."""
        table, last = self.pick(self.world.tables).name, self.pick([0, 1, 5, 10])
        step = self.pick(["n + 1", "n + 2", "n * 2"])
        recursive = f"WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT {step} FROM r WHERE n < {last})"
        joined = self.pick([" FROM r", f" FROM r JOIN {table} ON r.n = {table}.id", f" FROM r, {table}"])
        item = self.pick(["r.n", "count(*)", "sum(r.n)", "max(r.n)"])
        return Query(f"{recursive} SELECT {item} AS v{joined} ORDER BY 1", [Column("v", "int")], None, [0])

    def followed(self) -> Query:
        """Edges of a table followed to the end; UNION ends at circles."""
        table = self.pick(self.world.tables)
        ends = [column.name for column in table.columns if column.type in ("int", "bigint", "smallint")]
        start, end = self.pick(ends), self.pick(ends)
        recursive = (
            f"WITH RECURSIVE r(v, depth) AS (SELECT {start}, 0 FROM {table.name} UNION "
            f"SELECT e.{end}, r.depth + 1 FROM {table.name} e JOIN r ON e.{start} = r.v "
            f"WHERE r.depth < {self.pick([1, 3])})"
        )
        columns = [Column("v", "int"), Column("depth", "int")]
        return Query(f"{recursive} SELECT v, depth FROM r ORDER BY 1, 2", columns, None, [0, 1])

    def cut_off(self) -> Query:
        """endless-recursion-behind-order-by: what would never end is cut by LIMIT."""
        if not self.has("endless recursion that is cut"):
            return self.counted()
        recursive = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r)"
        cut = f"(SELECT n FROM r LIMIT {self.pick([1, 5, 10])}) cut"
        shape = self.pick(
            ["SELECT n FROM {} ORDER BY n", "SELECT count(*) AS n FROM {}", "SELECT n FROM {} WHERE n > 2"]
        )
        return Query(f"{recursive} {shape.format(cut)}", [Column("n", "int")])

    def nested(self) -> Query:
        """Lists unfolded, and parts of lists and structs."""
        tables = [t for t in self.world.tables if any(c.type in ("ints", "pair") for c in t.columns)]
        if not tables:
            return Query(f"SELECT unnest([1, {self.pick(['NULL', '2'])}, 3]) AS v", [Column("v", "int")])
        table = self.pick(tables)
        name, type_ = self.pick([(c.name, c.type) for c in table.columns if c.type in ("ints", "pair")])
        if type_ == "pair":
            item = self.pick([f"{name}['a']", f"{name}['b']", name, f"{name} IS NULL"])
            return Query(f"SELECT id, {item} AS v FROM {table.name}", [])
        # An empty list has no length for one engine and 0 for the other.
        item = self.pick(
            [f"unnest({name})", f"{name}[1]", f"{name}[-1]", name, f"{name}[1:2]", f"array_append({name}, 7)"]
        )
        return Query(f"SELECT id, {item} AS v FROM {table.name}", [])
