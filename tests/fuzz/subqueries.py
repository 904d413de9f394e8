"""Subqueries: scalar, EXISTS, IN, ANY and ALL; correlated by = and <, by several columns, two levels out."""

from __future__ import annotations

from scope import Ref, Scope
from values import kin


class Subqueries:
    """A mixin of the grammar. `subqueries_left` bounds how many a statement gets."""

    def inner(self, scope: Scope) -> tuple[str, Scope]:
        """The FROM clause of a subquery."""
        self.subqueries_left -= 1
        joins = 1 if self.chance(0.2) and self.has("joins in subqueries") else 0
        return self.from_clause(scope, joins)

    def correlation(self, inner: Scope) -> str | None:
        """A condition between the subquery and the queries around it."""
        around = [ref for ref in self.around(inner) if inner.of(kin(ref.type))]
        if not self.has("correlation by equal doubles"):
            around = [ref for ref in around if ref.type != "double"]
        if not around:
            return None
        conditions = []
        for _ in range(self.pick([1, 1, 1, 2])):
            out = self.pick(around)
            own = self.pick(inner.of(kin(out.type)))
            signs = ["="] * 4
            signs += ["<", ">", "<=", "<>"] if self.has("correlation by inequality") else []
            signs += ["IS NOT DISTINCT FROM"] if self.has("null-safe correlation") else []
            pair = [own.qualified, out.qualified]
            self.rng.shuffle(pair)
            conditions.append(f"{pair[0]} {self.pick(signs)} {pair[1]}")
        return " AND ".join(conditions)

    def inner_where(self, inner: Scope, correlated: float = 0.6) -> str:
        conditions = []
        if self.chance(correlated):
            conditions.append(self.correlation(inner))
        if self.chance(0.4):
            conditions.append(self.condition(inner, 1))
        conditions = [condition for condition in conditions if condition]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def scalar_subquery(self, scope: Scope, family: str) -> str:
        """A subquery of one row at most."""
        source, inner = self.inner(scope)
        where = self.inner_where(inner)
        shape = self.rng.random()
        if shape < 0.15 and self.has("scalar subquery by limit"):
            wanted = self.own_value(inner, family)
            # Equal values are the same row as far as can be seen.
            return f"(SELECT {wanted} AS v FROM {source}{where} ORDER BY 1{self.pick([' DESC', ''])} LIMIT 1)"
        if shape < 0.22 and self.has("scalar subquery without rows"):
            return f"(SELECT {self.constant(family)} WHERE {self.predicate(Scope([]), 0)})"
        return f"(SELECT {self.own_aggregate(inner, family)} FROM {source}{where})"

    def own_aggregate(self, inner: Scope, family: str) -> str:
        """An aggregate without columns of the queries around, which the standard gives another meaning."""
        around, inner.outer = inner.outer, None
        try:
            return self.aggregate(inner, family)
        finally:
            inner.outer = around

    def own_value(self, inner: Scope, family: str) -> str:
        own = inner.of(family)
        return self.pick(own).qualified if own and self.chance(0.8) else self.value(inner, family, 1)

    def subquery_predicate(self, scope: Scope) -> str:
        shapes = ["exists", "exists", "in", "in", "compared"]
        shapes += ["quantified"] if self.has("any and all") else []
        shapes += ["rows"] if self.has("row values in subqueries") else []
        return getattr(self, f"{self.pick(shapes)}_predicate")(scope)

    def exists_predicate(self, scope: Scope) -> str:
        source, inner = self.inner(scope)
        selected = self.pick(["1", "*", self.pick(inner.refs).qualified])
        where = self.inner_where(inner, 0.85)
        return f"{self.pick(['', '', 'NOT '])}EXISTS (SELECT {selected} FROM {source}{where})"

    def in_predicate(self, scope: Scope) -> str:
        family = self.family_in(scope)
        left = self.value(scope, family, 1) if self.chance(0.9) else self.constant(family)
        source, inner = self.inner(scope)
        negated = "NOT " if self.has("not in") and self.chance(0.4) else ""
        selected = self.own_value(inner, family)
        where = self.inner_where(inner, 0.35 if not negated or self.has("correlated not in") else 0)
        return f"{left} {negated}IN (SELECT {selected} FROM {source}{where})"

    def quantified_predicate(self, scope: Scope) -> str:
        family = self.family_in(scope)
        left = self.value(scope, family, 1)
        source, inner = self.inner(scope)
        selected, where = self.own_value(inner, family), self.inner_where(inner, 0.2)
        sign, word = self.pick(["=", "<>", "<", ">", "<=", ">="]), self.pick(["ANY", "ALL"])
        return f"{left} {sign} {word} (SELECT {selected} FROM {source}{where})"

    def compared_predicate(self, scope: Scope) -> str:
        family = self.family_in(scope)
        left = self.value(scope, family, 1)
        return f"{left} {self.pick(['=', '<', '>', '<=', '>=', '<>'])} {self.scalar_subquery(scope, family)}"

    def rows_predicate(self, scope: Scope) -> str:
        source, inner = self.inner(scope)
        pair = ", ".join(self.own_value(inner, "int") for _ in range(2))
        negated = "NOT " if self.has("not in") and self.chance(0.3) else ""
        return f"({self.row(scope, 2)}) {negated}IN (SELECT {pair} FROM {source}{self.inner_where(inner, 0.2)})"

    def lateral(self, scope: Scope) -> tuple[str, list[Ref]]:
        """A lateral subquery and its columns."""
        source, inner = self.inner(scope)
        where = self.inner_where(inner, 0.9)
        alias = self.new_name("lat")
        families = [self.family_in(inner) for _ in range(self.pick([1, 2]))]
        names = [f"v{number}" for number in range(len(families))]
        if self.chance(0.4) or not self.has("lateral with limit"):
            items = [self.own_aggregate(inner, family) for family in families]
            tail = ""
        else:
            items = [self.own_value(inner, family) for family in families]
            positions = ", ".join(str(number + 1) for number in range(len(items)))
            tail = f" ORDER BY {positions} LIMIT {self.pick([1, 2])}" if self.chance(0.6) else ""
        select = ", ".join(f"{item} AS {name}" for item, name in zip(items, names))
        refs = [Ref(alias, name, family) for name, family in zip(names, families)]
        return f"LATERAL (SELECT {select} FROM {source}{where}{tail}) {alias}", refs
