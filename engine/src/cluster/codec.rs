//! Plans on the wire: Ballista's codec, and beside it the nodes that are ours: the sink, rows that are wanted whole, and the
//! numbers of rows in files.
//! Functions travel by name; every side has the same ones.

use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::common::config::TableOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use storage::Stores;

use super::whole::WholeExec;
use crate::rules::LineNumbersExec;
use crate::sink::SinkExec;

/// Begin the bytes of our nodes; no protobuf message begins so.
const SINK: &[u8] = b"gristmill sink ";
const WHOLE: &[u8] = b"gristmill whole";
const LINE_NUMBERS: &[u8] = b"gristmill line numbers";

/// See the module.
#[derive(Debug)]
pub(super) struct PlanCodec {
    upstream: BallistaPhysicalExtensionCodec,
    stores: Stores,
}

impl PlanCodec {
    pub(super) fn new(stores: Stores) -> Self {
        PlanCodec { upstream: BallistaPhysicalExtensionCodec::default(), stores }
    }
}

impl PhysicalExtensionCodec for PlanCodec {
    fn try_decode(
        &self,
        buffer: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let (WHOLE, [input]) = (buffer, inputs) {
            return Ok(Arc::new(WholeExec::read(Arc::clone(input))));
        }
        if let ([input], true) = (inputs, buffer == LINE_NUMBERS) {
            return Ok(Arc::new(LineNumbersExec::new(Arc::clone(input))));
        }
        let Some(written) = buffer.strip_prefix(SINK) else {
            return self.upstream.try_decode(buffer, inputs, context, converter);
        };
        let [input] = inputs else {
            return Err(DataFusionError::Internal(format!("a sink has one input, not {}", inputs.len())));
        };
        let written = serde_json::from_slice(written).map_err(external)?;
        let defaults = TableOptions::default_from_session_config(context.session_config().options());
        let sink = SinkExec::read(Arc::clone(input), written, self.stores.clone(), &defaults).map_err(external)?;
        Ok(Arc::new(sink))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if node.is::<WholeExec>() {
            buffer.extend_from_slice(WHOLE);
            return Ok(());
        }
        if node.is::<LineNumbersExec>() {
            buffer.extend_from_slice(LINE_NUMBERS);
            return Ok(());
        }
        let Some(sink) = node.downcast_ref::<SinkExec>() else {
            return self.upstream.try_encode(node, buffer, converter);
        };
        buffer.extend_from_slice(SINK);
        serde_json::to_writer(buffer, &sink.written()).map_err(external)
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
