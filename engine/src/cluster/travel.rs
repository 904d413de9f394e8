//! Whether a plan is the same after it has travelled. Upstream's messages have no place for every flag of every operator:
//! FILTER and IGNORE NULLS of windows, empty grouping sets and JSON arrays are read back as if they had not been there
//! (DataFusion 55.2). So a plan is written, read and compared before it is handed over, operator by operator: what the two
//! say of themselves, what they compute, and what they give.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{CsvSource, FileScanConfig, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::{
    PlainAggregateWindowExpr, SlidingAggregateWindowExpr, StandardWindowExpr, WindowExpr,
};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, ExecutionPlanProperties};
use datafusion_proto::physical_plan::{AsExecutionPlan, PhysicalExtensionCodec};
use datafusion_proto::protobuf::PhysicalPlanNode;

/// A plan on its way.
pub(crate) struct Travelled {
    pub(crate) bytes: Vec<u8>,
    /// As it is read at the other end.
    pub(crate) arrived: Arc<dyn ExecutionPlan>,
}

/// The plan as bytes, or why it would not arrive as it is.
///
/// # Errors
/// None of its own: what cannot be written or read does not travel.
pub(crate) fn written(
    plan: &Arc<dyn ExecutionPlan>,
    codec: &dyn PhysicalExtensionCodec,
    context: &TaskContext,
) -> std::result::Result<Travelled, String> {
    let attempt = || -> Result<(Travelled, Option<String>)> {
        let message = PhysicalPlanNode::try_from_physical_plan(Arc::clone(plan), codec)?;
        let mut bytes = Vec::new();
        message.try_encode(&mut bytes)?;
        let arrived = PhysicalPlanNode::try_decode(&bytes)?.try_into_physical_plan(context, codec)?;
        let operator = changed(plan, &arrived)?;
        Ok((Travelled { bytes, arrived }, operator))
    };
    match attempt() {
        Ok((travelled, None)) => Ok(travelled),
        Ok((_, Some(operator))) => Err(format!("{} cannot be told to executors", spoken(&operator))),
        Err(error) => {
            tracing::debug!(%error, "the plan does not travel");
            Err("an operator of the plan cannot be sent to executors".to_string())
        }
    }
}

/// An operator as users know it.
fn spoken(operator: &str) -> String {
    match operator {
        "WindowAggExec" | "BoundedWindowAggExec" => "a window with FILTER or IGNORE NULLS".to_string(),
        "AggregateExec" => "grouping or an aggregate of its kind".to_string(),
        "DataSourceExec" => "how it reads its files".to_string(),
        other => format!("what {other} does"),
    }
}

/// The name of the first operator that has changed.
fn changed(before: &Arc<dyn ExecutionPlan>, after: &Arc<dyn ExecutionPlan>) -> Result<Option<String>> {
    let (own, others) = (before.children(), after.children());
    if own.len() != others.len() || !is_same(before, after)? {
        return Ok(Some(before.name().to_string()));
    }
    for (own, other) in own.into_iter().zip(others) {
        if let Some(operator) = changed(own, other)? {
            return Ok(Some(operator));
        }
    }
    Ok(None)
}

fn is_same(before: &Arc<dyn ExecutionPlan>, after: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let same = told(before)? == told(after)?
        && before.schema().fields().len() == after.schema().fields().len()
        && (before.schema().fields().iter().zip(after.schema().fields())).all(|(own, other)| {
            own.name() == other.name()
                && own.data_type() == other.data_type()
                && own.is_nullable() == other.is_nullable()
        })
        && is_same_source(before, after);
    if !same {
        tracing::debug!(before = told(before)?, after = told(after)?, "the plan changes on its way");
    }
    Ok(same)
}

/// What an operator says of itself, with everything that it computes.
fn told(node: &Arc<dyn ExecutionPlan>) -> Result<String> {
    let mut parts = vec![node.name().to_string(), node.output_partitioning().partition_count().to_string()];
    if node.is::<DataSourceExec>() {
        // Its text tells, beside what is compared below, what a reader makes of that for itself.
        return Ok(parts.join("\n"));
    }
    parts.push(Verbose(node.as_ref()).to_string());
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr();
        parts.push(format!("{:?} {:?} {}", groups.expr(), groups.groups(), groups.has_grouping_set()));
        parts.push(format!("{:?} {:?}", aggregate.filter_expr(), aggregate.limit_options()));
        parts.extend(aggregate.aggr_expr().iter().map(|function| of_aggregate(function)));
    } else if let Some(window) = node.downcast_ref::<WindowAggExec>() {
        parts.extend(window.window_expr().iter().map(of_window));
    } else if let Some(window) = node.downcast_ref::<BoundedWindowAggExec>() {
        parts.push(format!("{:?}", window.input_order_mode));
        parts.extend(window.window_expr().iter().map(of_window));
    } else {
        node.apply_expressions(&mut |expression| {
            parts.push(format!("{expression:?}"));
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(parts.join("\n"))
}

struct Verbose<'a>(&'a dyn ExecutionPlan);

impl fmt::Display for Verbose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(DisplayFormatType::Verbose, f)
    }
}

fn of_aggregate(function: &AggregateFunctionExpr) -> String {
    format!(
        "{} {} {:?} {:?} distinct={} ignore_nulls={} reversed={} {}",
        function.fun().name(),
        function.name(),
        function.expressions(),
        function.order_bys(),
        function.is_distinct(),
        function.ignore_nulls(),
        function.is_reversed(),
        function.field().data_type(),
    )
}

fn of_window(window: &Arc<dyn WindowExpr>) -> String {
    let whole = window.as_any();
    let function = if let Some(plain) = whole.downcast_ref::<PlainAggregateWindowExpr>() {
        of_aggregate(plain.get_aggregate_expr())
    } else if let Some(sliding) = whole.downcast_ref::<SlidingAggregateWindowExpr>() {
        of_aggregate(sliding.get_aggregate_expr())
    } else if let Some(standard) = whole.downcast_ref::<StandardWindowExpr>() {
        // Only its debug text tells IGNORE NULLS.
        format!("{:?}", standard.get_standard_func_expr())
    } else {
        format!("{window:?}")
    };
    let filter = format!("{window:?}");
    let filter = filter.rsplit_once("filter: ").map_or("", |(_, filter)| filter);
    format!(
        "{function} {} {:?} {:?} {:?} filter={filter}",
        window.name(),
        window.partition_by(),
        window.order_by(),
        window.get_window_frame(),
    )
}

/// Whether two leaves read the same in the same way.
fn is_same_source(before: &Arc<dyn ExecutionPlan>, after: &Arc<dyn ExecutionPlan>) -> bool {
    let sources = |node: &Arc<dyn ExecutionPlan>| {
        node.downcast_ref::<DataSourceExec>().map(|leaf| Arc::clone(leaf.data_source()))
    };
    match (sources(before), sources(after)) {
        (None, None) => true,
        (Some(own), Some(other)) => {
            if let (Some(own), Some(other)) =
                (own.downcast_ref::<FileScanConfig>(), other.downcast_ref::<FileScanConfig>())
            {
                return is_same_scan(own, other);
            }
            let rows = |source: &MemorySourceConfig| -> usize {
                source.partitions().iter().flatten().map(arrow::array::RecordBatch::num_rows).sum()
            };
            match (own.downcast_ref::<MemorySourceConfig>(), other.downcast_ref::<MemorySourceConfig>()) {
                (Some(own), Some(other)) => rows(own) == rows(other) && own.projection() == other.projection(),
                _ => false,
            }
        }
        _ => false,
    }
}

fn is_same_scan(own: &FileScanConfig, other: &FileScanConfig) -> bool {
    let files = |scan: &FileScanConfig| -> Vec<String> {
        (scan.file_groups.iter())
            .flat_map(|group| group.files())
            .map(|file| {
                let range = file.range.as_ref().map(|range| (range.start, range.end));
                let place = (&file.object_meta.location, file.object_meta.size);
                format!("{place:?} {range:?} {:?}", file.partition_values)
            })
            .collect()
    };
    let parquet = |scan: &FileScanConfig| {
        let source = scan.file_source().downcast_ref::<ParquetSource>()?;
        Some((source.table_parquet_options().clone(), format!("{:?}", scan.file_source().filter())))
    };
    // Its debug text is the only one that tells all options.
    let csv = |scan: &FileScanConfig| {
        let source = scan.file_source().downcast_ref::<CsvSource>()?;
        Some(format!(
            "{} {} {:?} {:?} {:?} {:?} {} {}",
            source.has_header(),
            source.delimiter(),
            source.quote(),
            source.terminator(),
            source.comment(),
            source.escape(),
            source.newlines_in_values(),
            source.truncate_rows(),
        ))
    };
    let columns = |scan: &FileScanConfig| {
        let projection = scan.file_source().projection().map(|columns| columns.iter().cloned().collect::<Vec<_>>());
        format!("{projection:?} {:?}", scan.output_ordering)
    };
    own.object_store_url == other.object_store_url
        && columns(own) == columns(other)
        && own.limit == other.limit
        && own.file_compression_type == other.file_compression_type
        && own.file_source().file_type() == other.file_source().file_type()
        && files(own) == files(other)
        && parquet(own) == parquet(other)
        && csv(own) == csv(other)
}
