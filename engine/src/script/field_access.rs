//! Fields and elements in BigQuery's spelling: `probs[1].prob` as well as `probs[1]['prob']`, `a[OFFSET(0)]` (from 0) and
//! `a[ORDINAL(1)]` (from 1) as well as `a[1]`. The query engine plans the second spelling of each alone.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Subscript, Value, VisitMut,
    VisitorMut,
};

/// Rewrites every access in the statement.
pub(crate) fn resolve_in(statement: &mut SqlStatement) {
    match statement {
        SqlStatement::Statement(statement) => visit(statement.as_mut()),
        SqlStatement::Explain(explain) => resolve_in(&mut explain.statement),
        _ => {}
    }
}

fn visit(node: &mut impl VisitMut) {
    let _ = node.visit(&mut Accesses);
}

struct Accesses;

impl VisitorMut for Accesses {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        resolve(expr);
        ControlFlow::Continue(())
    }
}

/// Rewrites one access, or one call in BigQuery's spelling; its parts are left as they are.
pub fn resolve(expr: &mut Expr) {
    crate::syntax::bigquery::respell(expr);
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return };
    // Dots before the first bracket may lead to a table's column; behind it, or behind a call, they lead to a field.
    let names = if matches!(root.as_ref(), Expr::Identifier(_)) { leading_names(access_chain) } else { 0 };
    for access in &mut access_chain[names..] {
        match access {
            AccessExpr::Dot(name) => {
                if let Some(field) = field_of(name) {
                    let index = Expr::value(Value::SingleQuotedString(field));
                    *access = AccessExpr::Subscript(Subscript::Index { index });
                }
            }
            AccessExpr::Subscript(Subscript::Index { index }) => {
                if let Some(from_one) = from_one(index) {
                    *index = from_one;
                }
            }
            AccessExpr::Subscript(Subscript::Slice { .. }) => {}
        }
    }
}

/// Whether the access names a field behind a bracket, so that its own text is a good name for it.
pub(super) fn has_field_behind_bracket(expr: &Expr) -> bool {
    let Expr::CompoundFieldAccess { access_chain, .. } = expr else { return false };
    let behind = &access_chain[leading_names(access_chain)..];
    behind.iter().any(|access| matches!(access, AccessExpr::Dot(_)))
}

fn leading_names(chain: &[AccessExpr]) -> usize {
    chain.iter().take_while(|access| matches!(access, AccessExpr::Dot(Expr::Identifier(_)))).count()
}

/// Folded as SQL folds names.
fn field_of(name: &Expr) -> Option<String> {
    match name {
        Expr::Identifier(ident) if ident.quote_style.is_some() => Some(ident.value.clone()),
        Expr::Identifier(ident) => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

/// The index from 1 that `OFFSET(i)` or `ORDINAL(i)` means. Beyond the array both are NULL, with `SAFE_` or without.
fn from_one(index: &Expr) -> Option<Expr> {
    let Expr::Function(call) = index else { return None };
    let name = call.name.to_string().to_uppercase();
    let FunctionArguments::List(list) = &call.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice() else { return None };
    let argument = Box::new(Expr::Nested(Box::new(argument.clone())));
    match name.as_str() {
        "ORDINAL" | "SAFE_ORDINAL" => Some(*argument),
        "OFFSET" | "SAFE_OFFSET" => {
            let one = Box::new(Expr::value(Value::Number("1".into(), false)));
            Some(Expr::BinaryOp { left: argument, op: BinaryOperator::Plus, right: one })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn accesses_are_spelled_as_the_engine_plans_them() {
        for (text, expected) in [
            ("SELECT a[1].b", "SELECT a[1]['b']"),
            ("SELECT t.a[1].B.\"C\" FROM t", "SELECT t.a[1]['b']['C'] FROM t"),
            ("SELECT s.t.a FROM t", "SELECT s.t.a FROM t"),
            ("SELECT f(x).y", "SELECT f(x)['y']"),
            ("SELECT a[1]['b'], a[1:2]", "SELECT a[1]['b'], a[1:2]"),
            ("SELECT a[OFFSET(0)].b, a[safe_ordinal(i)]", "SELECT a[(0) + 1]['b'], a[(i)]"),
            ("EXPLAIN SELECT x FROM (SELECT a[1].b AS x)", "EXPLAIN SELECT x FROM (SELECT a[1]['b'] AS x)"),
            ("SELECT 1 WHERE a[1].b > 0 ORDER BY a[1].b", "SELECT 1 WHERE a[1]['b'] > 0 ORDER BY a[1]['b']"),
        ] {
            let mut statement = DFParser::parse_sql(text).unwrap().remove(0).unwrap();
            resolve_in(&mut statement);
            assert_eq!(statement.to_string(), expected);
        }
    }
}
