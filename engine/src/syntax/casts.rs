//! Casts beside what they cast. The query engine calls a CAST as its operand is called, so that `GROUP BY k, CAST(k AS TEXT)`
//! has one name twice and is refused (DataFusion 55.2). A statement that was refused so is read again with each of its casts
//! under a name of its own.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{SchemaError, qualified_name};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Select,
    SelectItem, Value, VisitMut, VisitorMut,
};

use crate::functions::named_value::NAME;

/// Whether two expressions have one name, says the error.
pub(crate) fn clash(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::Plan(message) => message.contains("require unique expression names"),
        DataFusionError::SchemaError(error, _) => matches!(
            error.as_ref(),
            SchemaError::DuplicateUnqualifiedField { .. } | SchemaError::DuplicateQualifiedField { .. }
        ),
        _ => false,
    }
}

/// Whether groups of the plan have one name, spelled out: a column `t.k` and a cast of it, which is called `t.k` as a whole.
pub(crate) fn share_a_name(plan: &LogicalPlan) -> Result<bool> {
    let mut shared = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            let mut names = HashSet::new();
            shared |= aggregate.schema.iter().any(|(table, field)| !names.insert(qualified_name(table, field.name())));
        }
        Ok(if shared { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(shared)
}

/// Gives the casts of the statement names; false when it has none.
pub(crate) fn tell_apart(statement: &mut SqlStatement) -> bool {
    match statement {
        SqlStatement::Statement(statement) => {
            let mut casts = Casts { found: false };
            let _ = VisitMut::visit(statement.as_mut(), &mut casts);
            casts.found
        }
        SqlStatement::Explain(explain) => tell_apart(&mut explain.statement),
        _ => false,
    }
}

struct Casts {
    found: bool,
}

impl VisitorMut for Casts {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr @ Expr::Cast { .. }) = item {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Cast { expr: operand, data_type, .. } = expr else { return ControlFlow::Continue(()) };
        if matches!(operand.as_ref(), Expr::Value(_)) {
            return ControlFlow::Continue(());
        }
        self.found = true;
        let name = Expr::value(Value::SingleQuotedString(data_type.to_string()));
        let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
        let args = vec![argument(expr.clone()), argument(name)];
        *expr = Expr::Function(Function {
            name: ObjectName::from(vec![Ident::new(NAME)]),
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args: FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args,
                clauses: Vec::new(),
            }),
            filter: None,
            null_treatment: None,
            over: None,
            within_group: Vec::new(),
        });
        ControlFlow::Continue(())
    }
}
