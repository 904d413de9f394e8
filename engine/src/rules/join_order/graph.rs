//! The cheapest order in which to join relations, from estimates of their rows and of the distinct values of their keys:
//! dynamic programming over sets of relations that keys connect (Selinger et al. 1979, with bushy trees as in Moerkotte and
//! Neumann 2006). Products without a key are never made.

use std::collections::BTreeMap;

/// Relations, as bits.
pub(super) type Set = u32;

/// More relations than that are left in the order of the query: the search takes 3^n steps.
pub(super) const RELATIONS_MAX: usize = 11;
/// What a row of the hashed side costs, where a row that looks it up costs 1.
const HASHED: f64 = 2.0;
/// The part of the rows that a condition beside the keys is taken to keep.
const CONDITION_KEEPS: f64 = 0.5;

/// What is known about the relations of a query.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Rows of each relation, filtered, and of the tables that they come from.
    pub(super) rows: Vec<f64>,
    pub(super) base_rows: Vec<f64>,
    /// Distinct values of the keys of each pair, the lower relation first.
    pairs: BTreeMap<(usize, usize), f64>,
    /// Relations of each condition beside the keys.
    conditions: Vec<Set>,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    Relation(usize),
    Join(Box<Tree>, Box<Tree>),
}

impl Tree {
    pub(super) fn join(left: Tree, right: Tree) -> Tree {
        Tree::Join(Box::new(left), Box::new(right))
    }

    pub(super) fn set(&self) -> Set {
        match self {
            Tree::Relation(relation) => 1 << relation,
            Tree::Join(left, right) => left.set() | right.set(),
        }
    }
}

impl Graph {
    /// Adds equal keys of two relations, of so many distinct values. Several keys of a pair count as one that cannot have
    /// more values than either table has rows.
    pub(super) fn connect(&mut self, left: usize, right: usize, distinct: f64) {
        let most = self.base_rows[left].min(self.base_rows[right]);
        let pair = self.pairs.entry((left.min(right), left.max(right))).or_insert(1.0);
        *pair = (*pair * distinct).min(most).max(1.0);
    }

    pub(super) fn add_condition(&mut self, relations: Set) {
        self.conditions.push(relations);
    }

    /// Rows of the join of these relations, by the usual assumptions: keys are spread evenly and independently, and the
    /// side with fewer values finds all of its own in the other.
    pub(super) fn rows_of(&self, set: Set) -> f64 {
        let has = |relation: usize| set & (1 << relation) != 0;
        let rows = self.rows.iter().enumerate().filter(|(relation, _)| has(*relation)).map(|(_, rows)| *rows);
        let keys =
            self.pairs.iter().filter(|((left, right), _)| has(*left) && has(*right)).map(|(_, values)| 1.0 / values);
        let conditions = self.conditions.iter().filter(|relations| *relations & !set == 0).map(|_| CONDITION_KEEPS);
        rows.chain(keys).chain(conditions).product::<f64>().max(1.0)
    }

    fn are_connected(&self, left: Set, right: Set) -> bool {
        let between = |a: usize, b: usize| left & (1 << a) != 0 && right & (1 << b) != 0;
        self.pairs.keys().any(|(a, b)| between(*a, *b) || between(*b, *a))
    }

    /// Work of a hash join of so many rows with so many, into so many.
    fn work(left: f64, right: f64, result: f64) -> f64 {
        HASHED * left.min(right) + left.max(right) + result
    }

    /// Work of all joins of an order.
    pub(super) fn cost(&self, tree: &Tree) -> f64 {
        match tree {
            Tree::Relation(_) => 0.0,
            Tree::Join(left, right) => {
                let rows = |tree: &Tree| self.rows_of(tree.set());
                self.cost(left) + self.cost(right) + Self::work(rows(left), rows(right), self.rows_of(tree.set()))
            }
        }
    }

    /// The cheapest order; `None` when keys do not connect all relations, or when there are too many.
    pub(super) fn cheapest(&self) -> Option<Tree> {
        let count = self.rows.len();
        if count == 0 || count > RELATIONS_MAX {
            return None;
        }
        let all = (1 << count) - 1;
        let rows: Vec<f64> = (0..=all).map(|set| self.rows_of(set)).collect();
        let mut best: Vec<Option<(f64, Set)>> = vec![None; rows.len()];
        // Parts of a set are smaller numbers than the set, so they are known before it.
        for set in 1..=all {
            if set.is_power_of_two() {
                best[set as usize] = Some((0.0, 0));
                continue;
            }
            let mut left = (set - 1) & set;
            while left > set ^ left {
                let right = set ^ left;
                if let (Some((a, _)), Some((b, _))) = (best[left as usize], best[right as usize])
                    && self.are_connected(left, right)
                {
                    let work = Self::work(rows[left as usize], rows[right as usize], rows[set as usize]);
                    let cost = a + b + work;
                    if best[set as usize].is_none_or(|(least, _)| cost < least) {
                        best[set as usize] = Some((cost, left));
                    }
                }
                left = (left - 1) & set;
            }
        }
        best[all as usize].map(|_| tree(all, &best, &rows))
    }
}

/// The order that was found for a set; the side with fewer rows first.
fn tree(set: Set, best: &[Option<(f64, Set)>], rows: &[f64]) -> Tree {
    match best[set as usize] {
        Some((_, left)) if left != 0 => {
            let right = set ^ left;
            let (few, many) = if rows[left as usize] <= rows[right as usize] { (left, right) } else { (right, left) };
            Tree::join(tree(few, best, rows), tree(many, best, rows))
        }
        _ => Tree::Relation(set.trailing_zeros() as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All orders, products left out.
    fn every_order(graph: &Graph, set: Set) -> Vec<Tree> {
        if set.is_power_of_two() {
            return vec![Tree::Relation(set.trailing_zeros() as usize)];
        }
        let parts = (1..set).filter(|left| left & !set == 0 && graph.are_connected(*left, set ^ left));
        parts
            .flat_map(|left| {
                let rights = every_order(graph, set ^ left);
                every_order(graph, left)
                    .into_iter()
                    .flat_map(move |left| rights.clone().into_iter().map(move |right| Tree::join(left.clone(), right)))
            })
            .collect()
    }

    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    fn random(seed: u64) -> Graph {
        let mut state = seed;
        let count = 2 + next(&mut state) as usize % 4;
        let base_rows: Vec<f64> = (0..count).map(|_| (1 + next(&mut state) % 1_000_000) as f64).collect();
        let rows = base_rows.iter().map(|rows| (rows / (1 + next(&mut state) % 20) as f64).max(1.0)).collect();
        let mut graph = Graph { rows, base_rows, ..Graph::default() };
        for relation in 1..count {
            let other = next(&mut state) as usize % relation;
            graph.connect(relation, other, (1 + next(&mut state) % 100_000) as f64);
        }
        for _ in 0..next(&mut state) % 3 {
            let (a, b) = (next(&mut state) as usize % count, next(&mut state) as usize % count);
            if a != b {
                graph.connect(a, b, (1 + next(&mut state) % 1000) as f64);
                graph.add_condition(1 << a | 1 << b);
            }
        }
        graph
    }

    #[test]
    fn no_order_is_cheaper() {
        for seed in 0..300 {
            let graph = random(seed);
            let found = graph.cheapest().unwrap();
            let all: Set = (1 << graph.rows.len()) - 1;
            assert_eq!(found.set(), all);
            let least = every_order(&graph, all).iter().map(|tree| graph.cost(tree)).fold(f64::INFINITY, f64::min);
            let cost = graph.cost(&found);
            assert!((cost - least).abs() <= 1e-9 * least, "seed {seed}: {cost} against {least}: {graph:?}");
        }
    }

    #[test]
    fn a_filtered_relation_is_joined_early() {
        // Suppliers, lines, orders, and two of 25 nations: the last relation named cuts the first.
        let base_rows = vec![10_000.0, 6_000_000.0, 1_500_000.0, 25.0];
        let rows = vec![10_000.0, 6_000_000.0, 1_500_000.0, 2.0];
        let mut graph = Graph { rows, base_rows, ..Graph::default() };
        graph.connect(0, 1, 10_000.0);
        graph.connect(1, 2, 1_500_000.0);
        graph.connect(0, 3, 25.0);
        let relation = Tree::Relation;
        let suppliers = Tree::join(relation(3), relation(0));
        let lines = Tree::join(suppliers, relation(1));
        assert_eq!(graph.cheapest(), Some(Tree::join(lines, relation(2))));
        // Without a key to the others there is no order.
        let graph = Graph { rows: vec![1.0, 2.0], base_rows: vec![1.0, 2.0], ..Graph::default() };
        assert_eq!(graph.cheapest(), None);
    }

    #[test]
    fn several_keys_of_a_pair_are_not_taken_for_independent() {
        let rows = vec![6_000_000.0, 800_000.0];
        let mut graph = Graph { base_rows: rows.clone(), rows, ..Graph::default() };
        graph.connect(0, 1, 200_000.0);
        graph.connect(1, 0, 10_000.0);
        assert_eq!(graph.rows_of(3).round(), 6_000_000.0);
    }
}
