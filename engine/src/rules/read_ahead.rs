//! Scans of stores on other machines have more files under way than there are cores. A reader waits for every answer of
//! its store, and the query engine gives it one file at a time (DataFusion 55.2): as many readers as cores would leave the
//! cores idle. This rule gives such a scan more partitions and gathers their rows into as many as it had. How far readers
//! run ahead of who takes their rows is bounded: each stops when all that take have rows waiting.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use storage::Location;

use super::row_order::keeps_order;
use crate::memory::FairPool;
use crate::source::FILES_AT_ONCE;

/// Bytes that the readers of one scan may hold together when memory has no limit.
const HELD_BYTES: u64 = 1 << 30;
/// The part of a memory limit that they may hold otherwise.
const HELD_PART: u64 = 4;
/// What a reader of columns holds of a large file: a row group, of the size that writers keep to.
const ROW_GROUP_BYTES: u64 = 128 << 20;
/// Files are not cut smaller than this: every piece costs a look at the file's end.
const LEAST_PIECE_BYTES: u64 = 16 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct ReadAhead {
    memory: Arc<FairPool>,
}

impl ReadAhead {
    pub(super) fn new(memory: Arc<FairPool>) -> Self {
        ReadAhead { memory }
    }

    /// The same scan with more readers; `None` when it has enough, or when its order or its partitions mean something.
    fn widened(&self, scan: &FileScanConfig) -> Result<Option<FileScanConfig>> {
        let is_ordered = scan.eq_properties().output_ordering().is_some();
        let means_something = is_ordered || keeps_order(scan) || scan.output_partitioning.is_some();
        if means_something || scan.limit.is_some() || !is_remote(scan) {
            return Ok(None);
        }
        let files: Vec<PartitionedFile> = scan.file_groups.iter().flat_map(FileGroup::iter).cloned().collect();
        let sizes: Vec<u64> = files.iter().map(PartitionedFile::effective_size).collect();
        let readers = readers(&sizes, self.memory.limit().map(|limit| limit as u64));
        if readers <= scan.file_groups.len() {
            return Ok(None);
        }
        // An order that the files have each for itself is none of the scan, but binds files to readers.
        let mut wide = scan.clone();
        wide.output_ordering.clear();
        wide.preserve_order = false;
        if files.len() < readers
            && let Some(cut) = scan.file_source().repartitioned(readers, 0, None, &wide)?
        {
            return Ok(Some(cut));
        }
        wide.file_groups = dealt(files, readers);
        Ok((wide.file_groups.len() > scan.file_groups.len()).then_some(wide))
    }
}

impl PhysicalOptimizerRule for ReadAhead {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let scan = node.downcast_ref::<DataSourceExec>();
            let Some(scan) = scan.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>()) else {
                return Ok(Transformed::no(node));
            };
            let Some(wide) = self.widened(scan)? else { return Ok(Transformed::no(node)) };
            let gathered = Partitioning::RoundRobinBatch(scan.file_groups.len());
            let wide = DataSourceExec::from_data_source(wide);
            Ok(Transformed::yes(Arc::new(RepartitionExec::try_new(wide, gathered)?) as _))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "read_ahead"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

pub(super) fn is_remote(scan: &FileScanConfig) -> bool {
    Location::parse(scan.object_store_url.as_str()).is_ok_and(|location| location.scheme().is_remote())
}

/// How many readers files of these sizes (bytes) want under a memory limit (bytes).
fn readers(sizes: &[u64], limit: Option<u64>) -> usize {
    let total: u64 = sizes.iter().sum();
    let pieces = (total / LEAST_PIECE_BYTES).max(sizes.len() as u64);
    let held = sizes.iter().copied().max().unwrap_or(0).clamp(1, ROW_GROUP_BYTES);
    let allowed = limit.map_or(HELD_BYTES, |limit| limit / HELD_PART) / held;
    pieces.min(allowed).min(FILES_AT_ONCE as u64) as usize
}

/// Files in turn to so many groups, or to fewer when there are fewer files.
fn dealt(files: Vec<PartitionedFile>, groups: usize) -> Vec<FileGroup> {
    let mut dealt = vec![Vec::new(); groups.min(files.len())];
    for (place, file) in files.into_iter().enumerate() {
        dealt[place % groups].push(file);
    }
    dealt.into_iter().map(FileGroup::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_fit_into_memory_and_are_no_more_than_there_is_to_read() {
        const MB: u64 = 1 << 20;
        for (sizes, limit, expected) in [
            (vec![MB; 1000], None, 64),
            (vec![MB; 5], None, 5),
            (vec![], None, 0),
            (vec![0; 3], None, 3),
            // A large file in pieces; a very large one in as many as fit.
            (vec![64 * MB], None, 4),
            (vec![20_000 * MB], None, 8),
            (vec![20_000 * MB; 40], None, 8),
            // A limit is kept to by the largest file.
            (vec![MB; 1000], Some(512 * MB), 64),
            (vec![MB; 1000], Some(40 * MB), 10),
            (vec![20_000 * MB], Some(512 * MB), 1),
            (vec![100 * MB, MB, MB], Some(512 * MB), 1),
        ] {
            assert_eq!(readers(&sizes, limit), expected, "{} files under {limit:?}", sizes.len());
        }
    }
}
