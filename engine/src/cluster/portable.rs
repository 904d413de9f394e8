//! Which plans may be cut into tasks: those of operators that are known to give, in pieces, what they give whole. What is not
//! on the list runs in the driver, and so does what the list takes only under a condition that does not hold.
//!
//! * Upstream restricts a task's plan to its partitions only at leaves that it knows; a leaf that it does not know gives all
//!   of its rows in every task.
//! * Operators that treat each row, or each partition of rows that belong together, by itself can be anywhere.
//! * Joins must have been planned for tasks ([`super::joins`]), windows, too ([`super::windows`]).

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{CsvSource, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};

use super::joins::is_driven_by_right;
use super::whole::WholeExec;
use crate::rules::LineNumbersExec;
use crate::sink::SinkExec;

/// Fine, or why not.
type Splits = std::result::Result<(), String>;

/// Why nothing is sent that has nothing to read.
pub(crate) const NO_FILES: &str = "it reads no files";
/// Rows in the driver's memory that may travel inside a plan.
const INLINE_BYTES_MAX: usize = 16 << 20;

/// Why executors cannot run the plan, or have nothing to read in it; `None` when they can.
pub(crate) fn keeps_at_home(plan: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let mut leaves = Leaves::default();
    if let Err(reason) = leaves.visit(plan, false) {
        return Some(reason);
    }
    if leaves.inline_bytes > INLINE_BYTES_MAX {
        return Some("a table in the driver's memory is too large to be sent".to_string());
    }
    (leaves.scans == 0).then(|| NO_FILES.to_string())
}

/// Whether the query reads a JSON file that is one array. Upstream's message for a scan has no place for that, and what
/// reads it cannot be asked (DataFusion 55.2); its table can.
pub(crate) fn reads_json_array(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(files) = provider.downcast_ref::<ListingTable>()
            && let Some(json) = files.options().format.downcast_ref::<JsonFormat>()
        {
            found |= !json.options().newline_delimited;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Upstream's message for a scan has no place for compression, nor for every option of CSV, nor for columns that only the
/// reader makes (`file_row_index()`), nor for Arrow's other format, that of streams: the files would be read otherwise, or
/// as empty, or not at all (DataFusion 55.2).
fn travels_whole(files: &FileScanConfig) -> bool {
    let source = files.file_source();
    let has_terminator = source.downcast_ref::<CsvSource>().is_some_and(|csv| csv.terminator().is_some());
    !files.file_compression_type.is_compressed()
        && !has_terminator
        && source.table_schema().virtual_columns().is_empty()
        && source.file_type() != "arrow_stream"
}

#[derive(Default)]
struct Leaves {
    /// Leaves with data.
    scans: usize,
    inline_bytes: usize,
}

impl Leaves {
    fn visit(&mut self, node: &Arc<dyn ExecutionPlan>, in_union: bool) -> Splits {
        let children = node.children();
        if children.is_empty() {
            return self.leaf(node, in_union);
        }
        splits(node)?;
        let in_union = in_union || node.is::<UnionExec>() || node.is::<InterleaveExec>();
        children.into_iter().try_for_each(|child| self.visit(child, in_union))
    }

    fn leaf(&mut self, node: &Arc<dyn ExecutionPlan>, in_union: bool) -> Splits {
        if node.is::<EmptyExec>() || node.is::<PlaceholderRowExec>() {
            // A stage with such a branch beside others never ends upstream (Ballista 55.0).
            return match in_union {
                true => Err("a branch of its UNION reads no files".to_string()),
                false => Ok(()),
            };
        }
        let source = node.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
        if let Some(files) = source.and_then(|source| source.downcast_ref::<FileScanConfig>()) {
            self.scans += 1;
            return match travels_whole(files) {
                true => Ok(()),
                false => Err("a file of its kind is read by one process".to_string()),
            };
        }
        let Some(memory) = source.and_then(|source| source.downcast_ref::<MemorySourceConfig>()) else {
            return Err(format!("{} gives its rows in one process", node.name()));
        };
        let batches = memory.partitions().iter().flatten();
        self.inline_bytes += batches.map(arrow::array::RecordBatch::get_array_memory_size).sum::<usize>();
        // Rows that are in the driver are no reason to send it away.
        Ok(())
    }
}

/// Whether the operator gives in several tasks what it gives in one process; else why not.
fn splits(node: &Arc<dyn ExecutionPlan>) -> Splits {
    let known = is_row_by_row(node)
        || node.is::<WindowAggExec>()
        || node.is::<BoundedWindowAggExec>()
        || node.is::<SortMergeJoinExec>()
        || node.is::<SinkExec>();
    if known {
        return Ok(());
    }
    if let Some(exchange) = node.downcast_ref::<RepartitionExec>() {
        return match exchange.partitioning() {
            Partitioning::Hash(..) | Partitioning::RoundRobinBatch(_) | Partitioning::UnknownPartitioning(_) => Ok(()),
            _ => Err("its rows are exchanged by ranges".to_string()),
        };
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return splits_groups(aggregate);
    }
    splits_join(node)
}

/// Operators that look at rows one by one, or hand them on.
fn is_row_by_row(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<FilterExec>()
        || node.is::<ProjectionExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<CooperativeExec>()
        || node.is::<SortExec>()
        || node.is::<SortPreservingMergeExec>()
        || node.is::<UnionExec>()
        || node.is::<InterleaveExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<UnnestExec>()
        || node.is::<WholeExec>()
        || node.is::<LineNumbersExec>()
        || is_batches(node)
}

/// An operator that only makes batches larger; upstream calls it deprecated and plans it still.
#[allow(deprecated, reason = "it is planned still")]
fn is_batches(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<datafusion::physical_plan::coalesce_batches::CoalesceBatchesExec>()
}

/// The group of all rows has its row also where there are none, once; tasks that each see nothing would each give it.
fn splits_groups(aggregate: &AggregateExec) -> Splits {
    let groups = aggregate.group_expr();
    match groups.has_grouping_set() && groups.expr().is_empty() {
        true => Err("its grouping set () gives a row where there is none".to_string()),
        false => Ok(()),
    }
}

fn splits_join(node: &Arc<dyn ExecutionPlan>) -> Splits {
    let whole =
        |side: &Arc<dyn ExecutionPlan>| side.is::<WholeExec>() || side.output_partitioning().partition_count() == 1;
    let unless = |splits: bool, kind: JoinType| match splits {
        true => Ok(()),
        false => Err(format!("rows of its {} must be seen by one process", named(kind))),
    };
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let kind = *join.join_type();
        return match join.partition_mode() {
            PartitionMode::Partitioned => unless(!join.null_aware, kind),
            PartitionMode::CollectLeft if join.null_aware => unless(join.right().is::<WholeExec>(), kind),
            PartitionMode::CollectLeft => unless(is_driven_by_right(kind) && whole(join.left()), kind),
            PartitionMode::Auto => unless(false, kind),
        };
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let kind = *join.join_type();
        return unless(whole(join.left()) && (is_driven_by_right(kind) || join.right().is::<WholeExec>()), kind);
    }
    match node.downcast_ref::<CrossJoinExec>() {
        Some(join) => unless(whole(join.left()), JoinType::Inner),
        None => Err(format!("{} runs in one process", node.name())),
    }
}

/// A kind of join in words.
fn named(kind: JoinType) -> &'static str {
    match kind {
        JoinType::Inner => "join",
        JoinType::Left | JoinType::Right | JoinType::Full => "outer join",
        JoinType::LeftSemi | JoinType::RightSemi => "EXISTS or IN",
        JoinType::LeftAnti | JoinType::RightAnti => "NOT EXISTS or NOT IN",
        _ => "subquery in a condition",
    }
}
