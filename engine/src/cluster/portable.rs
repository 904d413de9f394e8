//! Which plans may be cut into tasks. Upstream restricts a task's plan to its partitions only at leaves that it knows; a
//! leaf that it does not know gives all of its rows in every task. So a plan with another leaf runs in the driver.

use std::sync::Arc;

use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{CsvSource, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};

/// Rows in the driver's memory that may travel inside a plan.
const INLINE_BYTES_MAX: usize = 16 << 20;

/// Whether executors can run the plan, and have anything to read in it.
pub(crate) fn is_portable(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut leaves = Leaves::default();
    leaves.visit(plan, false);
    leaves.known && leaves.scans > 0 && leaves.inline_bytes <= INLINE_BYTES_MAX
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

struct Leaves {
    known: bool,
    /// Leaves with data.
    scans: usize,
    inline_bytes: usize,
}

impl Default for Leaves {
    fn default() -> Self {
        Leaves { known: true, scans: 0, inline_bytes: 0 }
    }
}

impl Leaves {
    fn visit(&mut self, node: &Arc<dyn ExecutionPlan>, in_union: bool) {
        let children = node.children();
        if children.is_empty() {
            self.leaf(node, in_union);
        }
        let in_union = in_union || node.is::<UnionExec>() || node.is::<InterleaveExec>();
        for child in children {
            self.visit(child, in_union);
        }
    }

    fn leaf(&mut self, node: &Arc<dyn ExecutionPlan>, in_union: bool) {
        if node.is::<EmptyExec>() || node.is::<PlaceholderRowExec>() {
            // A stage with such a branch beside others never ends upstream (Ballista 55.0).
            self.known &= !in_union;
            return;
        }
        let Some(source) = node.downcast_ref::<DataSourceExec>() else {
            self.known = false;
            return;
        };
        if let Some(files) = source.data_source().downcast_ref::<FileScanConfig>() {
            self.scans += 1;
            self.known &= travels_whole(files);
        } else if let Some(memory) = source.data_source().downcast_ref::<MemorySourceConfig>() {
            let batches = memory.partitions().iter().flatten();
            self.inline_bytes += batches.map(arrow::array::RecordBatch::get_array_memory_size).sum::<usize>();
            // Rows that are in the driver are no reason to send it away.
        } else {
            self.known = false;
        }
    }
}
