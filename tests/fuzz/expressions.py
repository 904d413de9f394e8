"""Expressions of a wanted type over what is in scope, without what the two engines define differently (known.py)."""

from __future__ import annotations

import contextlib

from scope import Ref, Scope
from values import SPELLED, bare_literal, kin, literal, random_value

ORDERED = ["int", "double", "decimal", "text", "date", "timestamp"]
SCALAR = [*ORDERED, "bool"]
COMPARISONS = ["=", "=", "<>", "<>", "<", "<=", "<=", ">", ">=", ">="]
PATTERNS = ["a%", "%b", "%a%", "_", "a_%", "%", "%", "", "Ä%"]
ESCAPING = "a!%b' ESCAPE '!"
SPANS = [
    "1 day",
    "2 days",
    "1 month",
    "13 months",
    "1 year",
    "-1 day",
    "-1 month",
    "36 hours",
    "90 minutes",
    "1 second",
]
UNITS = ["year", "month", "week", "day", "hour"]
FIELDS = ["year", "month", "day", "dow", "doy", "quarter", "week"]


class Expressions:
    """A mixin of the grammar: needs `rng`, `has`, `name` and, for subqueries, its sisters."""

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def pick(self, options):
        return self.rng.choice(options)

    def shown(self, ref: Ref, scope: Scope) -> str:
        """The column's name, bare where that is enough."""
        bare = ref in scope.refs and scope.is_only(ref) and self.chance(0.3)
        return ref.name if bare else ref.qualified

    def column(self, scope: Scope, family: str) -> str | None:
        """A column of this family, now and then one of the queries around."""
        own, around = scope.of(family), [ref for ref in self.around(scope) if kin(ref.type) == family]
        if around and (not own or self.chance(0.15)) and self.has("correlation anywhere"):
            return self.pick(around).qualified
        return self.shown(self.pick(own), scope) if own else None

    def around(self, scope: Scope) -> list[Ref]:
        return scope.around(9 if self.has("correlation two levels out") else 1)

    def constant(self, family: str) -> str:
        if self.chance(0.04):
            return literal(None, family)
        value = random_value(self.rng, family, odd=self.has("odd values") and self.chance(0.1), far=False)
        if family == "decimal" and not self.has("decimal literals"):
            return literal(value, family)
        if family == "double" and self.chance(0.7):
            return f"CAST({value!r} AS DOUBLE)" if value == value and abs(value) < 1e9 else literal(value, family)
        return bare_literal(value, family) if self.chance(0.8) else literal(value, family)

    def value(self, scope: Scope, family: str, depth: int = 2) -> str:
        """An expression; always one that can stand in any other."""
        if depth > 0 and self.chance(0.5):
            if self.subqueries_left > 0 and family in SCALAR and self.chance(0.25):
                return self.scalar_subquery(scope, family)
            return self.composed(scope, family, depth - 1)
        if self.chance(0.75):
            column = self.column(scope, family)
            if column:
                return column
        return self.constant(family)

    def composed(self, scope: Scope, family: str, depth: int) -> str:
        part = lambda of=family: self.value(scope, of, depth)  # noqa: E731
        shape = self.rng.random()
        if shape < 0.12:
            return f"coalesce({part()}, {part()})"
        if shape < 0.32:
            return self.case(scope, family, depth)
        if shape < 0.37 and family in ORDERED:
            return f"nullif({part()}, {part()})"
        if shape < 0.42 and family in ORDERED:
            return f"{self.pick(['greatest', 'least'])}({part()}, {part()})"
        return getattr(self, f"{family}_composed")(scope, part, depth)

    def case(self, scope: Scope, family: str, depth: int) -> str:
        """Both forms of CASE, with and without ELSE."""
        if not self.has("subqueries in case") and self.subqueries_left:
            with self.without_subqueries():
                return self.case(scope, family, depth)
        part = lambda of=family: self.value(scope, of, depth)  # noqa: E731
        arms = range(self.pick([1, 1, 2]))
        otherwise = f" ELSE {part()}" if self.chance(0.7) else ""
        if self.chance(0.25):
            of = self.pick(["int", "text", "bool"])
            whens = " ".join(f"WHEN {part(of)} THEN {part()}" for _ in arms)
            return f"CASE {part(of)} {whens}{otherwise} END"
        whens = " ".join(f"WHEN {self.predicate(scope, depth)} THEN {part()}" for _ in arms)
        return f"CASE {whens}{otherwise} END"

    def int_composed(self, scope, part, depth):
        return self.pick(
            [
                lambda: f"({part()} {self.pick('+-*')} {part()})",
                lambda: f"({part()} {self.pick('+-')} {part()})",
                lambda: f"({part()} {self.pick(['//', '%'])} nullif({part()}, 0))",
                lambda: f"(- {part()})",
                lambda: f"abs({part()})",
                lambda: f"length({part('text')})",
                lambda: f"strpos({part('text')}, {part('text')})",
                lambda: f"CAST({part('bool')} AS INT)",
                lambda: f"CAST({part()} AS {self.pick(['BIGINT', 'INT'])})",
                lambda: f"CAST(extract({self.pick(FIELDS)} FROM {part(self.pick(['date', 'timestamp']))}) AS BIGINT)",
            ]
        )()

    def double_composed(self, scope, part, depth):
        return self.pick(
            [
                lambda: f"({part()} {self.pick('+-*')} {part()})",
                lambda: f"({part()} / {part() if self.has('nan from arithmetic') else 'CAST(4.0 AS DOUBLE)'})",
                lambda: f"(- {part()})",
                lambda: f"{self.pick(['abs', 'floor', 'ceil', 'round'])}({part()})",
                lambda: f"CAST({part('int')} AS DOUBLE)",
                lambda: f"CAST({part('decimal')} AS DOUBLE)",
                lambda: f"({part()} {self.pick('+-*')} {part('int')})",
            ]
        )()

    def decimal_composed(self, scope, part, depth):
        factors = ["2", "-1"] + (["0.5", "1.25"] if self.has("decimal literals") else [])
        return self.pick(
            [
                lambda: f"({part()} {self.pick('+-')} {part()})",
                lambda: f"({part()} * {self.pick(factors)})",
                lambda: f"(- {part()})",
                lambda: f"abs({part()})",
                lambda: f"CAST({part('int')} AS DECIMAL(10, 2))",
                lambda: f"({part()} + {part('int')})",
            ]
        )()

    def text_composed(self, scope, part, depth):
        return self.pick(
            [
                lambda: f"({part()} || {part()})",
                lambda: f"{self.pick(['upper', 'lower', 'trim', 'ltrim', 'reverse'])}({part()})",
                lambda: f"substr({part()}, {self.pick([1, 2, 3])}, {self.pick([0, 1, 2])})",
                lambda: f"{self.pick(['left', 'right'])}({part()}, {self.pick([0, 1, 2])})",
                lambda: f"replace({part()}, {self.pick(['a', 'b', 'ab'])!r}, {self.pick(['x', '', 'yy'])!r})",
                lambda: f"concat({part()}, {part()})",
                lambda: f"concat_ws('-', {part()}, {part()})",
                lambda: f"CAST({part('int')} AS VARCHAR)",
                lambda: f"CAST({part('date')} AS VARCHAR)",
                lambda: f"repeat({part()}, {self.pick([0, 1, 2])})",
                lambda: f"split_part({part()}, 'a', {self.pick([1, 2])})",
            ]
        )()

    def bool_composed(self, scope, part, depth):
        return f"({self.predicate(scope, depth)})"

    def date_composed(self, scope, part, depth):
        return self.pick(
            [
                lambda: f"CAST({part()} + INTERVAL '{self.pick(SPANS[:7])}' AS DATE)",
                lambda: f"CAST({part('timestamp')} AS DATE)",
                lambda: f"CAST(date_trunc('{self.pick(UNITS[:4])}', {part()}) AS DATE)",
            ]
        )()

    def timestamp_composed(self, scope, part, depth):
        return self.pick(
            [
                lambda: f"({part()} {self.pick('+-')} INTERVAL '{self.pick(SPANS)}')",
                lambda: f"({part('date')} {self.pick('+-')} INTERVAL '{self.pick(self.date_spans())}')",
                lambda: f"CAST({part('date')} AS TIMESTAMP)",
                lambda: f"date_trunc('{self.pick(UNITS)}', {part()})",
            ]
        )()

    def date_spans(self) -> list[str]:
        return SPANS if self.has("hours added to dates") else SPANS[:7]

    def ints_composed(self, scope, part, depth):
        return self.pick(
            [
                lambda: f"[{part('int')}, {part('int')}]",
                lambda: f"array_append({part()}, CAST({self.constant('int')} AS INT))",
            ]
        )()

    def pair_composed(self, scope, part, depth):
        return self.constant("pair")

    def predicate(self, scope: Scope, depth: int = 2) -> str:
        """A condition; never one that needs brackets below AND, OR and NOT."""
        if depth > 0 and self.chance(0.45):
            return self.composed_predicate(scope, depth - 1)
        shape = self.rng.random()
        family = self.family_in(scope)
        of = lambda f=family: self.value(scope, f, min(depth, 1))  # noqa: E731
        if shape < 0.5:
            other = self.pick(["int", "double", "decimal"]) if family == "int" and self.chance(0.2) else family
            return f"{of()} {self.pick(COMPARISONS)} {of(other)}"
        if shape < 0.6:
            return f"{of()} IS {self.pick(['', 'NOT '])}NULL"
        if shape < 0.68:
            return f"{of()} {self.pick(['', 'NOT '])}BETWEEN {of()} AND {of()}"
        if shape < 0.78:
            items = ", ".join(self.constant(family) for _ in range(self.pick([1, 2, 3])))
            return f"{of()} {self.pick(['', 'NOT '])}IN ({items})"
        if shape < 0.86 and self.has("is distinct from"):
            return f"{of()} IS {self.pick(['', 'NOT '])}DISTINCT FROM {of()}"
        if shape < 0.93:
            like = self.pick(["LIKE", "NOT LIKE", "ILIKE"])
            pattern = ESCAPING if self.chance(0.1) and self.has("other letters for ESCAPE") else self.pick(PATTERNS)
            return f"{self.value(scope, 'text', min(depth, 1))} {like} '{pattern}'"
        return f"{of('bool')} IS {self.pick(['TRUE', 'NOT TRUE', 'FALSE', 'NOT FALSE', 'NULL'])}"

    @contextlib.contextmanager
    def without_subqueries(self):
        """For where there may be none."""
        left, self.subqueries_left = self.subqueries_left, 0
        yield
        self.subqueries_left = left

    def condition(self, scope: Scope, depth: int = 2) -> str:
        """The condition of a WHERE clause, where subqueries become joins."""
        before, self.in_where = self.in_where, True
        condition = self.predicate(scope, depth)
        self.in_where = before
        return condition

    def composed_predicate(self, scope: Scope, depth: int) -> str:
        part = lambda: self.predicate(scope, depth)  # noqa: E731

        def below():
            """A part whose third value is seen: where IN over NULLs is not right yet, there is none."""
            with contextlib.nullcontext() if self.has("not in") else self.without_subqueries():
                return part()

        allowed = self.in_where or self.has("subqueries in the select list")
        if self.subqueries_left > 0 and allowed and self.chance(0.4):
            return self.subquery_predicate(scope)
        return self.pick(
            [
                lambda: f"({part()} AND {part()})",
                lambda: f"({below()} OR {below()})",
                lambda: f"(NOT {below()})",
                lambda: f"({below()}) IS {self.pick(['', 'NOT '])}NULL",
                lambda: f"{self.value(scope, 'bool', 0)}",
                lambda: (
                    f"({self.row(scope, 2)}) {self.pick(['=', '<>'])} ({self.row(scope, 2)})"
                    if self.has("row values")
                    else part()
                ),
            ]
        )()

    def row(self, scope: Scope, size: int) -> str:
        return ", ".join(f"coalesce({self.value(scope, 'int', 1)}, 0)" for _ in range(size))

    def family_in(self, scope: Scope) -> str:
        """A family that has a column here, where one has."""
        families = [kin(ref.type) for ref in scope.refs if kin(ref.type) in ORDERED]
        return self.pick(families) if families and self.chance(0.9) else self.pick(ORDERED)

    @staticmethod
    def spelled(family: str) -> str:
        return SPELLED[family]
