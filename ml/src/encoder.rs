//! From rows of the training query to numbers: the frozen transform, the label, the weight of its class. Written down, it
//! makes the same numbers in another process.

use arrow::array::RecordBatch;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::shards::Block;
use crate::transform::{FrozenTransform, LabelEncoding};

/// Column beside those of the training query that holds the label as TRANSFORM makes it, but for a function that is fitted.
pub(crate) const LABEL: &str = "__gm_label";

/// See the module.
pub(crate) struct RowEncoder {
    pub(crate) transform: FrozenTransform,
    pub(crate) labels: LabelEncoding,
    /// Of each class; empty when all are 1.
    pub(crate) weights: Vec<f32>,
}

/// An encoder on its way to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WrittenEncoder {
    transform: String,
    labels: LabelEncoding,
    /// The bits of each.
    weights: Vec<u32>,
}

impl RowEncoder {
    /// Features, labels and weights of rows with their label beside them.
    pub(crate) fn encode(&self, batch: &RecordBatch) -> Result<Block> {
        let label = batch
            .column_by_name(LABEL)
            .ok_or_else(|| Error::invalid("training rows came without their label beside them"))?;
        let mut block = self.transform.apply(batch)?;
        block.labels = self.labels.encode(&self.transform.finished_label(label)?)?;
        block.weights = match self.weights.as_slice() {
            [] => vec![1.0; block.rows],
            weights => block.labels.iter().map(|class| weights[*class as usize]).collect(),
        };
        Ok(block)
    }

    pub(crate) fn written(&self) -> Result<WrittenEncoder> {
        let weights = self.weights.iter().map(|weight| weight.to_bits()).collect();
        Ok(WrittenEncoder { transform: self.transform.to_json()?, labels: self.labels.clone(), weights })
    }
}

impl WrittenEncoder {
    /// The same encoder here.
    ///
    /// # Errors
    /// A transform that this build does not understand.
    pub(crate) fn read(self) -> Result<RowEncoder> {
        let transform = FrozenTransform::from_json(&self.transform)?;
        Ok(RowEncoder {
            transform,
            labels: self.labels,
            weights: self.weights.into_iter().map(f32::from_bits).collect(),
        })
    }
}
