//! What the query engine's own optimizer does not do, as rules among its rules. Each decides by the shape of a plan or by
//! estimates; none changes an answer.

mod early_semi_joins;
mod even_readers;
mod filtered_groups;
mod join_order;
mod join_sides;
mod like_its_input;
mod pieces;
mod read_ahead;
mod shared_groups;
mod spilling_joins;
mod text_rows;
mod top_of_groups;

use std::sync::Arc;

use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::optimizer::Optimizer;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use crate::memory::FairPool;
use early_semi_joins::EarlySemiJoins;
use even_readers::EvenReaders;
use filtered_groups::FilteredGroups;
use join_order::JoinOrder;
use join_sides::JoinSides;
use pieces::Pieces;
use read_ahead::ReadAhead;
use shared_groups::SharedGroups;
pub(crate) use shared_groups::is_repeated;
use spilling_joins::SpillingJoins;
use text_rows::TextRows;
use top_of_groups::TopOfGroups;

/// The rule of the query engine that decides which side of a join is hashed; those that judge its choice come after it.
pub(crate) const DECIDES_SIDES: &str = "join_selection";
/// The rule that moves filters to the tables; joins stand beside each other, without projections between, until it has run.
const MOVES_FILTERS: &str = "push_down_filter";

/// The rule after which plans change in nothing but filters that joins make while they run. Such a filter belongs to one reader.
const MAKES_COOPERATIVE: &str = "EnsureCooperative";

/// The rules of logical plans, ours among them.
pub(crate) fn logical() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let after = rules.iter().position(|rule| rule.name() == MOVES_FILTERS);
    let after = after.expect("the query engine moves filters to the tables");
    rules.insert(after + 1, Arc::new(EarlySemiJoins));
    rules
}

/// The rules of physical plans, ours among them. `footers` are those of the files that were looked at; `in_tasks` says that
/// every partition of a plan becomes a task elsewhere.
pub(crate) fn physical(
    memory: &Arc<FairPool>,
    footers: &Arc<FileMetadataCache>,
    in_tasks: bool,
) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let sides = rules.iter().position(|rule| rule.name() == DECIDES_SIDES);
    let sides = sides.expect("the query engine selects joins before it distributes and sorts");
    rules.insert(sides + 1, Arc::new(JoinSides));
    rules.insert(sides + 2, Arc::new(SpillingJoins::new(Arc::clone(memory))));
    rules.insert(sides, Arc::new(JoinOrder));
    rules.insert(sides, Arc::new(TextRows));
    // Filters that joins make while they run are in their places by now.
    rules.push(Arc::new(FilteredGroups));
    if !in_tasks {
        let settled = rules.iter().position(|rule| rule.name() == MAKES_COOPERATIVE);
        let settled = settled.expect("the query engine's operators give way to each other");
        rules.insert(settled, Arc::new(SharedGroups::new(Arc::clone(memory))));
        rules.push(Arc::new(ReadAhead::new(Arc::clone(memory))));
        rules.push(Arc::new(EvenReaders::new(Arc::clone(footers), Arc::clone(memory))));
        rules.push(Arc::new(Pieces));
        rules.push(Arc::new(TopOfGroups));
    }
    rules
}

#[cfg(test)]
mod tests;
