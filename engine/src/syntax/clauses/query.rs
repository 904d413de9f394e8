//! Queries: WITH, set operations, ORDER BY, LIMIT, and what may follow them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, ExprWithAlias, ExprWithAliasAndOrderBy, Fetch, Ident, Interpolate, LimitClause, Offset, OrderBy,
    OrderByExpr, OrderByKind, OrderByOptions, PipeOperator, Query, SelectItem, SetExpr, SetOperator, SetQuantifier,
    Top, TopQuantity, Value, Values, With, visit_relations,
};

use super::Clauses;
use crate::error::{Error, Result};
use crate::syntax::numbers;
use crate::syntax::windows::Windows;

impl Clauses<'_> {
    pub(super) fn query(&mut self, query: &mut Query) -> Result<()> {
        let (from, joined) = (self.from, self.joined);
        let walked = self.deeper(|walk| walk.query_parts(query));
        (self.from, self.joined) = (from, joined);
        walked
    }

    fn query_parts(&mut self, query: &mut Query) -> Result<()> {
        take_top(query);
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        self.empty("FOR UPDATE", locks)?;
        self.none("FOR", for_clause)?;
        self.none("SETTINGS", settings)?;
        self.none("FORMAT", format_clause)?;
        if let Some(with) = with {
            self.with(with)?;
        }
        let windows = self.set_expr(body)?;
        self.windows.push(windows);
        let ordered = order_by.as_mut().map_or(Ok(()), |order_by| self.order_by(order_by, body));
        self.windows.pop();
        ordered?;
        if let Some(fetch) = fetch.take() {
            self.fetch(fetch, limit_clause)?;
        }
        if let Some(limit) = limit_clause {
            self.limit(limit)?;
        }
        pipe_operators.iter_mut().try_for_each(|operator| self.pipe(operator))
    }

    fn with(&mut self, with: &mut With) -> Result<()> {
        let With { with_token, recursive, cte_tables } = with;
        self.seen(with_token.0.span);
        for table in cte_tables {
            let Cte { alias, query, from, materialized: _, closing_paren_token: _ } = table;
            self.seen_ident(&alias.name);
            self.from = self.at;
            self.alias(alias)?;
            self.none("FROM", from)?;
            if *recursive {
                self.recursive(&alias.name, query)?;
            }
            self.query(query)?;
        }
        Ok(())
    }

    /// Of a union under WITH RECURSIVE the planner reads the two sides alone. One that does not name itself is no recursion,
    /// and is planned as any other query when it stands in parentheses.
    fn recursive(&self, name: &Ident, query: &mut Query) -> Result<()> {
        if !matches!(query.body.as_ref(), SetExpr::SetOperation { op: SetOperator::Union, .. }) {
            return Ok(());
        }
        let clause = match query {
            Query { limit_clause: Some(_), .. } => "LIMIT",
            Query { fetch: Some(_), .. } => "FETCH",
            Query { order_by: Some(_), .. } => "ORDER BY",
            Query { with: Some(_), .. } => "WITH",
            Query { pipe_operators, .. } if !pipe_operators.is_empty() => "|>",
            _ => return Ok(()),
        };
        if reads(query, name) {
            return Err(Error::invalid(format!("{clause} in the recursive query `{name}` is not supported"))
                .at_offset(self.offset(self.at))
                .with_hint(format!("say it where `{name}` is read")));
        }
        let whole = std::mem::replace(query, bare(SetExpr::Values(no_values())));
        *query = bare(SetExpr::Query(Box::new(whole)));
        Ok(())
    }

    /// Gives the windows that a SELECT names, which the ORDER BY of its query may use.
    fn set_expr(&mut self, body: &mut SetExpr) -> Result<Windows> {
        // Unions grow to the left.
        let mut body = body;
        let mut alone = true;
        loop {
            match body {
                SetExpr::SetOperation { left, op: _, set_quantifier: _, right } => {
                    alone = false;
                    self.deeper(|walk| walk.set_expr(right).map(drop))?;
                    body = left;
                }
                SetExpr::Select(select) => {
                    let windows = self.select(select)?;
                    return Ok(if alone { windows } else { Windows::default() });
                }
                SetExpr::Query(query) => return self.query(query).map(|()| Windows::default()),
                SetExpr::Values(values) => return self.values(values).map(|()| Windows::default()),
                SetExpr::Insert(_) => return Err(self.refuse("INSERT")),
                SetExpr::Update(_) => return Err(self.refuse("UPDATE")),
                SetExpr::Delete(_) => return Err(self.refuse("DELETE")),
                SetExpr::Merge(_) => return Err(self.refuse("MERGE")),
                SetExpr::Table(_) => return Err(self.refuse("TABLE")),
            }
        }
    }

    fn values(&mut self, values: &mut Values) -> Result<()> {
        let Values { explicit_row: _, value_keyword, rows } = values;
        self.not("VALUE", *value_keyword)?;
        for row in rows.iter_mut() {
            self.seen(row.opening_token.0.span);
            self.expressions(&mut row.content)?;
        }
        numbers::settle_columns(rows.iter_mut().map(|row| &mut row.content));
        Ok(())
    }

    fn order_by(&mut self, order_by: &mut OrderBy, body: &SetExpr) -> Result<()> {
        let OrderBy { kind, interpolate } = order_by;
        // Dialects without it take ALL for a column.
        if let OrderByKind::Expressions(exprs) = kind
            && let [OrderByExpr { expr: Expr::Identifier(name), options, with_fill: None }] = exprs.as_slice()
            && name.quote_style.is_none()
            && name.value.eq_ignore_ascii_case("all")
        {
            *kind = OrderByKind::All(*options);
        }
        let Some(Interpolate { exprs: _ }) = interpolate else {
            return match kind {
                OrderByKind::Expressions(exprs) => self.order_exprs(exprs),
                OrderByKind::All(options) => {
                    if let Some(positions) = all_positions(body, *options) {
                        *kind = OrderByKind::Expressions(positions);
                    } else if !matches!(body, SetExpr::Select(_)) {
                        return Err(self.refuse("ORDER BY ALL").with_hint("name the columns"));
                    }
                    Ok(())
                }
            };
        };
        Err(self.refuse("INTERPOLATE"))
    }

    pub(super) fn order_exprs(&mut self, exprs: &mut [OrderByExpr]) -> Result<()> {
        exprs.iter_mut().try_for_each(|expr| {
            let OrderByExpr { expr, options: OrderByOptions { asc: _, nulls_first: _ }, with_fill } = expr;
            self.none("WITH FILL", with_fill)?;
            self.expression(expr)
        })
    }

    fn fetch(&mut self, fetch: Fetch, limit: &mut Option<LimitClause>) -> Result<()> {
        let Fetch { with_ties, percent, quantity } = fetch;
        self.not("WITH TIES", with_ties)?;
        self.not("PERCENT", percent)?;
        let rows = quantity.unwrap_or_else(|| number(1));
        match limit {
            None => *limit = Some(limited(rows)),
            Some(LimitClause::LimitOffset { limit: limit @ None, offset: _, limit_by: _ }) => *limit = Some(rows),
            Some(_) => return Err(self.refuse("FETCH").with_hint("there is a LIMIT already")),
        }
        Ok(())
    }

    fn limit(&mut self, limit: &mut LimitClause) -> Result<()> {
        match limit {
            LimitClause::LimitOffset { limit, offset, limit_by } => {
                if let Some(by) = limit_by.first_mut() {
                    self.expression(by)?;
                    return Err(self
                        .refuse_here("LIMIT BY")
                        .with_hint("QUALIFY row_number() OVER (PARTITION BY ...) <= n"));
                }
                if let Some(limit) = limit {
                    self.expression(limit)?;
                }
                match offset {
                    Some(Offset { value, rows: _ }) => self.expression(value),
                    None => Ok(()),
                }
            }
            LimitClause::OffsetCommaLimit { offset, limit } => {
                self.expression(offset)?;
                self.expression(limit)
            }
        }
    }

    fn pipe(&mut self, operator: &mut PipeOperator) -> Result<()> {
        match operator {
            PipeOperator::Limit { expr, offset } => {
                self.expression(expr)?;
                offset.as_mut().map_or(Ok(()), |offset| self.expression(offset))
            }
            PipeOperator::Where { expr } => self.expression(expr),
            PipeOperator::OrderBy { exprs } => self.order_exprs(exprs),
            PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => self.items(exprs),
            PipeOperator::As { alias } => {
                self.seen_ident(alias);
                Ok(())
            }
            PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
                full_table_exprs.iter_mut().chain(group_by_expr).try_for_each(|expr| {
                    let ExprWithAliasAndOrderBy { expr: ExprWithAlias { expr, alias: _ }, order_by } = expr;
                    let OrderByOptions { asc, nulls_first } = order_by;
                    self.expression(expr)?;
                    if asc.is_some() || nulls_first.is_some() {
                        return Err(self.refuse_here("an order in AGGREGATE").with_hint("add |> ORDER BY"));
                    }
                    Ok(())
                })
            }
            PipeOperator::Union { set_quantifier: _, queries }
            | PipeOperator::Intersect { set_quantifier: _, queries }
            | PipeOperator::Except { set_quantifier: _, queries } => {
                queries.iter_mut().try_for_each(|query| self.query(query))
            }
            PipeOperator::Join(join) => self.join(join),
            PipeOperator::Set { assignments: _ } => Err(self.refuse("SET")),
            PipeOperator::Drop { columns: _ } => Err(self.refuse("DROP")),
            PipeOperator::TableSample { sample: _ } => Err(self.refuse("TABLESAMPLE")),
            PipeOperator::Rename { mappings: _ } => Err(self.refuse("RENAME")),
            PipeOperator::Call { function: _, alias: _ } => Err(self.refuse("CALL")),
            PipeOperator::Pivot { aggregate_functions: _, value_column: _, value_source: _, alias: _ } => {
                Err(self.refuse("PIVOT"))
            }
            PipeOperator::Unpivot { value_column: _, name_column: _, unpivot_columns: _, alias: _ } => {
                Err(self.refuse("UNPIVOT"))
            }
        }
    }
}

/// `SELECT TOP 5 ...` is `SELECT ... LIMIT 5`.
fn take_top(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let free = query.limit_clause.is_none() && query.fetch.is_none();
    if let Some(Top { with_ties: false, percent: false, quantity: Some(quantity) }) = &select.top
        && free
    {
        let rows = match quantity {
            TopQuantity::Expr(rows) => rows.clone(),
            TopQuantity::Constant(rows) => number(*rows),
        };
        query.limit_clause = Some(limited(rows));
        select.top = None;
    }
}

fn limited(rows: Expr) -> LimitClause {
    LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by: Vec::new() }
}

fn number(value: u64) -> Expr {
    Expr::value(Value::Number(value.to_string(), false))
}

/// `ORDER BY ALL` by position, where the select list says how many columns there are.
fn all_positions(body: &SetExpr, options: OrderByOptions) -> Option<Vec<OrderByExpr>> {
    let columns = match body {
        SetExpr::Select(select) => {
            let counts =
                |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            select.projection.iter().all(counts).then_some(select.projection.len())
        }
        SetExpr::SetOperation { left, set_quantifier, .. } => {
            let by_name = [SetQuantifier::ByName, SetQuantifier::AllByName, SetQuantifier::DistinctByName];
            if by_name.contains(set_quantifier) {
                return None;
            }
            return all_positions(left, options);
        }
        SetExpr::Query(query) => return all_positions(&query.body, options),
        SetExpr::Values(values) => values.rows.first().map(|row| row.content.len()),
        _ => None,
    }?;
    let by = |position: usize| OrderByExpr { expr: number(position as u64), options, with_fill: None };
    Some((1..=columns).map(by).collect())
}

/// Whether a query reads a table of this name.
fn reads(query: &Query, name: &Ident) -> bool {
    let found = visit_relations(query, |relation| match relation.0.as_slice() {
        [part] if part.as_ident().is_some_and(|ident| ident.value.eq_ignore_ascii_case(&name.value)) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

fn bare(body: SetExpr) -> Query {
    Query {
        with: None,
        body: Box::new(body),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

fn no_values() -> Values {
    Values { explicit_row: false, value_keyword: false, rows: Vec::new() }
}
