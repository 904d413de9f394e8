//! TABLESAMPLE. Which rows are in a sample depends on what they hold and on the seed (REPEATABLE, 0 unless given), on nothing
//! else: the same rows for any number of partitions, in one process and on a cluster.
//!
//! ```text
//! SYSTEM (p)       hash(row) below p percent                         a filter; equal rows are taken or left together
//! BERNOULLI (p)    hash(row, its number among equal rows) below p    each row by itself: equal rows are brought together
//! (n ROWS)         the n rows of the least such hash
//! ```

use datafusion::common::Column;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, TableFactor, TableSample, TableSampleKind, TableSampleMethod, TableSampleModifier,
    TableSampleQuantity, TableSampleSeed, TableSampleUnit, Value, ValueWithSpan,
};

use crate::error::{Error, Result};
use crate::functions::sample_key;

/// Columns of a plan that nobody sees.
const KEY: &str = "__sample_key";
const COPY: &str = "__sample_copy";

/// What a clause asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    amount: Amount,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Amount {
    /// Of all rows, each by itself.
    Share(f64),
    /// Of all different rows.
    ShareOfDifferent(f64),
    Rows(usize),
}

/// Whether the clause can be done.
pub(super) fn check(sample: &TableSample) -> Result<()> {
    read(sample).map(drop)
}

fn read(sample: &TableSample) -> Result<Sample> {
    let TableSample { modifier, name, quantity, seed, bucket, offset } = sample;
    if bucket.is_some() {
        return Err(Error::invalid("TABLESAMPLE (BUCKET ...) is not supported").with_hint("TABLESAMPLE (10 PERCENT)"));
    }
    if offset.is_some() {
        return Err(Error::invalid("OFFSET of a SAMPLE is not supported"));
    }
    let Some(TableSampleQuantity { parenthesized, value, unit }) = quantity else {
        return Err(Error::invalid("TABLESAMPLE needs a number").with_hint("TABLESAMPLE (10 PERCENT)"));
    };
    let number = number(value)?;
    let each = matches!(name, Some(TableSampleMethod::Bernoulli | TableSampleMethod::Row));
    let share = |percent: f64| {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Error::invalid(format!("TABLESAMPLE takes 0 to 100 percent, got {value}")));
        }
        let share = percent / 100.0;
        Ok(if each { Amount::Share(share) } else { Amount::ShareOfDifferent(share) })
    };
    // `SAMPLE 0.1` without parentheses is ClickHouse's, a share of 1 or a number of rows.
    let bare = matches!(modifier, TableSampleModifier::Sample) && !parenthesized && name.is_none();
    let amount = match unit {
        Some(TableSampleUnit::Rows) => Amount::Rows(rows(number, value)?),
        Some(TableSampleUnit::Percent) => share(number)?,
        None if bare && number > 1.0 => Amount::Rows(rows(number, value)?),
        None if bare => share(number * 100.0)?,
        None => share(number)?,
    };
    Ok(Sample { amount, seed: seed.as_ref().map_or(Ok(0), read_seed)? })
}

fn number(value: &SqlExpr) -> Result<f64> {
    let wrong = || Error::invalid(format!("TABLESAMPLE takes a number, got `{value}`"));
    match value {
        SqlExpr::Nested(inner) => number(inner),
        SqlExpr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => digits.parse().map_err(|_| wrong()),
        // A parameter's value is a cast of a literal.
        SqlExpr::Cast { expr, .. } => number(expr),
        _ => Err(wrong()),
    }
}

fn rows(number: f64, value: &SqlExpr) -> Result<usize> {
    if number.fract() != 0.0 || !(0.0..=9e15).contains(&number) {
        return Err(Error::invalid(format!("TABLESAMPLE takes a whole number of rows, got {value}")));
    }
    Ok(number as usize)
}

fn read_seed(seed: &TableSampleSeed) -> Result<u64> {
    let TableSampleSeed { modifier: _, value } = seed;
    let wrong = || Error::invalid(format!("REPEATABLE takes a whole number, got {value}"));
    match &value.value {
        Value::Number(digits, _) => digits.parse().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// Plans tables and subqueries that are sampled.
#[derive(Debug)]
pub(crate) struct Samples;

impl RelationPlanner for Samples {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        let (TableFactor::Table { sample, .. } | TableFactor::Derived { sample, .. }) = &mut relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = sample.take()
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let sample = read(&sample).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let plan = sampled(context.plan(relation)?, sample)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

fn sampled(plan: LogicalPlan, sample: Sample) -> PlanResult<LogicalPlan> {
    let columns: Vec<Expr> = plan.schema().iter().map(|field| Expr::Column(Column::from(field))).collect();
    let key = |of: Vec<Expr>| sample_key::function().call([vec![lit(sample.seed)], of].concat());
    let below = |share: f64, key: Expr| match share {
        1.0 => lit(true),
        share => key.lt(lit((share * 2f64.powi(64)) as u64)),
    };
    if let Amount::ShareOfDifferent(share) = sample.amount {
        return LogicalPlanBuilder::from(plan).filter(below(share, key(columns)))?.build();
    }
    let unqualified = |name: &str| Expr::Column(Column::new_unqualified(name));
    let numbered = row_number().partition_by(vec![unqualified(KEY)]).build()?.alias(COPY);
    let keyed = columns.iter().cloned().chain([key(columns.clone()).alias(KEY)]);
    let numbered = LogicalPlanBuilder::from(plan).project(keyed)?.window([numbered])?;
    let chance = key(vec![unqualified(KEY), unqualified(COPY)]);
    let taken = match sample.amount {
        Amount::Rows(rows) => numbered.sort([chance.sort(true, false)])?.limit(0, Some(rows))?,
        Amount::Share(share) | Amount::ShareOfDifferent(share) => numbered.filter(below(share, chance))?,
    };
    taken.project(columns)?.build()
}
