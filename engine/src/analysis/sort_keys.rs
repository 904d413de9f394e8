//! Sort keys of which the query engine cannot tell that rows are ordered by them. It asks an expression for the range of its
//! values, gets an error for `-length(s)`, `length(s) > 4` or NOT of that, as functions tell no range, and takes rows that it
//! has just sorted for unsorted: "does not satisfy order requirements" (DataFusion 55.2). Such keys become columns below the
//! sort, or below the window, and go again above it. A column's order is believed.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Sort as SortKey, WindowFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Sort, Window};
use datafusion::optimizer::AnalyzerRule;

/// The qualifier of the columns; no user can write it.
const KEYS: &str = " sort keys";

/// See the module.
#[derive(Debug)]
pub(super) struct SortKeys;

impl AnalyzerRule for SortKeys {
    fn name(&self) -> &'static str {
        "sort_keys"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Sort(sort) if sort.expr.iter().any(|key| is_doubtful(&key.expr)) => {
                Ok(Transformed::yes(sorted(sort)?))
            }
            LogicalPlan::Window(window) if window.window_expr.iter().any(has_doubtful_key) => {
                Ok(Transformed::yes(windowed(window)?))
            }
            node => Ok(Transformed::no(node)),
        })
        .data()
    }
}

/// Expressions that became columns.
#[derive(Default)]
struct Keys(Vec<Expr>);

impl Keys {
    /// What stands for the expression above the projection.
    fn column(&mut self, expr: Expr) -> Expr {
        if !is_doubtful(&expr) {
            return expr;
        }
        let place = self.0.iter().position(|known| *known == expr).unwrap_or(self.0.len());
        if place == self.0.len() {
            self.0.push(expr);
        }
        Expr::Column(Column::new(Some(TableReference::bare(KEYS)), place.to_string()))
    }

    /// The rows with the keys beside their columns.
    fn below(self, input: LogicalPlan) -> Result<LogicalPlan> {
        let keys = self.0.into_iter().enumerate();
        let keys = keys.map(|(place, key)| key.alias_qualified(Some(TableReference::bare(KEYS)), place.to_string()));
        let columns: Vec<Expr> = columns(&input).chain(keys).collect();
        LogicalPlanBuilder::from(input).project(columns)?.build()
    }
}

fn columns(plan: &LogicalPlan) -> impl Iterator<Item = Expr> + use<> {
    plan.schema().columns().into_iter().map(Expr::Column)
}

fn sorted(sort: Sort) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = columns(&sort.input).collect();
    let mut keys = Keys::default();
    let order = sort.expr.into_iter().map(|key| SortKey { expr: keys.column(key.expr), ..key }).collect();
    let input = keys.below(LogicalPlan::clone(&sort.input))?;
    let sort = LogicalPlan::Sort(Sort { expr: order, input: input.into(), fetch: sort.fetch });
    LogicalPlanBuilder::from(sort).project(columns)?.build()
}

fn windowed(window: Window) -> Result<LogicalPlan> {
    let mut outer: Vec<Expr> = columns(&window.input).collect();
    let mut keys = Keys::default();
    let mut windows = Vec::new();
    for expr in window.window_expr {
        let name = expr.schema_name().to_string();
        let changed = expr
            .transform_up(|part| match part {
                Expr::WindowFunction(mut function) => {
                    let params = &mut function.params;
                    let partition = std::mem::take(&mut params.partition_by).into_iter();
                    params.partition_by = partition.map(|key| keys.column(key)).collect();
                    let order = std::mem::take(&mut params.order_by).into_iter();
                    params.order_by = order.map(|key| SortKey { expr: keys.column(key.expr), ..key }).collect();
                    Ok(Transformed::yes(Expr::WindowFunction(function)))
                }
                part => Ok(Transformed::no(part)),
            })
            .data()?;
        outer.push(Expr::Column(Column::from_name(changed.schema_name().to_string())).alias(name));
        windows.push(changed);
    }
    let input = keys.below(LogicalPlan::clone(&window.input))?;
    let window = LogicalPlan::Window(Window::try_new(windows, input.into())?);
    LogicalPlanBuilder::from(window).project(outer)?.build()
}

fn has_doubtful_key(expr: &Expr) -> bool {
    contains(expr, |part| match part {
        Expr::WindowFunction(function) => {
            let WindowFunction { params, .. } = function.as_ref();
            params.partition_by.iter().any(is_doubtful) || params.order_by.iter().any(|key| is_doubtful(&key.expr))
        }
        _ => false,
    })
}

/// Whether some part of the key asks for a range that another part does not tell.
fn is_doubtful(key: &Expr) -> bool {
    let asks = |part: &Expr| match part {
        Expr::Negative(inner) | Expr::Not(inner) => !tells_range(inner),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            (op.supports_propagation() || matches!(op, Operator::And | Operator::Or))
                && !(tells_range(left) && tells_range(right))
        }
        _ => false,
    };
    let has_query = |part: &Expr| {
        matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        )
    };
    contains(key, asks) && !contains(key, has_query)
}

fn tells_range(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Cast(cast) => tells_range(&cast.expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
                && tells_range(left)
                && tells_range(right)
        }
        _ => false,
    }
}

fn contains(expr: &Expr, is_it: impl Fn(&Expr) -> bool) -> bool {
    let mut found = false;
    let visited = expr.apply(|part| {
        found |= is_it(part);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.is_ok() && found
}
