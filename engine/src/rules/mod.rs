//! What the query engine's own optimizer does not do, or not rightly, as rules among its rules or in their places. Each
//! decides by the shape of a plan or by estimates; none changes an answer that was right.

mod conditions_stay;
mod early_semi_joins;
mod equal_windows;
mod even_readers;
mod fence;
mod filter_descent;
mod filtered_groups;
mod join_order;
mod join_sides;
mod like_its_input;
mod limits_stay;
mod line_numbers;
mod lone_branches;
mod null_peers;
mod null_safe_joins;
mod partition_filters;
mod pieces;
mod read_ahead;
mod row_order;
mod shared_groups;
mod spilling_joins;
mod spilling_tops;
mod text_rows;
mod top_of_groups;

use std::sync::Arc;

use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::optimizer::Optimizer;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use crate::memory::FairPool;
use conditions_stay::{ConditionsStay, MOVES_PROJECTIONS};
use early_semi_joins::EarlySemiJoins;
use equal_windows::EqualWindows;
use even_readers::EvenReaders;
use filter_descent::FilterDescent;
use filtered_groups::FilteredGroups;
use join_order::JoinOrder;
use join_sides::JoinSides;
use limits_stay::{LimitsStay, PLACES_SORTS};
use line_numbers::LineNumbers;
pub(crate) use line_numbers::LineNumbersExec;
use lone_branches::{LoneBranches, TAKES_OUT_EMPTY};
use null_peers::NullPeers;
use null_safe_joins::PlainKeys;
use partition_filters::PartitionFilters;
use pieces::Pieces;
use read_ahead::ReadAhead;
use row_order::{InOrder, MemoryInOrder};
pub(crate) use row_order::{RowOrder, gathered_in_order};
use shared_groups::SharedGroups;
pub(crate) use shared_groups::is_repeated;
use spilling_joins::SpillingJoins;
use spilling_tops::{SETTLES_TOPS, SpillingTops};
use text_rows::TextRows;
use top_of_groups::TopOfGroups;

/// The rule of the query engine that decides which side of a join is hashed; those that judge its choice come after it.
pub(crate) const DECIDES_SIDES: &str = "join_selection";
/// The rule that makes keys of joins out of equalities.
const MAKES_KEYS: &str = "extract_equijoin_predicate";
/// The rule that moves filters to the tables; joins stand beside each other, without projections between, until it has run.
const MOVES_FILTERS: &str = "push_down_filter";

/// The rule that computes expressions of one node once.
const SHARES_EXPRESSIONS: &str = "common_sub_expression_eliminate";

/// The rule after which plans change in nothing but filters that joins make while they run. Such a filter belongs to one reader.
const MAKES_COOPERATIVE: &str = "EnsureCooperative";

/// The rules of logical plans, ours among them.
pub(crate) fn logical() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let after = rules.iter().position(|rule| rule.name() == MOVES_FILTERS);
    let after = after.expect("the query engine moves filters to the tables");
    rules.insert(after + 1, Arc::new(EarlySemiJoins));
    for rule in rules.iter_mut().filter(|rule| rule.name() == MAKES_KEYS) {
        *rule = Arc::new(PlainKeys(Arc::clone(rule)));
    }
    for rule in rules.iter_mut().filter(|rule| rule.name() == TAKES_OUT_EMPTY) {
        *rule = Arc::new(LoneBranches(Arc::clone(rule)));
    }
    let common = rules.iter().position(|rule| rule.name() == SHARES_EXPRESSIONS);
    rules.insert(common.expect("the query engine shares expressions"), Arc::new(EqualWindows));
    rules.insert(0, Arc::new(null_safe_joins::Apart));
    rules.push(Arc::new(null_safe_joins::Together));
    rules.push(Arc::new(PartitionFilters));
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
    for rule in &mut rules {
        if let Some(descent) = FilterDescent::instead_of(rule.name()) {
            *rule = Arc::new(descent);
        } else if rule.name() == PLACES_SORTS {
            *rule = Arc::new(LimitsStay(Arc::clone(rule)));
        } else if rule.name() == MOVES_PROJECTIONS {
            *rule = Arc::new(ConditionsStay(Arc::clone(rule)));
        }
    }
    let sorts = rules.iter().position(|rule| rule.name() == PLACES_SORTS);
    let sorts = sorts.expect("the query engine puts sorts in their places");
    rules.insert(sorts + 1, Arc::new(NullPeers));
    let sides = rules.iter().position(|rule| rule.name() == DECIDES_SIDES);
    let sides = sides.expect("the query engine selects joins before it distributes and sorts");
    rules.insert(sides + 1, Arc::new(JoinSides));
    rules.insert(sides + 2, Arc::new(SpillingJoins::new(Arc::clone(memory))));
    rules.insert(sides, Arc::new(JoinOrder));
    rules.insert(sides, Arc::new(TextRows));
    rules.insert(sides, Arc::new(LineNumbers));
    // Filters that joins make while they run are in their places by now.
    rules.push(Arc::new(FilteredGroups));
    if !in_tasks {
        let tops = rules.iter().position(|rule| rule.name() == SETTLES_TOPS);
        let tops = tops.expect("the query engine keeps the first rows of each part");
        rules.insert(tops + 1, Arc::new(SpillingTops::new(Arc::clone(memory))));
        let settled = rules.iter().position(|rule| rule.name() == MAKES_COOPERATIVE);
        let settled = settled.expect("the query engine's operators give way to each other");
        rules.insert(settled, Arc::new(SharedGroups::new(Arc::clone(memory))));
        rules.insert(sides, Arc::new(MemoryInOrder));
        rules.push(Arc::new(InOrder::new(Arc::clone(memory))));
        rules.push(Arc::new(ReadAhead::new(Arc::clone(memory))));
        rules.push(Arc::new(EvenReaders::new(Arc::clone(footers), Arc::clone(memory))));
        rules.push(Arc::new(Pieces));
        rules.push(Arc::new(TopOfGroups));
    }
    rules
}

#[cfg(test)]
mod tests;
