//! Orders that an exchange of rows would keep in one process and loses between several. Threads merge what they get from
//! each other by its order; a task reads what others have written for it one after the other, as it comes (Ballista 55), and
//! an order that the plan relies on is gone. Where one task writes all rows, they do come in their order, and the stage that
//! reads them does not know it. So the rows are sorted after such an exchange.
//!
//! A join that gives its rows in the order of one side is no better: the scheduler turns joins round by its own measure when
//! it cuts the plan (Ballista 55), and then they come in another order. A sort stands above such a join.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};

/// The same plan without exchanges and joins that keep an order.
pub(super) fn sorted_after_exchanges(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if may_be_turned(&node) {
            return Ok(match node.output_ordering().cloned() {
                Some(order) => Transformed::yes(Arc::new(SortExec::new(order, node).with_preserve_partitioning(true))),
                None => Transformed::no(node),
            });
        }
        let Some(exchange) = node.downcast_ref::<RepartitionExec>() else { return Ok(Transformed::no(node)) };
        let order = node.output_ordering().cloned();
        let is_between_stages = matches!(exchange.partitioning(), Partitioning::Hash(..)) && order.is_some();
        if !exchange.preserve_order() && !is_between_stages {
            return Ok(Transformed::no(node));
        }
        let plain = RepartitionExec::try_new(Arc::clone(exchange.input()), exchange.partitioning().clone())?;
        let plain: Arc<dyn ExecutionPlan> = Arc::new(plain);
        Ok(Transformed::yes(match order {
            Some(order) => Arc::new(SortExec::new(order, plain).with_preserve_partitioning(true)),
            None => plain,
        }))
    })
    .data()
}

/// Whether the scheduler may exchange the node's sides.
fn may_be_turned(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<HashJoinExec>() || node.is::<NestedLoopJoinExec>() || node.is::<CrossJoinExec>()
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    fn exchanges(plan: &Arc<dyn ExecutionPlan>, is_in_order: fn(&RepartitionExec) -> bool) -> usize {
        let own = plan.downcast_ref::<RepartitionExec>().is_some_and(is_in_order);
        usize::from(own) + plan.children().into_iter().map(|child| exchanges(child, is_in_order)).sum::<usize>()
    }

    #[tokio::test]
    async fn rows_of_one_task_are_sorted_again() {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
        let query = "SELECT row_number() OVER (ORDER BY value) AS n, count(*) OVER (PARTITION BY value) AS k \
                     FROM generate_series(1, 50) WHERE value % 2 = 0";
        let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
        let keeps = |exchange: &RepartitionExec| {
            !exchange.preserve_order()
                && exchange.input().output_ordering().is_some()
                && exchange.maintains_input_order()[0]
        };
        assert_eq!(exchanges(&plan, keeps), 1, "{}", displayable(plan.as_ref()).indent(false));
        let sorted = sorted_after_exchanges(plan).unwrap();
        let text = displayable(sorted.as_ref()).indent(false).to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let exchange = lines.iter().position(|line| line.contains("Hash(")).unwrap();
        assert!(lines[exchange - 1].starts_with("SortExec"), "{text}");
    }

    fn exchanges_in_order(plan: &Arc<dyn ExecutionPlan>) -> usize {
        exchanges(plan, RepartitionExec::preserve_order)
    }

    #[tokio::test]
    async fn groups_of_sorted_files_are_sorted_again() {
        let directory = tempfile::tempdir().unwrap();
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
        for key in ["A", "B", "C"] {
            let path = directory.path().join(key).with_extension("parquet").display().to_string();
            let copy = format!("COPY (SELECT '{key}' AS name, value FROM generate_series(1, 50)) TO '{path}'");
            context.sql(&copy).await.unwrap().collect().await.unwrap();
        }
        let place = directory.path().display();
        let table = format!(
            "CREATE EXTERNAL TABLE t (name TEXT, value BIGINT) STORED AS PARQUET LOCATION '{place}/' WITH ORDER (name)"
        );
        context.sql(&table).await.unwrap();
        let query = "SELECT name, count(*), sum(value) FROM t GROUP BY name ORDER BY name";
        let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
        assert_eq!(exchanges_in_order(&plan), 1, "the query engine keeps the files' order");
        let sorted = sorted_after_exchanges(Arc::clone(&plan)).unwrap();
        assert_eq!(exchanges_in_order(&sorted), 0);
        let mut answers = Vec::new();
        for plan in [plan, sorted] {
            let rows = collect(plan, context.task_ctx()).await.unwrap();
            answers.push(pretty_format_batches(&rows).unwrap().to_string());
        }
        assert!(answers[0] == answers[1] && answers[0].contains("| C    | 50       | 1275"), "{}", answers[1]);
    }
}
