"""SELECTs: plain, grouped, with windows; sets of them; WITH. Whatever cuts rows off has a total order below."""

from __future__ import annotations

from expressions import ORDERED, SCALAR
from scope import Query, Ref, Scope
from values import kin
from world import Column

FRAMES = [
    "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
    "ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING",
    "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    "ROWS 2 PRECEDING",
]
# The same rows for every order of equal keys.
RANGES = [
    "",
    "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    "RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
]


class Queries:
    """A mixin of the grammar. `profile` says how often which clause comes."""

    def likely(self, clause: str) -> bool:
        return self.chance(self.profile.get(clause, 0.0))

    def select(self, around=None, families=None, depth=1, joins=None) -> Query:
        """One SELECT of these families of columns, or of some."""
        joins = self.profile.get("joins", 0) if joins is None else joins
        source, scope = self.from_clause(around, joins, self.likely("lateral"))
        return self.select_from(source, scope, families)

    def select_from(self, source: str, scope: Scope, families=None) -> Query:
        """A SELECT from this FROM clause."""
        where = f" WHERE {self.condition(scope)}" if self.likely("where") else ""
        families = families or [self.family_in(scope) for _ in range(self.pick([1, 2, 2, 3, 4]))]
        if self.likely("group"):
            query = self.grouped(source + where, scope, families)
        elif self.likely("window") and not any(ref.type in ("ints", "pair") for ref in scope.key or []):
            query = self.windowed(source + where, scope, families)
        else:
            query = self.projected(source + where, scope, families)
        return self.ordered(query)

    def columns(self, items: list[str], families: list[str], scope: Scope | None) -> tuple[str, list[Column]]:
        """The select list: some items under names that tables have, too."""
        taken, parts, columns = set(), [], []
        for number, (item, family) in enumerate(zip(items, families)):
            plain = item.rpartition(".")[2]
            is_column = scope is not None and any(item in (ref.name, ref.qualified) for ref in scope.refs)
            if is_column and plain not in taken and self.chance(0.6):
                name = plain
                parts.append(item)
            else:
                name = self.pick(["k", "i", "x", "s"]) if self.chance(0.15) else f"c{number}"
                name = f"c{number}" if name in taken else name
                parts.append(f"{item} AS {name}")
            taken.add(name)
            columns.append(Column(name, family))
        return ", ".join(parts), columns

    def projected(self, source: str, scope: Scope, families: list[str]) -> Query:
        distinct = self.likely("distinct") and all(family in SCALAR for family in families)
        items = [self.value(scope, family) for family in families]
        key = None
        if scope.key and not distinct and self.chance(0.5):
            # With the key among the items rows are told apart outside, too.
            missing = [ref for ref in scope.key if ref.table]
            if len(missing) == len(scope.key):
                key = list(range(len(items), len(items) + len(missing)))
                items += [ref.qualified for ref in missing]
                families = families + [kin(ref.type) for ref in missing]
        select, columns = self.columns(items, families, scope)
        if distinct:
            key = list(range(len(columns)))
        return Query(f"SELECT {'DISTINCT ' if distinct else ''}{select} FROM {source}", columns, key)

    def grouped(self, source: str, scope: Scope, families: list[str]) -> Query:
        """GROUP BY columns and expressions, in sets if wanted; HAVING."""
        if self.subqueries_left and not self.has("subqueries in groups"):
            with self.without_subqueries():
                return self.grouped(source, scope, families)
        count = self.pick([0, 1, 1, 2, 3])
        kinds = [self.pick(SCALAR) for _ in range(count)]
        groups = [self.own_value(scope, kind) if self.chance(0.8) else self.value(scope, kind, 1) for kind in kinds]
        # A constant in GROUP BY would be a position.
        groups = [f"coalesce({group}, {group})" if group[0] in "0123456789-'" else group for group in groups]
        groups, kinds = groups[: len(set(groups))], kinds[: len(set(groups))]
        if len(set(groups)) != len(groups):
            groups, kinds = groups[:1], kinds[:1]
        items, item_families = [], []
        for family in families:
            items.append(self.aggregate(scope, family))
            item_families.append(family)
        shown = [f"{group} AS g{number}" for number, group in enumerate(groups)]
        select = shown + [f"{item} AS c{number}" for number, item in enumerate(items)]
        columns = [Column(f"g{number}", kind) for number, kind in enumerate(kinds)]
        columns += [Column(f"c{number}", family) for number, family in enumerate(item_families)]
        sets = bool(groups) and self.likely("sets")
        if sets and self.has("grouping()") and self.chance(0.4):
            select.append(f"grouping({self.pick(groups)}) AS gr")
            columns.append(Column("gr", "int"))
        clause = self.group_by(groups, sets) if groups else ""
        having = f" HAVING {self.having(scope, groups, kinds)}" if self.likely("having") else ""
        key = None if sets else list(range(len(groups)))
        sql = f"SELECT {', '.join(select)} FROM {source}{clause}{having}"
        return Query(sql, columns, key, wanted_from=len(groups))

    def group_by(self, groups: list[str], sets: bool) -> str:
        if not sets:
            by_position = self.chance(0.2)
            shown = [str(number + 1) for number in range(len(groups))] if by_position else groups
            return f" GROUP BY {', '.join(shown)}"
        shape = self.pick(["ROLLUP", "CUBE", "GROUPING SETS", "GROUPING SETS"])
        if shape != "GROUPING SETS":
            return f" GROUP BY {shape} ({', '.join(groups)})"
        some = lambda: ", ".join(self.rng.sample(groups, self.rng.randint(0, len(groups))))  # noqa: E731
        listed = [some() for _ in range(self.pick([1, 2, 3]))]
        # A group that is in no set would be unknown.
        listed.append(", ".join(groups))
        return f" GROUP BY GROUPING SETS ({', '.join(f'({one})' for one in listed)})"

    def having(self, scope: Scope, groups: list[str], kinds: list[str]) -> str:
        family = self.pick(ORDERED)
        left = self.aggregate(scope, family)
        right = self.constant(family)
        if self.subqueries_left > 0 and self.chance(0.3) and self.has("subqueries in having"):
            right = self.scalar_subquery(Scope([]), family)
        shape = self.rng.random()
        if shape < 0.2:
            return f"{left} IS {self.pick(['', 'NOT '])}NULL"
        if shape < 0.3 and groups:
            return f"{self.pick(groups)} IS NOT NULL AND {left} {self.pick(['=', '<', '>='])} {right}"
        return f"{left} {self.pick(['=', '<', '>', '<=', '>=', '<>'])} {right}"

    def aggregate(self, scope: Scope, family: str) -> str:
        """An aggregate that gives this family."""
        if self.subqueries_left and not self.has("subqueries in groups"):
            with self.without_subqueries():
                return self.aggregate(scope, family)
        of = lambda kind: self.own_value(scope, kind) if self.chance(0.7) else self.value(scope, kind, 1)  # noqa: E731
        options = []
        if family in SCALAR and family != "bool":
            options += [lambda: f"{self.pick(['min', 'max'])}({of(family)})"] * 3
        if family == "int":
            options += [lambda: "count(*)", lambda: f"count({of(self.pick(SCALAR))})"] * 2
            options += [lambda: f"count(DISTINCT {of(self.pick(SCALAR))})", lambda: f"sum({of('int')})"]
            options += [lambda: f"sum(DISTINCT {of('int')})"]
        if family in ("double", "decimal"):
            options += [lambda: f"sum({of(family)})"]
        if family == "double":
            options += [lambda: f"avg({of(self.pick(['int', 'double']))})"] * 2
            options += [lambda: f"{self.pick(['stddev', 'var_pop', 'var_samp'])}({of('int')})"]
            options += [lambda: f"median({of('double')})"] if self.has("median") else []
        if family == "text":
            options += [lambda: self.with_order("string_agg({0}, '|' ORDER BY {0})", of("text"))]
        if family == "bool":
            options += [lambda: f"{self.pick(['bool_and', 'bool_or'])}({of('bool')})"]
            options += [lambda: f"(count(*) > {self.pick([0, 1, 3])})"]
        if family == "ints":
            return self.with_order("array_agg({0} ORDER BY {0})", of("int"))
        if family == "pair":
            return f"first_value({of('pair')})"
        made = self.pick(options)()
        if self.chance(self.profile.get("filter", 0.1)) and made.endswith(")") and not made.startswith("("):
            with self.without_subqueries():
                made += f" FILTER (WHERE {self.predicate(scope, 1)})"
        return made

    @staticmethod
    def with_order(template: str, item: str) -> str:
        return template.format(item)

    def windowed(self, source: str, scope: Scope, families: list[str]) -> Query:
        """Window functions, over named windows if wanted."""
        names = []
        if self.likely("named windows"):
            names = [f"w{number}" for number in range(self.pick([1, 2]))]
        specs = [self.window_spec(scope) for _ in names]
        items = []
        for family in families:
            if self.chance(0.4):
                items.append(self.value(scope, family, 1))
            else:
                items.append(self.window(scope, family, list(zip(names, specs))))
        key = None
        if scope.key and all(ref.table for ref in scope.key):
            key = list(range(len(items), len(items) + len(scope.key)))
            items += [ref.qualified for ref in scope.key]
            families = families + [kin(ref.type) for ref in scope.key]
        select, columns = self.columns(items, families, scope)
        named = [f"{name} AS ({partition}{order and ' ' + order})" for name, (partition, order, _) in zip(names, specs)]
        tail = f" WINDOW {', '.join(named)}" if named else ""
        return Query(f"SELECT {select} FROM {source}{tail}", columns, key)

    def window_spec(self, scope: Scope) -> tuple[str, str, bool]:
        """PARTITION BY, ORDER BY, and whether that order is total."""
        partition = ""
        if self.chance(0.6):
            partition = "PARTITION BY " + ", ".join(
                self.own_value(scope, self.family_in(scope)) for _ in range(self.pick([1, 1, 2]))
            )
        if self.chance(0.2):
            return partition, "", False
        keys = [self.own_value(scope, self.family_in(scope)) for _ in range(self.pick([0, 1, 1]))]
        total = bool(scope.key) and self.chance(0.75)
        keys += [ref.qualified for ref in scope.key] if total else []
        directed = [f"{key}{self.direction()}" for key in keys]
        return partition, f"ORDER BY {', '.join(directed)}" if directed else "", total

    def direction(self) -> str:
        return self.pick(["", "", " ASC", " DESC"]) + self.pick(["", "", " NULLS FIRST", " NULLS LAST"])

    def window(self, scope: Scope, family: str, named) -> str:
        """One call with its window; only what ties cannot change."""
        name = None
        if named and self.chance(0.7):
            name, (partition, order, total) = self.pick(named)
        else:
            partition, order, total = self.window_spec(scope)
        call, frame = self.window_call(scope, family, order, total)
        refined = frame and name and self.has("refined windows")
        if name and (refined or not frame):
            over = f"({name} {frame})" if frame else name
        else:
            over = f"({' '.join(part for part in (partition, order, frame) if part)})"
        return f"{call} OVER {over}"

    def window_call(self, scope: Scope, family: str, order: str, total: bool) -> tuple[str, str]:
        value = lambda kind=family: self.own_value(scope, kind)  # noqa: E731
        ranks = ["rank()", "dense_rank()"] if order else []
        ranks += ["row_number()", "ntile(3)"] if total else []
        if family == "int" and ranks and self.chance(0.4):
            return self.pick(ranks), ""
        if total and self.chance(0.45):
            nulls = self.pick(["", "", " IGNORE NULLS"]) if self.has("ignore nulls") else ""
            function = self.pick(["lag", "lead", "first_value", "last_value", "nth_value"])
            nth = ", 2" if function == "nth_value" else self.pick(["", ", 2"]) if function in ("lag", "lead") else ""
            frame = self.pick(["", *FRAMES]) if function not in ("lag", "lead") else ""
            return f"{function}({value()}{nth}{nulls})", frame
        frame = ""
        if order and self.chance(0.5):
            frame = self.pick(FRAMES) if total else self.pick(RANGES if self.has("groups frames") else RANGES[:3])
        before, self.profile = self.profile, {**self.profile, "filter": self.profile.get("window filter", 0)}
        call = self.window_aggregate(scope, family)
        self.profile = before
        return call, frame

    def window_aggregate(self, scope: Scope, family: str) -> str:
        for _ in range(8):
            call = self.aggregate(scope, family)
            if "DISTINCT " not in call and "ORDER BY" not in call and not call.startswith(("(", "median")):
                return call
        return {"int": "count(*)", "bool": f"bool_or({self.own_value(scope, 'bool')})"}.get(
            family, f"max({self.own_value(scope, family)})"
        )

    def ordered(self, query: Query, always: bool = False) -> Query:
        """ORDER BY all columns, so that LIMIT cuts between rows that can be told apart."""
        if not (always or self.likely("order")) or any(family in ("ints", "pair") for family in query.families):
            return query
        positions = list(range(len(query.columns)))
        self.rng.shuffle(positions)
        shown = [f"{position + 1}{self.direction()}" for position in positions]
        sql = f"{query.sql} ORDER BY {', '.join(shown)}"
        if self.likely("limit"):
            limit = f" LIMIT {self.pick([0, 1, 2, 3, 5, 10, 100])}" if self.chance(0.9) else ""
            sql += limit + (f" OFFSET {self.pick([0, 1, 2, 4])}" if not limit or self.chance(0.4) else "")
        return Query(sql, query.columns, query.key, positions, query.wanted_from)

    def set_operation(self, depth: int = 1, families=None) -> Query:
        """UNION, INTERSECT and EXCEPT, with and without ALL, nested in brackets or by precedence."""
        columns = ["int", "int", "text", "double", "date", "decimal"]
        families = families or [self.pick(columns) for _ in range(self.pick([1, 2]))]
        sides = []
        for _ in range(self.pick([2, 2, 3])):
            if depth > 0 and self.chance(0.25):
                sides.append(f"({self.set_operation(depth - 1, families).sql})")
                continue
            side = self.select(families=families, joins=self.pick([0, 0, 1]))
            # What a side has beyond the wanted columns (its key, its groups) is taken off.
            if len(side.columns) > len(families):
                wanted = side.columns[side.wanted_from : side.wanted_from + len(families)]
                names = ", ".join(column.name for column in wanted)
                side.sql = f"SELECT {names} FROM ({side.sql}) {self.new_name('s')}"
            sides.append(f"({side.sql})" if " ORDER BY " in side.sql or self.chance(0.3) else side.sql)
        signs = ["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]
        signs += ["INTERSECT ALL", "EXCEPT ALL"] if self.has("intersect all and except all") else []
        text = sides[0]
        for side in sides[1:]:
            text += f" {self.pick(signs)} {side}"
        columns = [Column(f"c{number}", family) for number, family in enumerate(families)]
        names = ", ".join(column.name for column in columns)
        return Query(f"SELECT * FROM ({text}) {self.new_name('u')}({names})", columns)

    def with_common(self, make) -> Query:
        """WITH one or two tables, which the query made by `make` may read."""
        before, self.common = self.common, []
        parts = []
        for _ in range(self.pick([1, 2])):
            name = self.new_name("cte")
            query = self.select(joins=self.pick([0, 1]))
            self.common.append((name, query))
            parts.append(f"{name} AS ({query.sql})")
        query = make()
        self.common = before
        return Query(f"WITH {', '.join(parts)} {query.sql}", query.columns, query.key, query.order)

    def new_name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    @staticmethod
    def scope_of(alias: str, query: Query) -> Scope:
        return Scope([Ref(alias, column.name, column.type) for column in query.columns])
