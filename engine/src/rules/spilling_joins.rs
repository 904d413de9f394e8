//! Which joins may hold a table in memory. A hash join is the fastest join and cannot spill: its build side has to fit.
//! Under a memory limit this rule lets those build sides be hashed that fit together into a share of the limit, and turns
//! the other joins into sort-merge joins, whose sorts spill. Without a limit it changes nothing.
//!
//! Sizes are estimates from above: a filter is taken to keep every row, text to be long, a file of unknown content to be a
//! multiple of its bytes. An estimate that is too large costs a sort, one that is too small would end the query.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use super::text_rows::text_scan;
use crate::memory::{EXHAUSTED, FairPool};

/// The part of the limit that hash tables of one plan may fill together.
const HASHED_PART: usize = 4;
/// Bytes that a hash table adds to each row: the row's place in its chain and its part of the table.
const TABLE_BYTES_PER_ROW: usize = 24;
/// Bytes that a text or another value without fixed width is taken to have, when nobody knows.
const LONG_VALUE_BYTES: usize = 64;
/// How many times larger a file may become in memory: compressed columns do that, and numbers written as text.
const FILE_GROWS: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct SpillingJoins {
    memory: Arc<FairPool>,
}

impl SpillingJoins {
    pub(super) fn new(memory: Arc<FairPool>) -> Self {
        SpillingJoins { memory }
    }
}

impl PhysicalOptimizerRule for SpillingJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(limit) = self.memory.limit() else { return Ok(plan) };
        let mut left = limit / HASHED_PART;
        plan.transform_up(|node| {
            if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
                return remembering_left(join, &mut left)
                    .map(|other| other.map_or_else(|| Transformed::no(node), Transformed::yes));
            }
            let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(node)) };
            match table_bytes(join.left()) {
                Some(bytes) if bytes <= left => {
                    left -= bytes;
                    Ok(Transformed::no(node))
                }
                _ => Ok(sort_merge(join)?.map_or_else(|| Transformed::no(node), Transformed::yes)),
            }
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "spilling_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same join without equal keys, so that it does not have to remember which rows of its right side found a partner:
/// one that spills its left side forgets them when its last piece ends where the rows end (DataFusion 55.2). `None` when
/// it is right as it is.
fn remembering_left(join: &NestedLoopJoinExec, left: &mut usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    match join.join_type() {
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            join.swap_inputs().map(Some)
        }
        JoinType::Full => {
            let mut fits = |side: &Arc<dyn ExecutionPlan>| match table_bytes(side) {
                Some(bytes) if bytes <= *left => {
                    *left -= bytes;
                    true
                }
                _ => false,
            };
            if fits(join.left()) {
                Ok(None)
            } else if fits(join.right()) {
                join.swap_inputs().map(Some)
            } else {
                Err(DataFusionError::ResourcesExhausted(format!(
                    "{EXHAUSTED}a full join without equal keys holds one of its sides, and neither is known to fit"
                )))
            }
        }
        _ => Ok(None),
    }
}

/// The same join by sorting both sides; `None` where only hashing will do.
fn sort_merge(join: &HashJoinExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let sortable = |schema: &Schema, key: &Arc<dyn datafusion::physical_plan::PhysicalExpr>| {
        key.data_type(schema).is_ok_and(|kind| !kind.is_nested())
    };
    let (left, right) = (join.left().schema(), join.right().schema());
    // NOT IN over a column that may be NULL has a meaning of its own, which sort-merge joins do not know.
    if join.null_aware || !join.on().iter().all(|(l, r)| sortable(left.as_ref(), l) && sortable(right.as_ref(), r)) {
        return Ok(None);
    }
    let options = vec![SortOptions::default(); join.on().len()];
    let null_equality: NullEquality = join.null_equality();
    let merge = SortMergeJoinExec::try_new(
        Arc::clone(join.left()),
        Arc::clone(join.right()),
        join.on().to_vec(),
        join.filter().map(left_first).transpose()?,
        *join.join_type(),
        options,
        null_equality,
    )?;
    let merge: Arc<dyn ExecutionPlan> = Arc::new(merge);
    let Some(kept) = &join.projection else { return Ok(Some(merge)) };
    let schema = merge.schema();
    let columns = kept.iter().map(|index| {
        let name = schema.field(*index).name().clone();
        ProjectionExpr { expr: Arc::new(Column::new(&name, *index)), alias: name }
    });
    Ok(Some(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), merge)?)))
}

/// The same condition with the columns of the left side first: a sort-merge join takes them to come so (DataFusion 55.2), and
/// those of a join whose sides were swapped do not.
fn left_first(filter: &JoinFilter) -> Result<JoinFilter> {
    let old = filter.column_indices();
    let mut order: Vec<usize> = (0..old.len()).collect();
    order.sort_by_key(|place| old[*place].side != JoinSide::Left);
    let fields: Vec<_> = order.iter().map(|place| Arc::clone(&filter.schema().fields()[*place])).collect();
    let schema = Schema::new_with_metadata(fields, filter.schema().metadata().clone());
    let expression = Arc::clone(filter.expression()).transform(|part| match part.downcast_ref::<Column>() {
        Some(column) => {
            let place = order.iter().position(|old| *old == column.index()).unwrap_or(column.index());
            Ok(Transformed::yes(Arc::new(Column::new(column.name(), place)) as _))
        }
        None => Ok(Transformed::no(part)),
    })?;
    let indices = order.iter().map(|place| old[*place].clone()).collect();
    Ok(JoinFilter::new(expression.data, indices, Arc::new(schema)))
}

/// Bytes of a hash table over these rows, estimated from above; `None` when nothing is known.
fn table_bytes(rows_of: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let rows = rows_at_most(rows_of)?;
    Some(rows.saturating_mul(row_bytes(&rows_of.schema()) + TABLE_BYTES_PER_ROW))
}

/// Bytes of a row in memory.
fn row_bytes(schema: &Schema) -> usize {
    schema.fields().iter().map(|field| value_bytes(field.data_type())).sum()
}

fn value_bytes(kind: &DataType) -> usize {
    match kind {
        DataType::Null => 0,
        DataType::Boolean => 1,
        DataType::FixedSizeBinary(width) => usize::try_from(*width).unwrap_or(LONG_VALUE_BYTES),
        DataType::FixedSizeList(item, length) => {
            usize::try_from(*length).unwrap_or(1).saturating_mul(value_bytes(item.data_type()))
        }
        DataType::Struct(fields) => fields.iter().map(|field| value_bytes(field.data_type())).sum(),
        DataType::List(item) | DataType::LargeList(item) => value_bytes(item.data_type()).saturating_mul(16),
        other => other.primitive_width().unwrap_or(LONG_VALUE_BYTES),
    }
}

/// How many rows come out of a node, at most, as far as its scans and estimates say.
fn rows_at_most(node: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let children = node.children();
    let below = match children.as_slice() {
        // What text may have on average is no bound.
        [] if text_scan(node).is_some() => return rows_of_files(node),
        [] => return estimate(node).or_else(|| rows_of_files(node)),
        [input] => {
            let rows = rows_at_most(input);
            // Groups are fewer than rows when the values' statistics say so.
            if node.is::<AggregateExec>() { smaller(rows, estimate(node)) } else { rows }
        }
        [left, right] if is_join(node) => {
            // A join on keys gives about as many rows as its larger side; one that multiplies rows says so itself.
            let (left, right) = (rows_at_most(left)?, rows_at_most(right)?);
            Some(left.max(right).max(estimate(node).unwrap_or(0)))
        }
        several => several.iter().map(|input| rows_at_most(input)).sum(),
    };
    smaller(below, node.fetch())
}

fn is_join(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.name().contains("Join")
}

fn smaller(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn estimate(node: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let statistics = StatisticsContext::default().compute(node.as_ref(), &StatisticsArgs::default()).ok()?;
    match statistics.num_rows {
        Precision::Exact(rows) | Precision::Inexact(rows) => Some(rows),
        Precision::Absent => None,
    }
}

/// Rows of files that do not count them, by their size.
fn rows_of_files(scan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let source = scan.downcast_ref::<DataSourceExec>()?;
    let config = source.data_source().downcast_ref::<FileScanConfig>()?;
    let files = config.file_groups.iter().flat_map(|group| group.iter());
    let bytes: u64 = files.map(|file| file.object_meta.size).sum();
    let bytes = usize::try_from(bytes).ok()?.saturating_mul(FILE_GROWS);
    // At least one byte a row, so that an empty schema (a bare count) does not divide by nothing.
    Some(bytes / row_bytes(&scan.schema()).max(1))
}
