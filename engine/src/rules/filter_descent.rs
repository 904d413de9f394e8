//! Filters that go down to where rows come from, as the query engine's own rule sends them, except where it would take a
//! column for another one of the same name. Operators of DataFusion 55.2 look a filter's columns up in their input by name
//! alone (apache/datafusion#20213 and #25262 are of this class): where both sides of a join have a column `i`, `a.i > b.i`
//! becomes `i > i` in the table of one of them, and rows or whole files are left out. Filters that joins and sorts make
//! while they run go the same way. What always holds here: a filter goes on only where each of its columns can be told
//! from all others by name; otherwise it stays where it is, which costs time and no rows.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::JoinType;
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterPushdownResult, ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;

type Filter = Arc<dyn PhysicalExpr>;
type Plan = Arc<dyn ExecutionPlan>;

/// See the module.
#[derive(Debug)]
pub(super) struct FilterDescent {
    phase: FilterPushdownPhase,
    name: &'static str,
}

impl FilterDescent {
    /// In the place of the query engine's rules of these names.
    pub(super) fn instead_of(name: &str) -> Option<Self> {
        match name {
            "FilterPushdown" => Some(FilterDescent { phase: FilterPushdownPhase::Pre, name: "FilterPushdown" }),
            "FilterPushdown(Post)" => {
                Some(FilterDescent { phase: FilterPushdownPhase::Post, name: "FilterPushdown(Post)" })
            }
            _ => None,
        }
    }
}

impl PhysicalOptimizerRule for FilterDescent {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        let descended = descend(&plan, &[], config, self.phase)?;
        Ok(descended.updated_node.unwrap_or(plan))
    }

    fn name(&self) -> &str {
        self.name
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Offers filters to a node, and what it passes on, with its own, to its inputs; says which of them need not be asked again.
fn descend(
    node: &Plan,
    offered: &[Filter],
    config: &ConfigOptions,
    phase: FilterPushdownPhase,
) -> Result<FilterPushdownPropagation<Plan>> {
    // What is not clear is not even shown to the node: it might take it in under the name of another column.
    let clear: Vec<bool> = offered.iter().map(|filter| is_clear(filter, node)).collect();
    let shown: Vec<&Filter> =
        offered.iter().zip(&clear).filter(|(_, clear)| **clear).map(|(filter, _)| filter).collect();
    let passing: Vec<usize> = (0..shown.len()).filter(|at| is_steady(shown[*at])).collect();
    let passed = passing.iter().map(|at| Arc::clone(shown[*at])).collect();
    let description = node.gather_filters_for_pushdown(phase, passed, config)?;

    let mut answers = vec![Vec::new(); shown.len()];
    let mut own_answers = Vec::new();
    let mut children = Vec::new();
    let sides = description.parent_filters().into_iter().zip(description.self_filters());
    for (side, (child, (from_above, own))) in node.children().into_iter().zip(sides).enumerate() {
        let own_passing: Vec<usize> = (0..own.len()).filter(|at| is_steady(&own[*at])).collect();
        let mut filters: Vec<Filter> = own_passing.iter().map(|at| Arc::clone(&own[*at])).collect();
        let mut places = Vec::new();
        for (at, filter) in passing.iter().zip(&from_above) {
            let meant = matches!(filter.discriminant, PushedDown::Yes) && means_same(&filter.predicate, node, side);
            if meant {
                places.push(*at);
                filters.push(Arc::clone(&filter.predicate));
            }
        }
        let below = descend(child, &filters, config, phase)?;
        children.push(below.updated_node.unwrap_or_else(|| Arc::clone(child)));

        let (of_own, of_above) = below.filters.split_at(own_passing.len());
        let mut own_answer: Vec<PushedDown> = vec![PushedDown::No; own.len()];
        own_passing.iter().zip(of_own).for_each(|(at, answer)| own_answer[*at] = *answer);
        own_answers
            .push(own_answer.into_iter().zip(own).map(|(answer, filter)| answer.wrap_expression(filter)).collect());
        answers.iter_mut().for_each(|answer| answer.push(PushedDown::No));
        places.iter().zip(of_above).for_each(|(at, answer)| {
            *answers[*at].last_mut().expect("an answer was pushed above") = *answer;
        });
    }

    let updated = replace_children_if_necessary(Arc::clone(node), children)?;
    let results = shown.into_iter().zip(answers);
    let parent_filters =
        results.map(|(filter, child_results)| ChildFilterPushdownResult { filter: Arc::clone(filter), child_results });
    let below = ChildPushdownResult { parent_filters: parent_filters.collect(), self_filters: own_answers };
    let mut told = updated.handle_child_pushdown_result(phase, below, config)?;
    let mut of_shown = told.filters.into_iter();
    told.filters = clear
        .into_iter()
        .map(|clear| if clear { of_shown.next().unwrap_or(PushedDown::No) } else { PushedDown::No })
        .collect();
    if told.updated_node.is_none() && !Arc::ptr_eq(&updated, node) {
        told.updated_node = Some(updated);
    }
    Ok(told)
}

/// Whether the filter gives the same answer each time it is asked.
fn is_steady(filter: &Filter) -> bool {
    !is_volatile(filter)
}

/// Whether the operator finds the filter's columns, which are those of its output, in its input by their names.
fn is_clear(filter: &Filter, node: &Plan) -> bool {
    let columns = collect_columns(filter);
    let mut columns = columns.iter();
    let output = node.schema();
    let children = node.children();
    let once_below = |name: &str| children.iter().all(|child| times(name, &child.schema()) <= 1);
    if node.is::<ProjectionExec>() {
        // The expressions behind the names are found by position.
        return columns.all(|column| times(column.name(), &output) == 1);
    }
    if node.is::<HashJoinExec>() {
        // It knows by position which side a column is of.
        return columns.all(|column| once_below(column.name()));
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let below = aggregate.input().schema();
        let is_group = |column: &Column| match aggregate.group_expr().expr().get(column.index()) {
            Some((group, _)) => group.downcast_ref::<Column>().is_some_and(|group| {
                group.name() == column.name() && below.index_of(group.name()).is_ok_and(|at| at == group.index())
            }),
            // Filters on aggregated values stay above.
            None => true,
        };
        return columns
            .all(|column| times(column.name(), &output) == 1 && once_below(column.name()) && is_group(column));
    }
    let in_place = |column: &Column| {
        let is_there = |child: &&Plan| {
            child.schema().fields().get(column.index()).is_some_and(|field| field.name() == column.name())
        };
        !node.is::<UnionExec>() || children.iter().all(is_there)
    };
    columns.all(|column| times(column.name(), &output) == 1 && once_below(column.name()) && in_place(column))
}

/// Whether a filter that a semi join hands to the side that it does not give out asks for the keys there: it looks them up
/// by the names that they have on the other side.
fn means_same(filter: &Filter, node: &Plan, side: usize) -> bool {
    let Some(join) = node.downcast_ref::<HashJoinExec>() else { return true };
    let is_left = side == 0;
    let is_key = |column: &Column| {
        join.on().iter().any(|(left, right)| {
            let (own, other) = if is_left { (left, right) } else { (right, left) };
            let other = other.downcast_ref::<Column>();
            own.downcast_ref::<Column>().is_some_and(|own| own.index() == column.index())
                && other.is_some_and(|other| other.name() == column.name())
        })
    };
    match (join.join_type(), is_left) {
        (JoinType::LeftSemi, false) | (JoinType::RightSemi, true) => collect_columns(filter).iter().all(is_key),
        _ => true,
    }
}

/// How many columns have the name.
fn times(name: &str, schema: &Schema) -> usize {
    schema.fields().iter().filter(|field| field.name() == name).count()
}
