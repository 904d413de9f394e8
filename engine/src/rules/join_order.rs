//! Inner joins in the order that makes the least work, whatever order the query names its tables in.
//!
//! Joins that stand beside each other, with nothing between them but projections that pass columns on, are taken apart into
//! relations, equal keys and other conditions; [`graph`] finds the cheapest order by what files say of themselves: rows, and
//! the least and greatest values of keys. Estimates are rough, so an order is only taken that is clearly cheaper than the one
//! of the query, and small queries stay as they are. Columns are places in relations here, never names, so nothing can be
//! ambiguous. Which side is hashed, and how rows are distributed, is decided by the rules that follow.

mod graph;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ColumnStatistics, JoinSide, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, PhysicalExprRef};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use graph::{Graph, RELATIONS_MAX, Set, Tree};

/// An order is taken that costs at most this part of the query's own.
const CLEARLY_CHEAPER: f64 = 0.8;
/// Rows that pass through joins in all, below which it does not matter.
const SMALL: f64 = 100_000.0;

/// See the module.
#[derive(Debug)]
pub(super) struct JoinOrder;

impl PhysicalOptimizerRule for JoinOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        reordered(plan)
    }

    fn name(&self) -> &'static str {
        "join_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn reordered(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if inner_join(&plan).is_some()
        && let Some(better) = Joins::better_than(&plan)?
    {
        return Ok(better);
    }
    let before: Vec<_> = plan.children().into_iter().cloned().collect();
    let after = before.iter().cloned().map(reordered).collect::<Result<Vec<_>>>()?;
    if before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)) {
        return Ok(plan);
    }
    plan.replace_children(after, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

fn inner_join(plan: &Arc<dyn ExecutionPlan>) -> Option<&HashJoinExec> {
    let join = plan.downcast_ref::<HashJoinExec>()?;
    let plain = *join.join_type() == JoinType::Inner && join.null_equality() == NullEquality::NullEqualsNothing;
    (plain && !join.null_aware).then_some(join)
}

/// A column: of which relation, and at which place there.
type At = (usize, usize);

/// One side of equal keys, in columns of its relation.
struct Side {
    relation: usize,
    key: PhysicalExprRef,
}

/// A condition beside the keys: an expression over these columns.
struct Condition {
    expression: Arc<dyn PhysicalExpr>,
    schema: Arc<Schema>,
    columns: Vec<At>,
}

impl Condition {
    fn relations(&self) -> Set {
        self.columns.iter().fold(0, |set, (relation, _)| set | 1 << relation)
    }
}

/// Joins, taken apart.
struct Joins {
    relations: Vec<Arc<dyn ExecutionPlan>>,
    keys: Vec<(Side, Side)>,
    conditions: Vec<Condition>,
    mode: PartitionMode,
    graph: Graph,
}

impl Joins {
    /// A clearly cheaper order of the joins that begin here; `None` when there is none, or when too little is known.
    fn better_than(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let mode = inner_join(plan).map_or(PartitionMode::Auto, |join| *join.partition_mode());
        let graph = Graph::default();
        let mut joins = Joins { relations: Vec::new(), keys: Vec::new(), conditions: Vec::new(), mode, graph };
        let Some((own, columns)) = joins.take_apart(plan)? else { return Ok(None) };
        if !(3..=RELATIONS_MAX).contains(&joins.relations.len()) || columns.is_empty() || !joins.estimate()? {
            return Ok(None);
        }
        let cost = joins.graph.cost(&own);
        let better = joins.graph.cheapest().filter(|tree| joins.graph.cost(tree) < CLEARLY_CHEAPER * cost);
        let Some(order) = better.filter(|_| cost > SMALL) else { return Ok(None) };
        joins.relations = joins.relations.into_iter().map(reordered).collect::<Result<_>>()?;
        joins.build_as(&order, &columns, plan.schema().as_ref()).map(Some)
    }

    /// The order of a plan, and where its columns come from; `None` when something about it cannot be moved.
    fn take_apart(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Option<(Tree, Vec<At>)>> {
        if let Some(join) = inner_join(plan) {
            return self.take_join(join);
        }
        if let Some(places) = passed_columns(plan) {
            let Some((tree, columns)) = self.take_apart(plan.children()[0])? else { return Ok(None) };
            return Ok(Some((tree, places.into_iter().map(|place| columns[place]).collect())));
        }
        let relation = self.relations.len();
        self.relations.push(Arc::clone(plan));
        let columns = (0..plan.schema().fields().len()).map(|column| (relation, column)).collect();
        Ok(Some((Tree::Relation(relation), columns)))
    }

    fn take_join(&mut self, join: &HashJoinExec) -> Result<Option<(Tree, Vec<At>)>> {
        let Some((left, left_columns)) = self.take_apart(join.left())? else { return Ok(None) };
        let Some((right, right_columns)) = self.take_apart(join.right())? else { return Ok(None) };
        for (left_key, right_key) in join.on() {
            let sides = (side(left_key, &left_columns)?, side(right_key, &right_columns)?);
            let (Some(left), Some(right)) = sides else { return Ok(None) };
            self.keys.push((left, right));
        }
        if let Some(filter) = join.filter() {
            let at = |column: &ColumnIndex| match column.side {
                JoinSide::Left => left_columns.get(column.index).copied(),
                JoinSide::Right => right_columns.get(column.index).copied(),
                JoinSide::None => None,
            };
            let Some(columns) = filter.column_indices().iter().map(at).collect::<Option<Vec<At>>>() else {
                return Ok(None);
            };
            let (expression, schema) = (Arc::clone(filter.expression()), Arc::clone(filter.schema()));
            let condition = Condition { expression, schema, columns };
            if condition.relations().count_ones() < 2 {
                return Ok(None);
            }
            self.conditions.push(condition);
        }
        let all: Vec<At> = left_columns.into_iter().chain(right_columns).collect();
        let columns = match &join.projection {
            Some(places) => places.iter().map(|place| all[*place]).collect(),
            None => all,
        };
        Ok(Some((Tree::join(left, right), columns)))
    }

    /// Fills the graph; whether enough is known.
    fn estimate(&mut self) -> Result<bool> {
        let mut statistics = Vec::new();
        for relation in &self.relations {
            let told = StatisticsContext::default().compute(relation.as_ref(), &StatisticsArgs::default())?;
            let (Some(rows), Some(base)) = (told.num_rows.get_value().copied(), base_rows(relation)?) else {
                return Ok(false);
            };
            self.graph.rows.push((rows as f64).max(1.0));
            self.graph.base_rows.push((base.max(rows) as f64).max(1.0));
            statistics.push(told);
        }
        for (left, right) in &self.keys {
            let distinct = |side: &Side| {
                let base = self.graph.base_rows[side.relation];
                let column = side.key.downcast_ref::<Column>().map(Column::index);
                let told = column.and_then(|column| statistics[side.relation].column_statistics.get(column));
                told.and_then(distinct_values).map_or(base, |values| values.min(base))
            };
            // Keys refer to each other: the side with fewer values has those of the other.
            let distinct = distinct(left).min(distinct(right));
            self.graph.connect(left.relation, right.relation, distinct);
        }
        self.conditions.iter().for_each(|condition| self.graph.add_condition(condition.relations()));
        Ok(true)
    }

    /// The plan of an order, with these columns under the names of a schema.
    fn build_as(&self, order: &Tree, columns: &[At], schema: &Schema) -> Result<Arc<dyn ExecutionPlan>> {
        let needed: BTreeSet<At> = columns.iter().copied().collect();
        let (plan, found) = self.build(order, &needed)?;
        let built = plan.schema();
        let expressions = columns.iter().zip(schema.fields()).map(|(at, field)| {
            let place = place_of(*at, &found);
            ProjectionExpr::new(Arc::new(Column::new(built.field(place).name(), place)), field.name().clone())
        });
        let expressions: Vec<ProjectionExpr> = expressions.collect();
        Ok(Arc::new(ProjectionExec::try_new(expressions, plan)?))
    }

    /// The plan of an order and its columns: those that are needed above, and all that a relation has.
    fn build(&self, order: &Tree, needed: &BTreeSet<At>) -> Result<(Arc<dyn ExecutionPlan>, Vec<At>)> {
        let (left, right) = match order {
            Tree::Relation(relation) => {
                let plan = &self.relations[*relation];
                let columns = (0..plan.schema().fields().len()).map(|column| (*relation, column));
                return Ok((Arc::clone(plan), columns.collect()));
            }
            Tree::Join(left, right) => (left, right),
        };
        let here = self.conditions.iter().filter(|condition| is_first_in(condition.relations(), left, right));
        let here: Vec<&Condition> = here.collect();
        let keys: Vec<(&Side, &Side)> = self.keys.iter().filter_map(|keys| directed(keys, left, right)).collect();
        let mut used = needed.clone();
        for side in keys.iter().flat_map(|(left, right)| [left, right]) {
            used.extend(collect_columns(&side.key).iter().map(|column| (side.relation, column.index())));
        }
        used.extend(here.iter().flat_map(|condition| condition.columns.iter().copied()));

        let (left, left_columns) = self.build(left, &used)?;
        let (right, right_columns) = self.build(right, &used)?;
        let key = |side: &Side, columns: &[At], plan: &Arc<dyn ExecutionPlan>| moved(side, columns, &plan.schema());
        let on = keys.iter().map(|(l, r)| Ok((key(l, &left_columns, &left)?, key(r, &right_columns, &right)?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let filter = together(&here, &left_columns, &right_columns)?;
        let all: Vec<At> = left_columns.into_iter().chain(right_columns).collect();
        let mut places: Vec<usize> = (0..all.len()).filter(|place| needed.contains(&all[*place])).collect();
        if places.is_empty() {
            places.push(0);
        }
        let columns = places.iter().map(|place| all[*place]).collect();
        let join = HashJoinExecBuilder::new(left, right, on, JoinType::Inner)
            .with_filter(filter)
            .with_projection((places.len() < all.len()).then_some(places))
            .with_partition_mode(self.mode);
        Ok((join.build_exec()?, columns))
    }
}

/// Which columns of a join a projection passes on, if it does nothing else.
fn passed_columns(plan: &Arc<dyn ExecutionPlan>) -> Option<Vec<usize>> {
    let projection = plan.downcast_ref::<ProjectionExec>()?;
    let below = projection.input();
    if inner_join(below).is_none() && passed_columns(below).is_none() {
        return None;
    }
    let places = projection.expr().iter().map(|one| one.expr.downcast_ref::<Column>().map(Column::index));
    places.collect()
}

/// A key in columns of the one relation that it is made of; `None` when there are several, or none.
fn side(key: &PhysicalExprRef, columns: &[At]) -> Result<Option<Side>> {
    let relations: BTreeSet<usize> = collect_columns(key).iter().map(|column| columns[column.index()].0).collect();
    let mut relations = relations.into_iter();
    let (Some(relation), None) = (relations.next(), relations.next()) else { return Ok(None) };
    let key = with_places(key, |column| Column::new(column.name(), columns[column.index()].1))?;
    Ok(Some(Side { relation, key }))
}

/// A key in the columns of a plan.
fn moved(side: &Side, columns: &[At], schema: &Schema) -> Result<PhysicalExprRef> {
    with_places(&side.key, |column| {
        let place = place_of((side.relation, column.index()), columns);
        Column::new(schema.field(place).name(), place)
    })
}

fn with_places(expression: &PhysicalExprRef, place: impl Fn(&Column) -> Column) -> Result<PhysicalExprRef> {
    let other = Arc::clone(expression).transform(|part| {
        Ok(match part.downcast_ref::<Column>() {
            Some(column) => Transformed::yes(Arc::new(place(column)) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(part),
        })
    })?;
    Ok(other.data)
}

fn place_of(at: At, columns: &[At]) -> usize {
    columns.iter().position(|column| *column == at).expect("what is needed above is passed on")
}

/// Whether a join is the first to have all these relations.
fn is_first_in(relations: Set, left: &Tree, right: &Tree) -> bool {
    let (left, right) = (left.set(), right.set());
    relations & !(left | right) == 0 && relations & !left != 0 && relations & !right != 0
}

/// Keys between the sides of a join, the left side's first.
fn directed<'k>((one, other): &'k (Side, Side), left: &Tree, right: &Tree) -> Option<(&'k Side, &'k Side)> {
    let has = |tree: &Tree, side: &Side| tree.set() & (1 << side.relation) != 0;
    if has(left, one) && has(right, other) {
        Some((one, other))
    } else if has(left, other) && has(right, one) {
        Some((other, one))
    } else {
        None
    }
}

/// All conditions of a join as one.
fn together(conditions: &[&Condition], left: &[At], right: &[At]) -> Result<Option<JoinFilter>> {
    let (mut all, mut places, mut fields) = (None, Vec::new(), Vec::new());
    for condition in conditions {
        let before = places.len();
        let expression =
            with_places(&condition.expression, |column| Column::new(column.name(), before + column.index()))?;
        all = Some(match all {
            None => expression,
            Some(all) => Arc::new(BinaryExpr::new(all, Operator::And, expression)) as Arc<dyn PhysicalExpr>,
        });
        places.extend(condition.columns.iter().map(|at| match left.contains(at) {
            true => ColumnIndex { index: place_of(*at, left), side: JoinSide::Left },
            false => ColumnIndex { index: place_of(*at, right), side: JoinSide::Right },
        }));
        fields.extend(condition.schema.fields().iter().cloned());
    }
    Ok(all.map(|expression| JoinFilter::new(expression, places, Arc::new(Schema::new(fields)))))
}

/// Rows of the table that a relation reads, before it is filtered.
fn base_rows(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<usize>> {
    match plan.children()[..] {
        [child] => base_rows(child),
        _ => {
            let told = StatisticsContext::default().compute(plan.as_ref(), &StatisticsArgs::default())?;
            Ok(told.num_rows.get_value().copied())
        }
    }
}

/// How many values a column can have: what is known of it, or the whole numbers between the least and the greatest.
fn distinct_values(column: &ColumnStatistics) -> Option<f64> {
    if let Some(distinct) = column.distinct_count.get_value() {
        return Some(*distinct as f64);
    }
    let (least, greatest) = (column.min_value.get_value()?, column.max_value.get_value()?);
    let kind: DataType = least.data_type();
    let is_whole = kind.is_integer() || matches!(kind, DataType::Date32);
    if !is_whole {
        return None;
    }
    Some(greatest.distance(least)? as f64 + 1.0)
}
