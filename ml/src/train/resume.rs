//! Where a run begins: all ranks at the same step of the same checkpoint, whoever can see it.

use engine::Result;
use engine::gang::{Mesh, Tag};

use super::carry::broadcast;
use super::checkpoint::State;
use super::rank::Run;

/// The state that the run goes on from. Rank 0 alone looks into the store, so that no two ranks can see two checkpoints.
pub(super) fn agree(run: &Run<'_>, mesh: &mut dyn Mesh, tag: Tag) -> Result<Option<State>> {
    let first = mesh.rank() == 0;
    let state = match &run.plan.checkpoint {
        None => None,
        Some(checkpointing) => {
            let kept = if first { checkpointing.store.load()? } else { None };
            let parameters = run.architecture.parameters();
            broadcast(mesh, tag, kept)?
                .map(|bytes| State::decode(&bytes, run.identity, &run.plan.optimizer, parameters))
                .transpose()?
        }
    };
    if first {
        let (count, history) = state.as_ref().map_or((0, &[][..]), |state| (state.count, &state.history));
        run.observer.resumed(count, history);
    }
    Ok(state)
}
