"""What an expression may refer to."""

from __future__ import annotations

from dataclasses import dataclass, field

from values import kin
from world import Column


@dataclass(frozen=True)
class Ref:
    """A column in scope. Those that USING has merged have no table's name."""

    table: str | None
    name: str
    type: str

    @property
    def qualified(self) -> str:
        return f"{self.table}.{self.name}" if self.table else self.name


@dataclass
class Scope:
    """The columns of a FROM clause, and those of the queries around it."""

    refs: list[Ref]
    # Columns that tell the rows apart, where some do.
    key: list[Ref] | None = None
    outer: Scope | None = None

    def of(self, family: str) -> list[Ref]:
        return [ref for ref in self.refs if kin(ref.type) == family]

    def around(self, levels: int = 9) -> list[Ref]:
        """Columns of the queries around this one; only by their full names are they never taken for ours."""
        if self.outer is None or levels == 0:
            return []
        return [ref for ref in self.outer.refs if ref.table] + self.outer.around(levels - 1)

    def is_only(self, ref: Ref) -> bool:
        """Whether the column's bare name is enough."""
        return sum(other.name == ref.name for other in self.refs) == 1


@dataclass
class Query:
    """A query and what is known of its rows."""

    sql: str
    columns: list[Column]
    # Positions that tell the rows apart.
    key: list[int] | None = None
    # Positions (from 0) by which the rows are in order.
    order: list[int] = field(default_factory=list)
    # Where the wanted columns begin: groups come before them, a key after them.
    wanted_from: int = 0

    @property
    def families(self) -> list[str]:
        return [kin(column.type) for column in self.columns]
