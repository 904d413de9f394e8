//! Copies of a row are rows: each gets a number among its equals, from 0, and with it a key of its own, so that split,
//! shards and order treat a thousand equal rows as they treat a thousand different ones. Which of them has which number
//! does not matter, since they are alike.
//!
//! Rows whose keys fall into one bucket are looked at together: those in memory as sorted lists, those on disk in one pass
//! over their keys. A bucket holds all copies of its rows.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arrow::array::{Array, FixedSizeBinaryArray, RecordBatch};
use engine::Result;

use super::build::first_cause;
use super::piece::Piece;
use super::row_key::{RowKey, arrow_error, from_array, to_array};

/// Rows of a bucket in memory, about: as many as a processor's cache holds while they are sorted.
const BUCKET_ROWS: usize = 8192;
const BUCKETS_MAX: usize = 1 << 11;

/// Gives the keys of copies to staged rows, all of which are in memory, or all on disk by bucket.
///
/// # Errors
/// Keys that cannot be read or written.
pub(super) fn tell_apart(pieces: &mut [Piece]) -> Result<()> {
    let batches: Vec<&RecordBatch> = pieces.iter().filter_map(Piece::in_memory).collect();
    if batches.is_empty() {
        let pieces = &*pieces;
        return on_threads(pieces.len(), |number| pieces[number].number_copies()).map(drop);
    }
    debug_assert_eq!(batches.len(), pieces.len(), "some rows are in memory and some are not");
    let mut copies: Vec<Vec<(u32, u32)>> = vec![Vec::new(); batches.len()];
    for copy in find(&batches)? {
        copies[copy.at.batch as usize].push((copy.at.row, copy.number));
    }
    let keyed = on_threads(batches.len(), |number| match copies[number].as_slice() {
        [] => Ok(None),
        copies => with_copies(batches[number], copies).map(Some),
    })?;
    for (piece, keyed) in pieces.iter_mut().zip(keyed) {
        if let Some(batch) = keyed {
            *piece = Piece::Memory(batch);
        }
    }
    Ok(())
}

/// A row by its batch and its place there, with a part of its key to sort it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    part: u64,
    batch: u32,
    row: u32,
}

/// A row that has an equal before it.
struct Copy {
    at: At,
    number: u32,
}

/// The copies among rows in memory, whose keys are those of rows without copies.
fn find(batches: &[&RecordBatch]) -> Result<Vec<Copy>> {
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let buckets = (rows / BUCKET_ROWS).next_power_of_two().min(BUCKETS_MAX);
    // Some batches at a time, each with lists of its own.
    let together = batches.len().div_ceil(threads());
    let dealt = on_threads(batches.len().div_ceil(together.max(1)), |number| {
        let first = number * together;
        let batches = &batches[first..(first + together).min(batches.len())];
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        let mut lists: Vec<Vec<At>> = (0..buckets).map(|_| Vec::with_capacity(rows / buckets * 9 / 8)).collect();
        for (batch, rows) in (first as u32..).zip(batches) {
            for (row, key) in (0u32..).zip(from_array(key_column(rows))) {
                lists[key.bucket(buckets)].push(At { part: key.0 as u64, batch, row });
            }
        }
        Ok(lists)
    })?;
    let found = on_threads(buckets, |bucket| {
        let mut list: Vec<At> = dealt.iter().flat_map(|lists| lists[bucket].iter().copied()).collect();
        list.sort_unstable();
        Ok(copies_of(&list, batches))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// The copies in a sorted list.
fn copies_of(list: &[At], batches: &[&RecordBatch]) -> Vec<Copy> {
    let mut copies = Vec::new();
    for alike in list.chunk_by(|a, b| a.part == b.part).filter(|alike| alike.len() > 1) {
        // Half a key says little: what counts is the whole.
        let mut rows: Vec<(RowKey, At)> = alike.iter().map(|at| (key_at(batches, *at), *at)).collect();
        rows.sort_unstable();
        for equals in rows.chunk_by(|a, b| a.0 == b.0) {
            copies.extend((0u32..).zip(equals).skip(1).map(|(number, (_, at))| Copy { at: *at, number }));
        }
    }
    copies
}

fn key_column(batch: &RecordBatch) -> &dyn Array {
    batch.column(batch.num_columns() - 1).as_ref()
}

fn key_at(batches: &[&RecordBatch], at: At) -> RowKey {
    let keys = key_column(batches[at.batch as usize]).as_any().downcast_ref::<FixedSizeBinaryArray>();
    let key = keys.expect("a key column is 16 bytes wide").value(at.row as usize);
    RowKey(u128::from_be_bytes(key.try_into().expect("a key is 16 bytes")))
}

fn with_copies(batch: &RecordBatch, copies: &[(u32, u32)]) -> Result<RecordBatch> {
    let mut keys = from_array(key_column(batch));
    for (row, number) in copies {
        let key = &mut keys[*row as usize];
        *key = key.of_copy(u64::from(*number));
    }
    let mut columns = batch.columns().to_vec();
    *columns.last_mut().expect("the last column has the keys") = to_array(&keys)?;
    RecordBatch::try_new(batch.schema(), columns).map_err(arrow_error)
}

/// Numbers copies among keys that come one after the other.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    seen: HashMap<u128, u64, BuildHasherDefault<OfKeys>>,
}

impl Numbering {
    /// Makes the keys those of copies; whether there were any.
    pub(super) fn number(&mut self, keys: &mut [RowKey]) -> bool {
        let mut any = false;
        for key in keys {
            let copies = self.seen.entry(key.0).or_insert(0);
            any |= *copies > 0;
            *key = key.of_copy(*copies);
            *copies += 1;
        }
        any
    }
}

/// A key is a hash.
#[derive(Debug, Default)]
struct OfKeys(u64);

impl Hasher for OfKeys {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64 ^ (key >> 64) as u64;
    }
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does `count` pieces of work on some threads; gives their results in order.
fn on_threads<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let on_one = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            done.push((number, work(number)));
        }
    };
    let mut results: Vec<(usize, Result<T>)> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads().clamp(1, count.max(1))).map(|_| scope.spawn(on_one)).collect();
        let done = running.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        done.flatten().collect()
    });
    results.sort_unstable_by_key(|(number, _)| *number);
    first_cause(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::materialize::row_key::RowKeys;
    use crate::materialize::split::{Part, Split};
    use crate::materialize::staging::tests::{staged, staged_in};
    use crate::materialize::staging::{Staged, part_of};

    fn batch(values: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values.to_vec())) as _)]).unwrap()
    }

    /// What the rows' keys are to be, found one row after the other.
    fn naive(values: &[i64]) -> Vec<RowKey> {
        let rows = batch(values);
        let mut seen: HashMap<RowKey, u64> = HashMap::new();
        let first = RowKeys::new(&rows.schema(), 7).unwrap().of(&rows).unwrap();
        let mut keys: Vec<RowKey> = (first.into_iter())
            .map(|key| {
                let copies = seen.entry(key).or_insert(0);
                *copies += 1;
                key.of_copy(*copies - 1)
            })
            .collect();
        keys.sort_unstable();
        keys
    }

    fn keys(staged: &Staged) -> Vec<RowKey> {
        let batches = staged.items().iter().flat_map(|item| item.batches().unwrap());
        let mut keys: Vec<RowKey> =
            batches.flat_map(|batch| part_of(&batch.unwrap(), &Split::None, Part::Train).unwrap().1).collect();
        keys.sort_unstable();
        keys
    }

    #[tokio::test]
    async fn keys_are_those_of_the_rows_in_any_order_in_memory_and_on_disk() {
        let context = SessionContext::new();
        let count = 60_000;
        let tables: [Vec<i64>; 4] = [
            (0..count).collect(),
            (0..count).map(|i| i % 4).collect(),
            (0..count).map(|i| if i % 3 == 0 { 0 } else { i }).collect(),
            (0..count).map(|i| i / 3).collect(),
        ];
        for values in tables {
            let expected = naive(&values);
            assert!(expected.windows(2).all(|two| two[0] < two[1]), "two rows have one key");
            let whole = staged(&context, vec![batch(&values)]).await;
            assert!(keys(&whole) == expected);
            let pieces: Vec<RecordBatch> = values.rchunks(700).map(batch).collect();
            assert!(keys(&staged(&context, pieces.clone()).await) == expected);
            for memory in [1, 50_000, 600_000, 5_000_000] {
                let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
                let spilled = staged_in(&context, pieces.clone(), &pool, &[]).await.unwrap();
                assert!(keys(&spilled) == expected, "{memory}");
            }
        }
    }
}
