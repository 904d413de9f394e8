//! What a statement has listed, kept while the statement is planned: the names that a glob means are looked up once, and
//! not again for each file and each part of the plan.
//!
//! Only for stores behind a network. Forgotten when a statement begins, when anything is written through the same stores,
//! and after half a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use object_store::ObjectMeta;
use object_store::path::Path;

use crate::store::held;

const KEPT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lists: HashMap<Path, (Instant, Arc<Vec<ObjectMeta>>)>,
    heads: HashMap<Path, (Instant, ObjectMeta)>,
    /// Counts how often all was forgotten: what was asked for before must not be kept after.
    epoch: u64,
}

impl Listings {
    pub(crate) fn forget(&self) {
        let mut kept = held(&self.kept);
        kept.lists.clear();
        kept.heads.clear();
        kept.epoch += 1;
    }

    /// Taken before a store is asked, and given with the answer.
    pub(crate) fn epoch(&self) -> u64 {
        held(&self.kept).epoch
    }

    pub(crate) fn list(&self, prefix: &Path) -> Option<Arc<Vec<ObjectMeta>>> {
        let kept = held(&self.kept);
        let (at, list) = kept.lists.get(prefix)?;
        (at.elapsed() < KEPT).then(|| Arc::clone(list))
    }

    pub(crate) fn head(&self, path: &Path) -> Option<ObjectMeta> {
        let kept = held(&self.kept);
        let (at, meta) = kept.heads.get(path)?;
        (at.elapsed() < KEPT).then(|| meta.clone())
    }

    /// Keeps what a glob has found.
    pub(crate) fn keep_heads(&self, found: &[ObjectMeta]) {
        let now = Instant::now();
        held(&self.kept).heads.extend(found.iter().map(|meta| (meta.location.clone(), (now, meta.clone()))));
    }

    pub(crate) fn keep(&self, epoch: u64, prefix: &Path, list: &Arc<Vec<ObjectMeta>>) {
        let mut kept = held(&self.kept);
        if kept.epoch != epoch {
            return;
        }
        let now = Instant::now();
        kept.heads.extend(list.iter().map(|meta| (meta.location.clone(), (now, meta.clone()))));
        kept.lists.insert(prefix.clone(), (now, Arc::clone(list)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_before_a_change_is_not_kept_after_it() {
        let listings = Listings::default();
        let (prefix, list) = (Path::from("t"), Arc::new(vec![]));
        let epoch = listings.epoch();
        listings.keep(epoch, &prefix, &list);
        assert!(listings.list(&prefix).is_some());
        listings.forget();
        assert!(listings.list(&prefix).is_none());
        listings.keep(epoch, &prefix, &list);
        assert!(listings.list(&prefix).is_none());
    }
}
