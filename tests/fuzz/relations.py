"""FROM clauses: tables, subqueries, lists of values, common table expressions, and joins of all kinds between them."""

from __future__ import annotations

from scope import Ref, Scope
from values import kin, literal, random_value

KINDS = ["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"]


class Relations:
    """A mixin of the grammar."""

    def source(self, around: Scope | None = None, depth: int = 1) -> tuple[str, list[Ref], list[Ref] | None]:
        """One relation with its alias, its columns, and those of them that tell its rows apart."""
        if depth > 0 and self.chance(0.12):
            query = self.select(around=None, depth=depth - 1, joins=self.pick([0, 0, 1]))
            return self.named(f"({query.sql})", query)
        if self.chance(0.04):
            return self.listed_values()
        if self.common and self.chance(0.5):
            name, query = self.pick(self.common)
            return self.named(name, query)
        table = self.pick(self.world.tables)
        alias = table.name if table.name not in self.used and self.chance(0.4) else self.new_name("t")
        self.used.add(alias)
        refs = [Ref(alias, column.name, column.type) for column in table.columns]
        shown = table.name if alias == table.name else f"{table.name} {self.pick(['', 'AS '])}{alias}"
        return shown, refs, [ref for ref in refs if ref.name == "id"]

    def named(self, text: str, query):
        alias = self.new_name("q")
        refs = [Ref(alias, column.name, column.type) for column in query.columns]
        key = None if query.key is None else [refs[position] for position in query.key]
        return f"{text} {alias}", refs, key

    def listed_values(self):
        alias, families = self.new_name("v"), [self.pick(["int", "text", "double"]) for _ in range(2)]
        rows = []
        for number in range(self.pick([1, 2, 4])):
            cells = [
                literal(None if self.chance(0.2) else random_value(self.rng, family, False, False), family)
                for family in families
            ]
            rows.append(f"({number}, {', '.join(cells)})")
        refs = [Ref(alias, name, kind) for name, kind in zip(["id", "k", "i"], ["int", *families])]
        return f"(VALUES {', '.join(rows)}) {alias}(id, k, i)", refs, refs[:1]

    def from_clause(self, around: Scope | None, joins: int, lateral: bool = False) -> tuple[str, Scope]:
        """Some relations joined."""
        text, refs, key = self.source(around)
        for number in range(joins):
            right, right_refs, right_key = self.source(around)
            kind = self.pick(KINDS)
            key = key + right_key if key is not None and right_key is not None else None
            both = Scope(refs + right_refs, key, around)
            if kind == "CROSS JOIN" and len(both.refs) < 24:
                # A comma binds more weakly than JOIN: only at the end it is the same.
                comma = number == joins - 1 and not lateral and self.chance(0.3)
                text = f"{text}, {right}" if comma else f"{text} CROSS JOIN {right}"
            else:
                kind = "JOIN" if kind == "CROSS JOIN" else kind
                text = f"{text} {kind} {right} ON {self.on(refs, right_refs, both, kind)}"
            refs = both.refs
        scope = Scope(refs, key, around)
        if lateral:
            return self.with_lateral(text, scope)
        return text, scope

    def with_lateral(self, text: str, scope: Scope) -> tuple[str, Scope]:
        inner, refs = self.lateral(scope)
        joined = self.pick([" CROSS JOIN {}", ", {}", " LEFT JOIN {} ON TRUE", " JOIN {} ON TRUE"])
        # How many rows it has is not known: nothing tells them apart.
        return text + joined.format(inner), Scope(scope.refs + refs, None, scope.outer)

    def on(self, left: list[Ref], right: list[Ref], both: Scope, kind: str) -> str:
        """A condition, mostly with an equality between the sides."""
        conditions = []
        pairs = [(one, other) for one in left for other in right if kin(one.type) == kin(other.type)]
        pairs = [pair for pair in pairs if kin(pair[0].type) not in ("ints", "pair")]
        keyed = [pair for pair in pairs if pair[0].name == pair[1].name]
        for number in range(self.pick([1, 1, 1, 2])):
            if not pairs or (number == 0 and self.chance(0.08) and self.has(f"{kind.lower()} without equality")):
                continue
            one, other = self.pick(keyed if keyed and self.chance(0.7) else pairs)
            sign = "IS NOT DISTINCT FROM" if self.chance(self.profile.get("null-safe", 0.1)) else "="
            if sign != "=" and not self.has("null-safe joins"):
                sign = "="
            sides = [one.qualified, other.qualified]
            self.rng.shuffle(sides)
            conditions.append(f"{sides[0]} {sign} {sides[1]}")
        if not conditions or self.chance(0.25):
            if conditions or self.has(f"{kind.lower()} without equality"):
                conditions.append(self.on_predicate(both))
        return " AND ".join(conditions) if conditions else "TRUE"

    def on_predicate(self, both: Scope) -> str:
        if self.has("subqueries in on"):
            return self.predicate(both, 1)
        with self.without_subqueries():
            return self.predicate(both, 1)

    def using(self, natural: bool) -> tuple[str, Scope]:
        """Two or three tables joined by USING or NATURAL; the joined columns lose their tables' names."""
        tables = self.rng.sample(self.world.tables, self.pick([2, 2, 3]))
        text, refs = tables[0].name, [Ref(tables[0].name, c.name, c.type) for c in tables[0].columns]
        for table in tables[1:]:
            right = [Ref(table.name, column.name, column.type) for column in table.columns]
            common = [ref for ref in right if any(other.name == ref.name for other in refs)]
            plain = [ref for ref in common if sum(other.name == ref.name for other in refs) == 1]
            if not plain or (natural and len(plain) != len(common)):
                continue
            merged = plain if natural else self.rng.sample(plain, min(len(plain), self.pick([1, 1, 2])))
            names = [ref.name for ref in merged]
            kind = self.pick(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
            if not self.has(f"using in {kind.lower()}"):
                kind = "JOIN"
            text += f" NATURAL {kind} {table.name}" if natural else f" {kind} {table.name} USING ({', '.join(names)})"
            rest = [ref for ref in refs + right if ref.name not in names]
            refs = [Ref(None, ref.name, ref.type) for ref in merged] + rest
        return text, Scope(refs)
