//! Spellings of BigQuery's SQL that mean nothing else in standard SQL, in every dialect: `IF(c, a, b)`, `MOD(a, b)`,
//! `SAFE_DIVIDE(a, b)`, `COUNTIF(c)`, a table's whole name in one pair of backticks (`` `d.t` ``), and
//! `UNNEST(array) AS p`, whose elements are called `p`, so that a field of theirs is `p.field`.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, Statement, TableAliasColumnDef,
    TableFactor, Value, VisitMut, VisitorMut,
};

use crate::source::looks_like_files;

/// Rewrites the names and aliases of tables in the statement; calls are rewritten where field accesses are. `is_table` tells whether there is a table of exactly that name.
pub(crate) fn resolve_in(statement: &mut SqlStatement, is_table: &dyn Fn(&str) -> bool) {
    match statement {
        SqlStatement::Statement(statement) => {
            let mut spellings = Spellings { is_table };
            // Names that are none of relations yet, or no longer, are not visited as such.
            match statement.as_mut() {
                Statement::CreateView(view) => spellings.name(&mut view.name),
                Statement::Drop { names, .. } => names.iter_mut().for_each(|name| spellings.name(name)),
                _ => {}
            }
            let _ = statement.as_mut().visit(&mut spellings);
        }
        SqlStatement::Explain(explain) => resolve_in(&mut explain.statement, is_table),
        _ => {}
    }
}

struct Spellings<'a> {
    is_table: &'a dyn Fn(&str) -> bool,
}

impl VisitorMut for Spellings<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        self.name(relation);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::UNNEST { alias: Some(alias), array_exprs, .. } = factor
            && alias.columns.is_empty()
            && array_exprs.len() == 1
        {
            alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
        }
        ControlFlow::Continue(())
    }
}

impl Spellings<'_> {
    fn name(&self, name: &mut ObjectName) {
        let parts: Option<Vec<Ident>> = name.0.iter().map(|part| part.as_ident().cloned()).collect();
        let Some(parts) = parts else { return };
        let is_quoted = |ident: &Ident| ident.quote_style.is_some();
        if let [first, _, ..] = parts.as_slice()
            && parts.iter().all(is_quoted)
        {
            // The dialect of that name cuts a file's name at its dots.
            let whole = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
            if looks_like_files(&whole) && parts.iter().all(|part| part.span == first.span) {
                let ident = Ident { value: whole, ..first.clone() };
                name.0 = vec![ObjectNamePart::Identifier(ident)];
            }
            return;
        }
        let in_backticks = |part: &Ident| {
            part.quote_style == Some('`')
                && part.value.contains('.')
                && part.value.split('.').all(|word| !word.is_empty())
                && !looks_like_files(&part.value)
                && !(self.is_table)(&part.value)
        };
        let cut = |part: &Ident| -> Vec<ObjectNamePart> {
            if !in_backticks(part) {
                return vec![ObjectNamePart::Identifier(part.clone())];
            }
            let words = part.value.split('.');
            words.map(|word| ObjectNamePart::Identifier(Ident { value: word.to_string(), ..part.clone() })).collect()
        };
        name.0 = parts.iter().flat_map(cut).collect();
    }
}

/// Rewrites one call; its arguments are left as they are.
pub(crate) fn respell(expr: &mut Expr) {
    let Expr::Function(call) = expr else { return };
    let Some(name) = plain_name(call) else { return };
    let Some(arguments) = arguments(call) else { return };
    let nested = |expr: &Expr| Box::new(Expr::Nested(Box::new(expr.clone())));
    match (name.as_str(), arguments.as_slice()) {
        ("IF", [condition, then, otherwise]) if is_bare(call) => {
            *expr = case(condition, then.clone(), Some(Box::new(otherwise.clone())));
        }
        ("MOD", [left, right]) if is_bare(call) => {
            *expr = Expr::BinaryOp { left: nested(left), op: BinaryOperator::Modulo, right: nested(right) };
        }
        ("SAFE_DIVIDE", [left, right]) if is_bare(call) => {
            let left = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(left.clone()),
                data_type: DataType::Double(ExactNumberInfo::None),
                array: false,
                format: None,
            };
            let right = nullif_zero(call, right);
            *expr = Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Divide, right: Box::new(right) };
        }
        ("COUNTIF", [condition]) => {
            let one = Expr::value(Value::Number("1".into(), false));
            let counted = case(condition, one, None);
            call.name = ObjectName::from(vec![Ident::new("count")]);
            if let FunctionArguments::List(list) = &mut call.args {
                list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(counted))];
            }
        }
        _ => {}
    }
}

/// The name of a call without quotes and schema, upper case.
fn plain_name(call: &Function) -> Option<String> {
    match call.name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_none() => Some(ident.value.to_uppercase()),
        _ => None,
    }
}

fn arguments(call: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let expr = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(expr).collect()
}

/// Whether nothing stands with the call that belongs to aggregates and windows alone.
fn is_bare(call: &Function) -> bool {
    let of_values = matches!(&call.args, FunctionArguments::List(list)
        if list.duplicate_treatment.is_none() && list.clauses.is_empty());
    of_values
        && call.over.is_none()
        && call.filter.is_none()
        && call.null_treatment.is_none()
        && call.within_group.is_empty()
}

fn case(condition: &Expr, result: Expr, else_result: Option<Box<Expr>>) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition: condition.clone(), result }],
        else_result,
    }
}

fn nullif_zero(call: &Function, divisor: &Expr) -> Expr {
    let argument = |expr: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let zero = Expr::value(Value::Number("0".into(), false));
    let mut nullif = call.clone();
    nullif.name = ObjectName::from(vec![Ident::new("nullif")]);
    nullif.args = FunctionArguments::List(FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![argument(divisor.clone()), argument(zero)],
        clauses: Vec::new(),
    });
    Expr::Function(nullif)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn spellings_become_standard_ones() {
        for (text, expected) in [
            ("SELECT IF(x > 1, 'a', 'b') FROM t", "SELECT CASE WHEN x > 1 THEN 'a' ELSE 'b' END FROM t"),
            ("SELECT if(a, if(b, 1, 2), 3)", "SELECT CASE WHEN a THEN CASE WHEN b THEN 1 ELSE 2 END ELSE 3 END"),
            ("SELECT MOD(x + 1, 2)", "SELECT (x + 1) % (2)"),
            ("SELECT SAFE_DIVIDE(a, b)", "SELECT CAST(a AS DOUBLE) / nullif(b, 0)"),
            ("SELECT COUNTIF(x > 1) OVER (ORDER BY y)", "SELECT count(CASE WHEN x > 1 THEN 1 END) OVER (ORDER BY y)"),
            ("SELECT \"IF\"(a, b, c), d.mod(1, 2), IF(a, b)", "SELECT \"IF\"(a, b, c), d.mod(1, 2), IF(a, b)"),
            ("SELECT * FROM `d.t`", "SELECT * FROM `d`.`t`"),
            ("SELECT `a.b` FROM `data/t.csv`, `x.csv`", "SELECT `a.b` FROM `data/t.csv`, `x.csv`"),
            ("CREATE VIEW `d.v` AS SELECT 1", "CREATE VIEW `d`.`v` AS SELECT 1"),
            ("DROP TABLE `d.t`", "DROP TABLE `d`.`t`"),
            ("SELECT * FROM `known.t`", "SELECT * FROM `known.t`"),
            ("SELECT p.q FROM UNNEST(a) AS p", "SELECT p.q FROM UNNEST(a) AS p (p)"),
            ("SELECT v FROM UNNEST(a) AS p (v)", "SELECT v FROM UNNEST(a) AS p (v)"),
        ] {
            let mut statement = DFParser::parse_sql(text).unwrap().remove(0).unwrap();
            resolve_in(&mut statement, &|name| name == "known.t");
            crate::script::field_access::resolve_in(&mut statement);
            assert_eq!(statement.to_string(), expected);
        }
    }
}
