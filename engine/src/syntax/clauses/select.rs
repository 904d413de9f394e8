//! One SELECT, its list and its groups.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ConnectByKind, Distinct, Expr, GroupByExpr, GroupByWithModifier, ReplaceSelectElement,
    ReplaceSelectItem, Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SelectModifiers, Value,
    ValueWithSpan, WildcardAdditionalOptions,
};

use super::Clauses;
use crate::error::{Error, Result};
use crate::syntax::windows::Windows;

impl Clauses<'_> {
    /// Gives the windows that it names.
    pub(super) fn select(&mut self, select: &mut Select) -> Result<Windows> {
        let Select {
            select_token,
            // Hints change no rows.
            optimizer_hints: _,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            // The planner deals rows out by them.
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        self.seen(select_token.0.span);
        self.from = self.at;
        self.modifiers(select_modifiers)?;
        self.none("TOP", top)?;
        self.none("EXCLUDE", exclude)?;
        self.none("INTO", into).map_err(|error| error.with_hint("CREATE TABLE name AS SELECT ... makes a table"))?;
        let views = self.empty("LATERAL VIEW", lateral_views);
        views.map_err(|error| error.with_hint("unnest(...) in the select list, or CROSS JOIN UNNEST(...)"))?;
        self.connect_by(connect_by)?;
        self.empty("CLUSTER BY", cluster_by)?;
        self.empty("SORT BY", sort_by)?;
        if value_table_mode.is_some() {
            return Err(self.refuse("SELECT AS"));
        }
        match flavor {
            SelectFlavor::Standard | SelectFlavor::FromFirst => {}
            SelectFlavor::FromFirstNoSelect => {
                projection.push(SelectItem::Wildcard(WildcardAdditionalOptions::default()));
                *flavor = SelectFlavor::FromFirst;
            }
        }

        from.iter_mut().try_for_each(|tables| self.tables(tables))?;
        self.joined = from.len() > 1 || from.iter().any(|tables| !tables.joins.is_empty());
        if let Some(first) = prewhere.take() {
            *selection = Some(match selection.take() {
                Some(then) => both(first, then),
                None => first,
            });
        }
        for condition in [selection, having].into_iter().flatten() {
            self.expression(condition)?;
        }
        self.expressions(distribute_by)?;
        self.group_by(group_by, projection)?;

        let mut windows = Windows::default();
        for definition in std::mem::take(named_window) {
            self.seen_ident(&definition.0);
            windows.define(definition).map_err(|error| error.at_offset(self.offset(self.at)))?;
        }
        windows.specs_mut().try_for_each(|window| self.window(window))?;
        self.windows.push(windows);
        let walked = self.select_list(distinct, projection, qualify);
        let windows = self.windows.pop().unwrap_or_default();
        walked.map(|()| windows)
    }

    fn select_list(
        &mut self,
        distinct: &mut Option<Distinct>,
        projection: &mut [SelectItem],
        qualify: &mut Option<Expr>,
    ) -> Result<()> {
        match distinct {
            None | Some(Distinct::All | Distinct::Distinct) => {}
            Some(Distinct::On(exprs)) => self.distinct_on(exprs)?,
        }
        self.items(projection)?;
        qualify.as_mut().map_or(Ok(()), |qualify| self.expression(qualify))
    }

    /// The planner replaces it with an aggregate that it does not find while it prepares a statement (DataFusion 55.2).
    fn distinct_on(&mut self, exprs: &mut [Expr]) -> Result<()> {
        if self.prepared {
            return Err(self.refuse("DISTINCT ON").with_hint("PREPARE takes no DISTINCT ON; SELECT does"));
        }
        self.expressions(exprs)
    }

    fn modifiers(&self, modifiers: &Option<SelectModifiers>) -> Result<()> {
        let Some(modifiers) = modifiers else { return Ok(()) };
        let SelectModifiers {
            high_priority,
            straight_join,
            sql_small_result,
            sql_big_result,
            sql_buffer_result,
            sql_no_cache,
            sql_calc_found_rows,
        } = modifiers;
        self.not("HIGH_PRIORITY", *high_priority)?;
        self.not("STRAIGHT_JOIN", *straight_join)?;
        self.not("SQL_SMALL_RESULT", *sql_small_result)?;
        self.not("SQL_BIG_RESULT", *sql_big_result)?;
        self.not("SQL_BUFFER_RESULT", *sql_buffer_result)?;
        self.not("SQL_NO_CACHE", *sql_no_cache)?;
        self.not("SQL_CALC_FOUND_ROWS", *sql_calc_found_rows)
    }

    fn connect_by(&self, connect_by: &[ConnectByKind]) -> Result<()> {
        let clause = match connect_by.first() {
            None => return Ok(()),
            Some(ConnectByKind::ConnectBy { connect_token: _, nocycle: _, relationships: _ }) => "CONNECT BY",
            Some(ConnectByKind::StartWith { start_token: _, condition: _ }) => "START WITH",
        };
        Err(self.refuse(clause).with_hint("WITH RECURSIVE does this"))
    }

    /// `GROUP BY a, b WITH ROLLUP` is `GROUP BY ROLLUP (a, b)`.
    fn group_by(&mut self, group_by: &mut GroupByExpr, list: &[SelectItem]) -> Result<()> {
        let modifiers = match group_by {
            GroupByExpr::All(modifiers) if modifiers.is_empty() => return Ok(()),
            GroupByExpr::All(_) => {
                return Err(self
                    .refuse("GROUP BY ALL")
                    .with_hint("name the columns before WITH ROLLUP, CUBE or TOTALS"));
            }
            GroupByExpr::Expressions(exprs, modifiers) => {
                for expr in exprs.iter_mut() {
                    match expr {
                        Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => {
                            sets.iter_mut().flatten().for_each(|expr| by_position(expr, list));
                        }
                        expr if !modifiers.is_empty() => by_position(expr, list),
                        _ => {}
                    }
                }
                self.expressions(exprs)?;
                std::mem::take(modifiers)
            }
        };
        let GroupByExpr::Expressions(exprs, _) = group_by else { return Ok(()) };
        if modifiers.len() > 1 {
            return Err(self.wrong("GROUP BY takes one of WITH ROLLUP, WITH CUBE and WITH TOTALS"));
        }
        let Some(modifier) = modifiers.into_iter().next() else { return Ok(()) };
        let is_set = |expr: &Expr| matches!(expr, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_));
        if exprs.iter().any(is_set) {
            return Err(self.wrong("WITH ROLLUP, CUBE or TOTALS cannot follow ROLLUP, CUBE or GROUPING SETS"));
        }
        let columns = std::mem::take(exprs);
        let each = |columns: Vec<Expr>| columns.into_iter().map(|column| vec![column]).collect();
        *exprs = vec![match modifier {
            GroupByWithModifier::Rollup => Expr::Rollup(each(columns)),
            GroupByWithModifier::Cube => Expr::Cube(each(columns)),
            GroupByWithModifier::Totals => Expr::GroupingSets(vec![columns, Vec::new()]),
            GroupByWithModifier::GroupingSets(mut sets) => {
                self.expression(&mut sets)?;
                exprs.extend(columns);
                exprs.push(sets);
                return Ok(());
            }
        }];
        Ok(())
    }

    pub(super) fn items(&mut self, items: &mut [SelectItem]) -> Result<()> {
        items.iter_mut().try_for_each(|item| match item {
            SelectItem::UnnamedExpr(expr) => self.expression(expr),
            SelectItem::ExprWithAlias { expr, alias } => {
                self.expression(expr)?;
                self.seen_ident(alias);
                Ok(())
            }
            SelectItem::ExprWithAliases { expr, aliases: _ } => {
                self.expression(expr)?;
                Err(self.refuse_here("several names for one expression"))
            }
            SelectItem::QualifiedWildcard(kind, options) => {
                match kind {
                    SelectItemQualifiedWildcardKind::ObjectName(name) => self.seen_name(name),
                    SelectItemQualifiedWildcardKind::Expr(expr) => {
                        self.expression(expr)?;
                        return Err(self.refuse_here("the fields of an expression by .*"));
                    }
                }
                self.wildcard(options)
            }
            SelectItem::Wildcard(options) => self.wildcard(options),
        })
    }

    pub(super) fn wildcard(&mut self, options: &mut WildcardAdditionalOptions) -> Result<()> {
        let WildcardAdditionalOptions {
            wildcard_token: AttachedToken(token),
            opt_ilike: _,
            opt_exclude: _,
            opt_except: _,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        self.seen(token.span);
        self.none("RENAME", opt_rename)?;
        if opt_alias.is_some() {
            return Err(self.refuse_here("a name for *"));
        }
        let Some(ReplaceSelectItem { items }) = opt_replace else { return Ok(()) };
        items.iter_mut().try_for_each(|item| {
            let ReplaceSelectElement { expr, column_name: _, as_keyword: _ } = item.as_mut();
            self.expression(expr)
        })
    }
}

/// The planner knows positions in the select list outside of ROLLUP, CUBE and GROUPING SETS alone.
fn by_position(expr: &mut Expr, list: &[SelectItem]) {
    let Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) = &*expr else { return };
    let Some(before) = digits.parse::<usize>().ok().and_then(|position| list.get(..position)) else { return };
    let is_one = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    if let Some(SelectItem::UnnamedExpr(column) | SelectItem::ExprWithAlias { expr: column, .. }) = before.last()
        && before.iter().all(is_one)
    {
        *expr = column.clone();
    }
}

fn both(left: Expr, right: Expr) -> Expr {
    let nested = |expr: Expr| Box::new(Expr::Nested(Box::new(expr)));
    Expr::BinaryOp { left: nested(left), op: BinaryOperator::And, right: nested(right) }
}

impl Clauses<'_> {
    /// An error at what has been seen last, unless it has a place.
    pub(super) fn placed(&self, error: Error) -> Error {
        error.at_offset(self.offset(self.at))
    }
}
