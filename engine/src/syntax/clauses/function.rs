//! Calls of functions, with what may stand in and behind their parentheses.

use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, HavingBound, ListAggOnOverflow, ObjectName, Value, WindowFrame, WindowFrameBound, WindowSpec,
    WindowType,
};

use super::Clauses;
use crate::error::{Error, Result};

/// Planned as a scalar function is, though it is none.
const UNNESTS: &[&str] = &["unnest", "unnest_outer"];

impl Clauses<'_> {
    pub(super) fn function(&mut self, function: &mut Function) -> Result<()> {
        let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } =
            function;
        self.seen_name(name);
        let place = self.at;
        match parameters {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(_) | FunctionArguments::List(_) => {
                return Err(self.refuse_here(&format!("{name}(...)(...)")));
            }
        }
        let called = name.to_string().to_lowercase();
        let is_scalar = UNNESTS.contains(&called.as_str()) || (self.is_scalar)(&called);
        if is_scalar {
            let extra = [
                ("FILTER", filter.is_some()),
                ("OVER", over.is_some()),
                ("WITHIN GROUP", !within_group.is_empty()),
                ("IGNORE NULLS or RESPECT NULLS", null_treatment.is_some()),
            ];
            if let Some((clause, _)) = extra.iter().find(|(_, given)| *given) {
                return Err(self.of_aggregates(name, clause));
            }
        }
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(_) => {
                let error = self.refuse_here(&format!("a query between the parentheses of {name}"));
                return Err(error.with_hint("put the query into parentheses of its own"));
            }
            FunctionArguments::List(list) => self.arguments(name, is_scalar, list)?,
        }
        if matches!(called.as_str(), "date_format" | "to_char") {
            self.date_pattern(&called, args)?;
        }
        if let Some(filter) = filter {
            self.expression(filter)?;
        }
        self.order_exprs(within_group)?;
        if let Some(window) = over {
            self.at = place;
            self.over(window)?;
        }
        Ok(())
    }

    /// A pattern with letters and without `%` is Java's or PostgreSQL's, and would come back as it is.
    fn date_pattern(&mut self, name: &str, args: &FunctionArguments) -> Result<()> {
        let FunctionArguments::List(FunctionArgumentList { args, .. }) = args else { return Ok(()) };
        let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(pattern)))) = args.get(1) else {
            return Ok(());
        };
        let Value::SingleQuotedString(text) = &pattern.value else { return Ok(()) };
        // Formats of durations.
        let of_durations = ["pretty", "iso8601"].iter().any(|format| text.eq_ignore_ascii_case(format));
        if text.contains('%') || of_durations || !text.chars().any(|letter| letter.is_ascii_alphabetic()) {
            return Ok(());
        }
        self.seen(pattern.span);
        let error = self.wrong(format!("{name}: '{text}' has no field that is known"));
        Err(error.with_hint("fields are those of strftime: '%Y-%m-%d %H:%M:%S'"))
    }

    fn of_aggregates(&self, name: &ObjectName, clause: &str) -> Error {
        self.wrong(format!("{name} is no aggregate function and takes no {clause}"))
    }

    fn arguments(&mut self, name: &ObjectName, is_scalar: bool, list: &mut FunctionArgumentList) -> Result<()> {
        let FunctionArgumentList { duplicate_treatment, args, clauses } = list;
        let distinct = match duplicate_treatment {
            Some(DuplicateTreatment::Distinct) => true,
            Some(DuplicateTreatment::All) | None => false,
        };
        if distinct && is_scalar {
            return Err(self.of_aggregates(name, "DISTINCT"));
        }
        if !is_scalar {
            self.treatment_of_last(args, clauses);
        }
        for arg in args {
            if distinct && is_wildcard(arg) {
                let error = self.refuse_here(&format!("{name}(DISTINCT *)"));
                return Err(error.with_hint("SELECT count(*) FROM (SELECT DISTINCT * FROM ...)"));
            }
            if !is_scalar && is_wildcard(arg) && !name.to_string().eq_ignore_ascii_case("count") {
                return Err(self.refuse_here(&format!("{name}(*)")));
            }
            if self.joined && matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(_))) {
                let error = self.refuse_here(&format!("{name}({arg}) over a join"));
                return Err(error.with_hint("count a column of the table that is never NULL"));
            }
            match arg {
                FunctionArg::Unnamed(arg) => self.argument(arg)?,
                FunctionArg::Named { name: _, arg, operator: _ } => self.argument(arg)?,
                FunctionArg::ExprNamed { name, arg, operator: _ } => {
                    self.expression(name)?;
                    self.argument(arg)?;
                }
            }
        }
        for clause in clauses {
            match clause {
                FunctionArgumentClause::IgnoreOrRespectNulls(_) if is_scalar => {
                    return Err(self.of_aggregates(name, "IGNORE NULLS or RESPECT NULLS"));
                }
                FunctionArgumentClause::OrderBy(_) if is_scalar => return Err(self.of_aggregates(name, "ORDER BY")),
                FunctionArgumentClause::IgnoreOrRespectNulls(_) => {}
                FunctionArgumentClause::OrderBy(exprs) => self.order_exprs(exprs)?,
                FunctionArgumentClause::Limit(_) => return Err(self.in_call(name, "LIMIT")),
                FunctionArgumentClause::OnOverflow(
                    ListAggOnOverflow::Error | ListAggOnOverflow::Truncate { filler: _, with_count: _ },
                ) => return Err(self.in_call(name, "ON OVERFLOW")),
                FunctionArgumentClause::Having(HavingBound(_, _)) => return Err(self.in_call(name, "HAVING")),
                FunctionArgumentClause::Separator(_) => return Err(self.in_call(name, "SEPARATOR")),
                FunctionArgumentClause::JsonNullClause(_) => return Err(self.in_call(name, "NULL ON NULL")),
                FunctionArgumentClause::JsonReturningClause(_) => return Err(self.in_call(name, "RETURNING")),
            }
        }
        Ok(())
    }

    /// The parser gives `lag(upper(a) IGNORE NULLS)` its IGNORE NULLS to `upper`, which has no use for it.
    fn treatment_of_last(&self, args: &mut [FunctionArg], clauses: &mut Vec<FunctionArgumentClause>) {
        let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(last)))) = args.last_mut() else { return };
        if last.over.is_none() && (self.is_scalar)(&last.name.to_string().to_lowercase()) {
            clauses.extend(last.null_treatment.take().map(FunctionArgumentClause::IgnoreOrRespectNulls));
        }
    }

    fn in_call(&self, name: &ObjectName, clause: &str) -> Error {
        self.refuse_here(&format!("{clause} in the parentheses of {name}"))
    }

    pub(super) fn argument(&mut self, arg: &mut FunctionArgExpr) -> Result<()> {
        match arg {
            FunctionArgExpr::Expr(expr) => self.expression(expr),
            FunctionArgExpr::Wildcard => Ok(()),
            FunctionArgExpr::QualifiedWildcard(name) => {
                self.seen_name(name);
                Ok(())
            }
            FunctionArgExpr::WildcardWithOptions(options) => {
                self.wildcard(options)?;
                Err(self.refuse_here("what follows * in the parentheses of a function"))
            }
        }
    }

    /// Puts the window that is named in its place.
    fn over(&mut self, window: &mut WindowType) -> Result<()> {
        match window {
            WindowType::NamedWindow(name) => {
                self.seen_ident(name);
                let named = self.windows.last().map(|windows| windows.get(name).cloned());
                let named = named.unwrap_or_else(|| Err(Error::invalid(format!("there is no window `{name}`"))));
                *window = WindowType::WindowSpec(named.map_err(|error| self.placed(error))?);
                Ok(())
            }
            WindowType::WindowSpec(spec) => {
                if let Some(windows) = self.windows.last() {
                    windows.refine(spec).map_err(|error| self.placed(error))?;
                } else if let Some(name) = &spec.window_name {
                    return Err(self.wrong(format!("there is no window `{name}`")));
                }
                self.window(spec)
            }
        }
    }

    pub(super) fn window(&mut self, window: &mut WindowSpec) -> Result<()> {
        // What it refines has been put in its place.
        let WindowSpec { window_name: _, partition_by, order_by, window_frame } = window;
        self.expressions(partition_by)?;
        self.order_exprs(order_by)?;
        let Some(WindowFrame { units: _, start_bound, end_bound }) = window_frame else { return Ok(()) };
        [Some(start_bound), end_bound.as_mut()].into_iter().flatten().try_for_each(|bound| match bound {
            WindowFrameBound::CurrentRow => Ok(()),
            WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance) => {
                distance.as_mut().map_or(Ok(()), |distance: &mut Box<Expr>| self.expression(distance))
            }
        })
    }
}

fn is_wildcard(arg: &FunctionArg) -> bool {
    let (FunctionArg::Unnamed(arg) | FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. }) = arg;
    match arg {
        FunctionArgExpr::Expr(_) => false,
        FunctionArgExpr::Wildcard | FunctionArgExpr::QualifiedWildcard(_) | FunctionArgExpr::WildcardWithOptions(_) => {
            true
        }
    }
}
