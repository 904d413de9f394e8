"""Tables that are made, changed and read: INSERT, UPDATE and DELETE with subqueries in their conditions."""

from __future__ import annotations

from scope import Ref, Scope
from values import kin


class Changes:
    """A mixin of the grammar. The changed table is a copy that belongs to the case."""

    def changes(self) -> list[str]:
        self.profile = {"where": 0.5}
        table = self.pick(self.world.tables)
        # A column of its own name beside the original's, and some rows of it.
        columns = [column for column in table.columns if column.type not in ("ints", "pair")]
        names = ", ".join(column.name for column in columns)
        scope = Scope([Ref("z", column.name, column.type) for column in columns])
        read = f"SELECT {names} FROM z"
        statements = [f"CREATE OR REPLACE TABLE z AS SELECT {names} FROM {table.name}"]
        for _ in range(self.pick([1, 1, 2, 3])):
            statements += [self.change(scope, columns, table.name, names), read]
        return [*statements, "DROP TABLE z"]

    def change(self, scope: Scope, columns, original: str, names: str) -> str:
        self.subqueries_left = 1 if self.has("subqueries in changes") else 0
        kind = self.pick(["delete", "delete", "update", "update", "insert"])
        if kind == "insert":
            return self.insert(columns, original, names)
        where = f" WHERE {self.changed_rows(scope)}" if self.chance(0.9) else ""
        if kind == "delete":
            return f"DELETE FROM z{where}"
        column = self.pick(columns)
        # The key of the table stays what it is.
        column = column if column.name != "id" else columns[-1]
        value = self.pick([lambda: self.value(scope, kin(column.type), 1), lambda: self.constant(kin(column.type))])()
        return f"UPDATE z SET {column.name} = CAST({value} AS {self.spelled(column.type)}){where}"

    def changed_rows(self, scope: Scope) -> str:
        """Also conditions that fold to a constant, and subqueries that become joins."""
        if self.chance(0.15):
            return self.pick(["FALSE", "NULL", "1 = 0", "TRUE", "id < id", "z.id IS NULL"])
        if self.subqueries_left and self.chance(0.5):
            return self.subquery_predicate(scope)
        return self.predicate(scope, 2)

    def insert(self, columns, original: str, names: str) -> str:
        if self.chance(0.5):
            row = ", ".join(self.constant(kin(column.type)) for column in columns)
            return f"INSERT INTO z ({names}) VALUES ({row})"
        if self.chance(0.3):
            return f"INSERT INTO z (id) SELECT id + 1000 FROM {original}"
        scope = Scope([Ref(original, column.name, column.type) for column in columns])
        return f"INSERT INTO z ({names}) SELECT {names} FROM {original} WHERE {self.predicate(scope, 1)}"
