"""The kinds of statements with their weights. Whatever a difference was ever found in is a kind of its own, so that
it is met in every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dml import Changes
from expressions import Expressions
from queries import Queries
from recursion import Recursions
from relations import Relations
from scope import Query, Ref, Scope
from subqueries import Subqueries
from world import Column


@dataclass
class Case:
    """Statements that run one after the other; the rows of each are compared."""

    kind: str
    statements: list[str]
    # By which columns (from 0) the rows of the last statement are in order.
    order: list[int] = field(default_factory=list)


class Grammar(Expressions, Subqueries, Relations, Queries, Changes, Recursions):
    """What makes the statements of one case. `has` says which features are switched on."""

    def __init__(self, rng, world, has: Callable[[str], bool]):
        self.rng, self.world, self.has = rng, world, has
        self.profile: dict[str, float] = {}
        self.common: list[tuple[str, Query]] = []
        self.used: set[str] = set()
        self.names = 0
        self.subqueries_left = 0
        # Whether a condition is being made whose subqueries become joins.
        self.in_where = False

    def plain(self, subqueries: int = 0, **profile) -> Query:
        """A SELECT in which these clauses come with these probabilities."""
        self.profile = {"where": 0.6, "order": 0.4, "limit": 0.4, **profile}
        self.subqueries_left = subqueries
        return self.select()


KINDS: dict[str, tuple[int, Callable[[Grammar], Query | list[str]]]] = {}


def kind(name: str, weight: int):
    """Registers a kind."""

    def register(make):
        KINDS[name] = (weight, make)
        return make

    return register


@kind("select", 4)
def _(g):
    return g.plain(distinct=0.2)


@kind("join", 8)
def _(g):
    return g.plain(joins=g.pick([1, 1, 2]))


@kind("join filtered by a subquery", 5)
def _(g):
    """join-filter-lands-on-wrong-column: a filter above a join whose sides have columns of one name."""
    return g.plain(subqueries=2, joins=g.pick([1, 1, 2]), where=1)


@kind("null-safe join", 4)
def _(g):
    query = g.plain(joins=g.pick([1, 2]), **{"null-safe": 0.7})
    return query


@kind("using", 4)
def _(g):
    g.profile = {"where": 0.5, "group": 0.2, "order": 0.3, "limit": 0.3}
    source, scope = g.using(natural=False)
    return g.select_from(source, scope)


@kind("natural", 2)
def _(g):
    g.profile = {"where": 0.5, "group": 0.2, "order": 0.3}
    source, scope = g.using(natural=True)
    return g.select_from(source, scope)


@kind("subquery in where", 8)
def _(g):
    return g.plain(subqueries=g.pick([1, 2, 3]), joins=g.pick([0, 0, 1]), where=1)


@kind("not in", 4)
def _(g):
    """not-in-subquery-with-nulls: constant left, below OR, its IS NULL."""
    g.profile, g.subqueries_left = {"order": 0.3}, 2
    source, scope = g.from_clause(None, g.pick([0, 0, 1]))
    condition = g.in_predicate(scope)
    shapes = ["{}", "{}", "({}) AND {other}"]
    shapes += ["({}) OR {other}", "({}) IS NULL", "NOT ({})"] if g.has("not in") else []
    shape = g.pick(shapes)
    where = shape.format(condition, other=g.predicate(scope, 1))
    items, columns = g.columns(*columns_of(g, scope), scope)
    return g.ordered(Query(f"SELECT {items} FROM {source} WHERE {where}", columns))


@kind("exists with a list", 4)
def _(g):
    """What EXISTS lists, under whatever name, is not the column that its condition asks for."""
    g.profile, g.subqueries_left = {"order": 0.3}, 0
    table = g.pick(g.world.tables)
    around = Scope([Ref("o", column.name, column.type) for column in table.columns])
    source, inside = g.from_clause(None, g.pick([0, 1, 1]))
    numbers = [ref for ref in inside.of("int") if ref.table]
    if not numbers:
        return g.plain(subqueries=1, where=1)
    asked, other = g.pick(numbers).qualified, g.pick(inside.refs).qualified
    shown = g.pick(["*", "*", other, f"{other} AS {g.pick(['id', 'k', 'i'])}", "1"])
    where = f"{asked} = {g.pick(around.of('int')).qualified}"
    sign = g.pick(["", "", "NOT "])
    sql = f"SELECT o.id FROM {table.name} o WHERE {sign}EXISTS (SELECT {shown} FROM {source} WHERE {where})"
    return g.ordered(Query(sql, [Column("id", "int")], [0]))


@kind("any and all", 3)
def _(g):
    if not g.has("any and all"):
        return g.plain(subqueries=1)
    g.profile, g.subqueries_left = {"order": 0.3}, 1
    source, scope = g.from_clause(None, g.pick([0, 0, 1]))
    condition = g.quantified_predicate(scope)
    items, columns = g.columns(*columns_of(g, scope), scope)
    return g.ordered(Query(f"SELECT {items} FROM {source} WHERE {g.pick(['', 'NOT '])}{condition}", columns))


@kind("subquery in the select list", 5)
def _(g):
    if not g.has("subqueries in the select list"):
        return g.plain(subqueries=1)
    g.profile, g.subqueries_left = {"where": 0.3, "order": 0.3, "limit": 0.2}, 2
    source, scope = g.from_clause(None, g.pick([0, 0, 1]))
    condition = g.subquery_predicate(scope)
    shapes = ["{}", "({}) IS NULL", "NOT ({})", "CASE WHEN {} THEN 1 ELSE 0 END", "coalesce({}, FALSE)"]
    shape = g.pick(shapes)
    family = "int" if shape.startswith("CASE") else "bool"
    items, families = columns_of(g, scope)
    items, columns = g.columns([*items, shape.format(condition)], [*families, family], scope)
    where = f" WHERE {g.condition(scope)}" if g.likely("where") else ""
    return g.ordered(Query(f"SELECT {items} FROM {source}{where}", columns))


@kind("scalar subquery", 5)
def _(g):
    g.profile, g.subqueries_left = {"where": 0.3, "order": 0.3}, 2
    source, scope = g.from_clause(None, g.pick([0, 0, 1]))
    items, families = columns_of(g, scope)
    family = g.family_in(scope)
    items, columns = g.columns([*items, g.scalar_subquery(scope, family)], [*families, family], scope)
    where = f" WHERE {g.condition(scope)}" if g.likely("where") else ""
    return g.ordered(Query(f"SELECT {items} FROM {source}{where}", columns))


@kind("subquery in order by", 2)
def _(g):
    if not g.has("subqueries in order by"):
        return g.plain(subqueries=1)
    g.profile, g.subqueries_left = {"where": 0.3}, 1
    source, scope = g.from_clause(None, 0)
    items, families = columns_of(g, scope)
    items, columns = g.columns(items, families, scope)
    by = g.scalar_subquery(scope, "int")
    rest = ", ".join(str(number + 1) for number in range(len(columns)))
    return Query(f"SELECT {items} FROM {source} ORDER BY {by}, {rest} LIMIT {g.pick([1, 3, 100])}", columns)


@kind("lateral", 3)
def _(g):
    if not g.has("lateral"):
        return g.plain(joins=1)
    return g.plain(subqueries=2, lateral=1, joins=g.pick([0, 0, 1]))


@kind("set operation", 5)
def _(g):
    g.profile, g.subqueries_left = {"where": 0.5, "distinct": 0.1, "group": 0.1}, 1
    return g.ordered(g.set_operation(), always=g.chance(0.5))


@kind("intersect all, except all", 2)
def _(g):
    if not g.has("intersect all and except all"):
        return g.plain()
    g.profile = {"where": 0.4}
    sides = [g.select(families=["int"], joins=0) for _ in range(2)]
    named = [f"SELECT {side.columns[0].name} AS v FROM ({side.sql}) s{n}" for n, side in enumerate(sides)]
    sign = g.pick(["INTERSECT ALL", "EXCEPT ALL"])
    return Query(f"{named[0]} {sign} {named[1]} ORDER BY 1", [sides[0].columns[0]], None, [0])


@kind("one branch of a union", 3)
def _(g):
    """The other branches have no rows; columns are united by their places."""
    g.profile, g.subqueries_left = {"where": 0.3}, 0
    sides = [g.select(families=["int", "int"], joins=0) for _ in range(2)]
    if any(len({column.name for column in side.columns}) < len(side.columns) for side in sides):
        return sides[0]
    listed = [", ".join(column.name for column in side.columns[:2]) for side in sides]
    turned = ", ".join(reversed(listed[1].split(", ")))
    branches = [f"SELECT {listed[0]} FROM ({sides[0].sql}) s0 WHERE {g.pick(['FALSE', '1 > 2', 'NULL'])}"]
    branches.append(f"SELECT {g.pick(['', 'DISTINCT '])}{g.pick([listed[1], turned])} FROM ({sides[1].sql}) s1")
    if g.chance(0.3):
        branches.reverse()
    return g.ordered(Query(f" UNION {g.pick(['', 'ALL '])}".join(branches), sides[0].columns[:2]))


@kind("distinct on", 2)
def _(g):
    if not g.has("distinct on"):
        return g.plain(distinct=1)
    source, scope = g.from_clause(None, g.pick([0, 0, 1]))
    if not scope.key:
        return g.plain(distinct=1)
    others = [ref for ref in scope.refs if ref not in scope.key] or scope.refs
    on = g.pick(scope.refs if g.has("columns twice below DISTINCT ON") else others).qualified
    items, families = columns_of(g, scope)
    items, columns = g.columns([on, *items], ["int", *families], None)
    keys = ", ".join(f"{ref.qualified}{g.direction()}" for ref in scope.key)
    return Query(f"SELECT DISTINCT ON ({on}) {items} FROM {source} ORDER BY {on}{g.direction()}, {keys}", columns)


@kind("group", 6)
def _(g):
    return g.plain(joins=g.pick([0, 0, 1]), group=1, having=0.3, filter=0.2)


@kind("grouping sets", 4)
def _(g):
    return g.plain(joins=g.pick([0, 0, 1]), group=1, sets=0.9, having=0.2)


@kind("sums of a column and numbers", 2)
def _(g):
    source, scope = g.from_clause(None, g.pick([0, 0, 1]))
    if not scope.of("int"):
        return g.plain(group=1)
    column = g.pick(scope.of("int")).qualified
    added = [g.pick(["{} + 1", "{} + 2", "3 + {}", "{} + 0.5", "{} - 0.25", "-1.5 + {}"]) for _ in range(3)]
    items = ", ".join(f"sum({one.format(column)}) AS c{number}" for number, one in enumerate(added))
    return Query(f"SELECT {items} FROM {source}", [Column(f"c{number}", "decimal") for number in range(3)])


@kind("groups by casts", 2)
def _(g):
    """A cast beside what it casts is a column of its own."""
    source, scope = g.from_clause(None, g.pick([0, 0, 1]))
    if not scope.of("int"):
        return g.plain(group=1)
    column = g.pick(scope.of("int")).qualified
    groups = g.rng.sample([column, f"CAST({column} AS VARCHAR)", f"CAST({column} AS BIGINT)"], g.pick([2, 3]))
    shown = ", ".join(f"{group} AS g{number}" for number, group in enumerate(groups))
    clause = g.group_by(groups, g.chance(0.3))
    return Query(f"SELECT {shown}, count(*) AS n FROM {source}{clause}", [])


@kind("group with subqueries", 3)
def _(g):
    return g.plain(subqueries=2, joins=g.pick([0, 1]), group=1, having=0.5)


@kind("window", 6)
def _(g):
    return g.plain(joins=g.pick([0, 0, 1]), window=1, **{"window filter": 0.15 if g.has("window filter") else 0})


@kind("named window", 3)
def _(g):
    return g.plain(joins=g.pick([0, 0, 1]), window=1, **{"named windows": 0.9})


@kind("equal windows", 2)
def _(g):
    """Windows that are one and the same once they are simplified."""
    source, scope = g.from_clause(None, g.pick([0, 0, 1]))
    if not scope.of("int"):
        return g.plain(window=1)
    column, by = g.pick(scope.of("int")).qualified, g.pick([" > 1", " IS NULL", " = 2"])
    shapes = ["PARTITION BY {}", "PARTITION BY {} AND TRUE", "ORDER BY {}", "ORDER BY {} OR FALSE"]
    over = [g.pick(shapes) for _ in range(3)]
    calls = [f"{g.pick(['count(*)', f'max({column})'])} OVER ({one.format(column + by)})" for one in over]
    items = ", ".join(f"{call} AS c{number}" for number, call in enumerate(calls))
    return Query(f"SELECT {column} AS v, {items} FROM {source}", [])


@kind("window over a group", 2)
def _(g):
    g.profile = {"where": 0.4, "group": 1}
    query = g.select(joins=g.pick([0, 1]))
    scope = g.scope_of("grouped", query)
    scope.key = [scope.refs[position] for position in query.key or []] or None
    g.profile = {"window": 1, "order": 0.4, "limit": 0.4}
    return g.select_from(f"({query.sql}) grouped", scope)


@kind("case and null", 3)
def _(g):
    g.profile, g.subqueries_left = {"where": 0.5, "distinct": 0.5, "order": 0.5}, 0
    source, scope = g.from_clause(None, g.pick([0, 1, 1]))
    families = [g.family_in(scope) for _ in range(2)]
    items, columns = g.columns([g.case(scope, family, 1) for family in families], families, None)
    distinct = g.pick(["DISTINCT ", ""])
    return g.ordered(Query(f"SELECT {distinct}{items} FROM {source}", columns))


@kind("with", 4)
def _(g):
    g.profile, g.subqueries_left = {"where": 0.5, "order": 0.3, "limit": 0.3, "group": 0.2}, 1
    return g.with_common(lambda: g.select(joins=g.pick([0, 1, 2])))


@kind("recursion", 2)
def _(g):
    return g.recursion()


@kind("cut inside, sorted outside", 4)
def _(g):
    """offset-under-order-by: LIMIT and OFFSET of a subquery below another ORDER BY, aggregate, filter or join."""
    g.profile, g.subqueries_left = {"where": 0.4, "order": 1, "limit": 1}, 0
    inner = g.select(joins=g.pick([0, 0, 1]))
    scope = g.scope_of("cut", inner)
    g.profile = {"where": 0.4, "order": 0.6, "limit": 0.4, "group": 0.2, "distinct": 0.1}
    return g.select_from(f"({inner.sql}) cut", scope)


@kind("equal names", 2)
def _(g):
    """same-expression-twice: two columns of one name or one expression."""
    if not g.has("equal names in a result"):
        return g.plain()
    source, scope = g.from_clause(None, g.pick([0, 1]))
    family = g.family_in(scope)
    one, other = g.own_value(scope, family), g.own_value(scope, family)
    items = g.pick([f"{one}, {one}", f"{one} AS v, {other} AS v", f"{one}, {other}, {one}", "1, 1", "*"])
    return Query(f"SELECT {items} FROM {source} WHERE {g.predicate(scope, 1)}", [])


@kind("all columns", 2)
def _(g):
    source, scope = g.from_clause(None, g.pick([0, 0, 1]) if g.has("equal names in a result") else 0)
    star = g.pick(["*", f"{scope.refs[0].table}.*"])
    return Query(f"SELECT {star} FROM {source} WHERE {g.predicate(scope, 1)}", [])


@kind("nested values", 2)
def _(g):
    return g.plain() if not g.has("nested values") else g.nested()


@kind("from first", 1)
def _(g):
    if not g.has("from first"):
        return g.plain()
    g.profile = {}
    table = g.pick(g.world.tables)
    return Query(f"FROM {table.name}", [])


@kind("changes", 6)
def _(g):
    return g.changes() if g.has("changes") else g.plain()


@kind("sample", 1)
def _(g):
    """Only what is sure of a sample: all rows, or none."""
    if not g.has("tablesample"):
        return g.plain()
    table = g.pick(g.world.tables)
    sample = g.pick(["BERNOULLI (100 PERCENT)", "(0 PERCENT)", "(1000 ROWS)"])
    return Query(f"SELECT count(*) AS n, sum(id) AS s FROM {table.name} TABLESAMPLE {sample}", [])


def columns_of(g: Grammar, scope) -> tuple[list[str], list[str]]:
    """One or two columns to be seen beside what a kind is about."""
    families = [g.family_in(scope) for _ in range(g.pick([1, 2]))]
    return [g.own_value(scope, family) for family in families], families


def random_case(rng, world, has, only: str | None = None) -> Case:
    """One case; of kind `only`, if given."""
    grammar = Grammar(rng, world, has)
    name = only or rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    made = KINDS[name][1](grammar)
    if isinstance(made, list):
        return Case(name, made)
    return Case(name, [made.sql], made.order)
