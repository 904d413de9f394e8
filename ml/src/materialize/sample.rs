//! A few of the staged rows, the same ones in whatever order the rows came: those with the smallest keys.

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use engine::Result;

use super::row_key::{RowKey, arrow_error, canonical};
use super::split::{Part, Split};
use super::staging::{Staged, part_of};

impl Staged {
    /// At most `count` rows of all parts, ascending by key.
    ///
    /// # Errors
    /// Spilled rows that cannot be read.
    pub fn sample(&self, count: usize) -> Result<RecordBatch> {
        let mut kept: BTreeMap<RowKey, RecordBatch> = BTreeMap::new();
        for item in self.items() {
            for batch in item.batches()? {
                let (rows, keys) = part_of(&batch?, &Split::None, Part::Train)?;
                for (row, key) in keys.into_iter().enumerate() {
                    let largest = kept.last_key_value().map(|(key, _)| *key);
                    let full = kept.len() == count;
                    if count == 0 || (full && largest.is_some_and(|largest| key > largest)) {
                        continue;
                    }
                    if full {
                        kept.pop_last();
                    }
                    // A copy: a slice would keep its whole batch in memory.
                    let alone = take_record_batch(&rows, &UInt32Array::from(vec![row as u32])).map_err(arrow_error)?;
                    kept.insert(key, alone);
                }
            }
        }
        canonical(&concat_batches(self.schema(), kept.values()).map_err(arrow_error)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::materialize::staging::tests::staged;

    fn numbers(values: impl Iterator<Item = i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(values)) as _)]).unwrap()
    }

    #[tokio::test]
    async fn the_order_of_the_rows_does_not_matter() {
        let context = SessionContext::new();
        let forwards = staged(&context, vec![numbers(0..1000)]).await;
        let backwards =
            staged(&context, (0..10).map(|i| numbers((i * 100..(i + 1) * 100).rev())).rev().collect()).await;
        let twice = staged(&context, vec![numbers(0..1000), numbers(0..1000)]).await;
        let all_twice = staged(&context, (0..1000).map(|i| numbers([i, i].into_iter())).collect()).await;
        for count in [0, 1, 64, 1000, 2000] {
            let sample = forwards.sample(count).unwrap();
            assert_eq!(sample.num_rows(), count.min(1000));
            assert_eq!(sample, backwards.sample(count).unwrap());
            assert_eq!(twice.sample(count).unwrap(), all_twice.sample(count).unwrap());
            assert_eq!(twice.sample(count).unwrap().num_rows(), count);
        }
    }
}
