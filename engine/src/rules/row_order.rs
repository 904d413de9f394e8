//! Rows of files and of tables in memory keep their order where nothing asks for another: what LIMIT without ORDER BY gives
//! are the first rows, a copy into one file has its rows as the file that it is of, and `row_number() OVER ()` numbers lines.
//!
//! The query engine cuts files into partitions and gathers partitions as they come (DataFusion 55.2). Where the order is
//! asked for and everything down to the scans keeps it, these rules see to it that the partitions of a scan follow each
//! other as the files by their names and the pieces in a file do, that no reader takes another one's piece, that nothing
//! deals batches out, and that partitions are gathered one after the other ([`OrderedGather`]). Files by name are what a
//! directory means: the rows of the first file come first.
//!
//! Who asks: LIMIT, windows that neither partition nor order, sinks with one file, tables in memory that take rows, and the
//! runner for what leaves the plan. Aggregates, joins and sorts do not, and nothing changes below them. For one process:
//! an exchange between tasks of a cluster has no order.

mod batchwise;
mod gather;

use std::any::Any;
use std::sync::Arc;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, Partitioning, ReplaceChildrenOptions,
};

use crate::memory::FairPool;
use crate::rules::line_numbers::LineNumbersExec;
use crate::rules::read_ahead::is_remote;
use crate::sink::SinkExec;
use batchwise::{Batchwise, is_step};
use gather::OrderedGather;

/// Bytes of a file that a reader takes at a time, where all are gathered: small enough that those that are read ahead can
/// wait in memory, large enough that opening them costs nothing.
const PIECE_BYTES: u64 = 8 << 20;
/// Pieces of one scan.
const PIECES_MAX: u64 = 4096;
/// Readers of a store behind a network that run at once, where memory has no limit.
const REMOTE_READERS: usize = 32;
/// Batches that wait for their turn in each partition, without a memory limit and with one.
const WAITING: usize = 32;
const WAITING_WITHIN_LIMIT: usize = 2;

/// Whether who runs a plan wants its rows in order. Part of the configuration of that one plan, and shown nowhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowOrder {
    pub(crate) kept: bool,
}

impl ConfigExtension for RowOrder {
    const PREFIX: &'static str = "row_order";
}

impl ExtensionOptions for RowOrder {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        Err(DataFusionError::Configuration(format!("there is no option row_order.{key}")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

fn is_wanted(config: &ConfigOptions) -> bool {
    config.extensions.get::<RowOrder>().is_some_and(|order| order.kept)
}

/// How a gathering reads.
#[derive(Debug, Clone, Copy)]
struct Readers {
    /// Partitions that are read at once.
    at_once: usize,
    /// Batches of each that wait for their turn.
    waiting: usize,
}

impl Readers {
    fn of(plan: &Arc<dyn ExecutionPlan>, partitions: usize, is_limited: bool) -> Self {
        match is_limited {
            true => Readers { at_once: partitions.max(1), waiting: WAITING_WITHIN_LIMIT },
            false if reads_remote(plan) => Readers { at_once: REMOTE_READERS.max(2 * partitions), waiting: WAITING },
            false => Readers { at_once: 2 * partitions.max(1), waiting: WAITING },
        }
    }
}

fn reads_remote(plan: &Arc<dyn ExecutionPlan>) -> bool {
    file_scan(plan).is_some_and(is_remote) || plan.children().into_iter().any(reads_remote)
}

fn file_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

/// Rows come out of it as they went in, whatever it does to each or however many it lets through.
fn passes_on(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<UnionExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<OrderedGather>()
        || plan.is::<Batchwise>()
        || plan.is::<LineNumbersExec>()
        || deals(plan)
        || is_window_over_all(plan)
}

/// Deals batches out in turn, to have more partitions.
fn deals(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let exchange = plan.downcast_ref::<RepartitionExec>();
    exchange.is_some_and(|exchange| matches!(exchange.partitioning(), Partitioning::RoundRobinBatch(_)))
}

fn is_window_over_all(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let expressions = match (plan.downcast_ref::<WindowAggExec>(), plan.downcast_ref::<BoundedWindowAggExec>()) {
        (Some(window), _) => window.window_expr(),
        (_, Some(window)) => window.window_expr(),
        _ => return false,
    };
    let is_plain = |window: &Arc<dyn WindowExpr>| window.partition_by().is_empty() && window.order_by().is_empty();
    expressions.iter().all(is_plain)
}

/// Whether its answer depends on the order of the rows below it.
fn asks(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<GlobalLimitExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<DataSinkExec>()
        || is_window_over_all(plan)
        || plan.downcast_ref::<CoalescePartitionsExec>().is_some_and(|gather| gather.fetch().is_some())
        || plan.downcast_ref::<SinkExec>().is_some_and(SinkExec::keeps_order_of_input)
}

/// Whether the rows of all partitions, one after the other, are in order once [`arranged`].
fn has_order(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<DataSourceExec>() {
        return true;
    }
    match passes_on(plan) {
        true => plan.children().into_iter().all(has_order),
        // One after the other is all that one partition can be.
        false => plan.output_partitioning().partition_count() == 1,
    }
}

fn replaced(
    plan: Arc<dyn ExecutionPlan>,
    rewrite: impl Fn(Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let before: Vec<_> = plan.children().into_iter().cloned().collect();
    let after = before.iter().cloned().map(rewrite).collect::<Result<Vec<_>>>()?;
    if before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)) {
        return Ok(plan);
    }
    plan.replace_children(after, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// Gathers in order and puts scans in order, where somebody asks.
#[derive(Debug)]
pub(super) struct InOrder {
    memory: Arc<FairPool>,
}

impl InOrder {
    pub(super) fn new(memory: Arc<FairPool>) -> Self {
        InOrder { memory }
    }

    fn walked(&self, plan: Arc<dyn ExecutionPlan>, wanted: bool, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let gathers_first = plan.is::<CoalescePartitionsExec>() && asks(&plan);
        if (wanted || gathers_first) && has_order(&plan) {
            return self.arranged(plan, partitions);
        }
        if let Some(scan) = file_scan(&plan) {
            // A reader with a limit of its own may take the parts of a file first that need no looking at.
            return Ok(if scan.limit.is_some() && !scan.preserve_order { in_file_order(scan)? } else { plan });
        }
        let wanted = asks(&plan) || wanted && passes_on(&plan);
        replaced(plan, |child| self.walked(child, wanted, partitions))
    }

    /// The same plan with its rows in order; what has one partition by itself is walked through for others who ask.
    fn arranged(&self, plan: Arc<dyn ExecutionPlan>, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(scan) = file_scan(&plan) {
            return in_file_order(scan);
        }
        if plan.is::<DataSourceExec>() {
            return Ok(plan);
        }
        if deals(&plan) {
            let [input] = plan.children()[..] else { return Ok(plan) };
            return self.arranged(Arc::clone(input), partitions);
        }
        if let Some(gather) = plan.downcast_ref::<CoalescePartitionsExec>() {
            let input = self.arranged(Arc::clone(gather.input()), partitions)?;
            return self.gathered(plan, input, partitions);
        }
        if let Some(batchwise) = self.batchwise(&plan, partitions)? {
            return Ok(batchwise);
        }
        match passes_on(&plan) {
            true => replaced(plan, |child| self.arranged(child, partitions)),
            false => {
                let wanted = asks(&plan);
                replaced(plan, |child| self.walked(child, wanted, partitions))
            }
        }
    }

    /// Projections and filters over batches that one partition deals out.
    fn batchwise(&self, plan: &Arc<dyn ExecutionPlan>, partitions: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (mut steps, mut node) = (Vec::new(), plan);
        while is_step(node) {
            let [input] = node.children()[..] else { return Ok(None) };
            steps.push(Arc::clone(node));
            node = input;
        }
        let [input] = node.children()[..] else { return Ok(None) };
        if steps.is_empty() || !deals(node) || input.output_partitioning().partition_count() != 1 {
            return Ok(None);
        }
        steps.reverse();
        let input = self.arranged(Arc::clone(input), partitions)?;
        Ok(Some(Arc::new(Batchwise::new(input, Arc::new(steps), partitions.max(1)))))
    }

    fn gathered(
        &self,
        gather: Arc<dyn ExecutionPlan>,
        input: Arc<dyn ExecutionPlan>,
        partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let fetch = gather.fetch();
        if input.output_partitioning().partition_count() > 1 {
            return ordered_gather(input, fetch, partitions, self.memory.limit().is_some());
        }
        match fetch {
            None => Ok(input),
            Some(_) => {
                gather.replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
            }
        }
    }
}

impl PhysicalOptimizerRule for InOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        self.walked(plan, is_wanted(config), config.execution.target_partitions)
    }

    fn name(&self) -> &'static str {
        "in_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// All rows of a plan in one partition, in order where they have one; `None` when it has one partition or no order.
pub(crate) fn gathered_in_order(
    plan: &Arc<dyn ExecutionPlan>,
    partitions: usize,
    is_limited: bool,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if plan.output_partitioning().partition_count() < 2 || !has_order(plan) {
        return Ok(None);
    }
    ordered_gather(Arc::clone(plan), None, partitions, is_limited).map(Some)
}

fn ordered_gather(
    input: Arc<dyn ExecutionPlan>,
    fetch: Option<usize>,
    partitions: usize,
    is_limited: bool,
) -> Result<Arc<dyn ExecutionPlan>> {
    let readers = Readers::of(&input, partitions, is_limited);
    // Who wants few rows has them from the first pieces, however large.
    let input = if fetch.is_none() { in_pieces(input)? } else { input };
    Ok(Arc::new(OrderedGather::new(input, fetch, readers)))
}

/// Whether it works on each partition by itself, however many there are.
fn has_partitions_of_inputs(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<UnionExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<CooperativeExec>()
}

/// The scans of a plan in pieces that follow each other.
fn in_pieces(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(scan) = file_scan(&plan) else {
        return if has_partitions_of_inputs(&plan) { replaced(plan, in_pieces) } else { Ok(plan) };
    };
    let bytes: u64 = scan.file_groups.iter().flat_map(FileGroup::iter).map(PartitionedFile::effective_size).sum();
    let pieces = (bytes / PIECE_BYTES).min(PIECES_MAX) as usize;
    if scan.output_partitioning.is_some() {
        return Ok(plan);
    }
    if pieces <= scan.file_groups.len() || scan.limit.is_some() {
        return Ok(plan);
    }
    let mut cut = match scan.file_source().repartitioned(pieces, 0, None, scan)? {
        Some(cut) => cut,
        None => scan.clone(),
    };
    if cut.file_groups.len() <= scan.file_groups.len() {
        cut.file_groups = (scan.file_groups.iter().flat_map(FileGroup::iter))
            .map(|file| FileGroup::new(vec![file.clone()]))
            .collect();
    }
    keep_order(&mut cut);
    Ok(DataSourceExec::from_data_source(cut))
}

/// Has readers keep to their files. An order that the files have each for itself, and not together, is forgotten: it would
/// make [`keeps_order`] doubtful.
fn keep_order(scan: &mut FileScanConfig) {
    scan.preserve_order = true;
    if scan.eq_properties().output_ordering().is_none() {
        scan.output_ordering.clear();
    }
}

/// Whether the order of the scan's rows was asked for by these rules. The query engine binds readers to files, too, where
/// each file has an order for itself.
pub(super) fn keeps_order(scan: &FileScanConfig) -> bool {
    scan.preserve_order && scan.output_ordering.is_empty()
}

/// The scan with its files by their names and the pieces of a file as they lie in it, and with readers that keep to what
/// they were given.
fn in_file_order(scan: &FileScanConfig) -> Result<Arc<dyn ExecutionPlan>> {
    let mut ordered = scan.clone();
    keep_order(&mut ordered);
    let before: Vec<&PartitionedFile> = scan.file_groups.iter().flat_map(FileGroup::iter).collect();
    let is_in_order = before.windows(2).all(|pair| place(pair[0]) <= place(pair[1]));
    // An order that was declared for a single partition is one that somebody relies on.
    // Files that are a partition each are in order already.
    if scan.output_partitioning.is_none()
        && !is_in_order
        && (scan.file_groups.len() > 1 || scan.output_ordering.is_empty())
    {
        let mut files: Vec<PartitionedFile> = before.into_iter().cloned().collect();
        files.sort_by(|a, b| place(a).cmp(&place(b)));
        ordered.output_ordering.clear();
        ordered.file_groups = in_turn(files, scan.file_groups.len());
    }
    Ok(DataSourceExec::from_data_source(ordered))
}

fn place(file: &PartitionedFile) -> (&str, i64) {
    (file.object_meta.location.as_ref(), file.range.as_ref().map_or(0, |range| range.start))
}

/// Files one after the other in so many groups of about the same size, or in fewer.
fn in_turn(files: Vec<PartitionedFile>, groups: usize) -> Vec<FileGroup> {
    let total: u64 = files.iter().map(PartitionedFile::effective_size).sum();
    let share = total.div_ceil(groups.max(1) as u64).max(1);
    let mut dealt: Vec<Vec<PartitionedFile>> = vec![Vec::new()];
    let mut bytes = 0;
    for file in files {
        if bytes >= share && dealt.len() < groups {
            dealt.push(Vec::new());
            bytes = 0;
        }
        bytes += file.effective_size();
        if let Some(group) = dealt.last_mut() {
            group.push(file);
        }
    }
    dealt.into_iter().map(FileGroup::new).collect()
}

/// Cuts tables in memory into as many partitions as plans have, batch after batch, before the query engine does it in an
/// order of its own (largest batches first).
#[derive(Debug)]
pub(super) struct MemoryInOrder;

impl MemoryInOrder {
    fn walked(plan: Arc<dyn ExecutionPlan>, wanted: bool, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
            let source = source.data_source().downcast_ref::<MemorySourceConfig>();
            return match source.filter(|_| wanted).and_then(|source| cut(source, partitions)) {
                Some(cut) => Ok(DataSourceExec::from_data_source(cut?)),
                None => Ok(plan),
            };
        }
        let is_end = plan.name() == "OutputRequirementExec";
        let wanted = asks(&plan) || wanted && (is_end || passes_on(&plan));
        replaced(plan, |child| Self::walked(child, wanted, partitions))
    }
}

fn cut(source: &MemorySourceConfig, partitions: usize) -> Option<Result<MemorySourceConfig>> {
    let before = source.partitions();
    if before.is_empty() || before.len() >= partitions || !source.sort_information().is_empty() {
        return None;
    }
    let batches: Vec<_> = before.iter().flatten().cloned().collect();
    let total: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let share = total.div_ceil(partitions).max(1);
    let mut dealt = vec![Vec::new()];
    let mut rows = 0;
    for batch in batches {
        if rows >= share && dealt.len() < partitions {
            dealt.push(Vec::new());
            rows = 0;
        }
        rows += batch.num_rows();
        if let Some(partition) = dealt.last_mut() {
            partition.push(batch);
        }
    }
    dealt.resize(partitions, Vec::new());
    let made = MemorySourceConfig::try_new(&dealt, source.original_schema(), source.projection().clone());
    Some(made.map(|made| made.with_limit(source.fetch())))
}

impl PhysicalOptimizerRule for MemoryInOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Self::walked(plan, is_wanted(config), config.execution.target_partitions)
    }

    fn name(&self) -> &'static str {
        "memory_in_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
