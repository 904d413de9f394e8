//! `ML.*` calls in FROM. Each becomes a plan of what every engine already knows: a projection with a scalar function whose
//! first argument is the model's id, an aggregate over it, or rows in memory. Only a function's name and the id travel.

mod arguments;
mod curves;
mod evaluate;
mod functions;
mod information;
pub(crate) mod models_table;
mod predict;
mod rewrite;

use std::sync::Arc;

use datafusion::common::{Diagnostic, Span};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::sql::sqlparser::ast::{ObjectName, Spanned, TableFactor};
use engine::{Error, near};

use arguments::Arguments;
pub(crate) use functions::{scalar_functions, score_arrays, score_fields};
pub(crate) use rewrite::ModelNames;

/// Begins the literal that stands for a model.
pub(crate) const MODEL_PREFIX: &str = "gristmill-model:";

/// The functions over models, without `ML.`.
pub(crate) const FUNCTIONS: &[&str] =
    &["PREDICT", "EVALUATE", "CONFUSION_MATRIX", "ROC_CURVE", "TRAINING_INFO", "FEATURE_INFO", "WEIGHTS", "TRANSFORM"];

/// Functions of the dialect that this build does not have.
const FUNCTIONS_ELSEWHERE: &[&str] =
    &["FEATURE_IMPORTANCE", "EXPLAIN_PREDICT", "GLOBAL_EXPLAIN", "CENTROIDS", "FORECAST", "RECOMMEND", "TRIAL_INFO"];

/// Whether the function, called without data, reads the held-out rows.
fn reads_held_out(function: &str) -> bool {
    matches!(function, "EVALUATE" | "CONFUSION_MATRIX" | "ROC_CURVE")
}

/// Plans `ML.*` calls and INFORMATION_SCHEMA.MODELS.
#[derive(Debug)]
pub(crate) struct ModelRelations;

impl RelationPlanner for ModelRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, args, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let parts: Vec<String> = name_parts(name);
        let [schema, function] = parts.as_slice() else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let span = relation.span();
        let planned = match (schema.as_str(), args.is_some()) {
            ("INFORMATION_SCHEMA", true) if function == "MODELS" => plan_models(&relation),
            ("ML", true) => plan_call(function, &relation, context),
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        let plan = planned.map_err(|error| {
            let message = error.strip_backtrace();
            error.with_diagnostic(Diagnostic::new_error(message, Span::try_from_sqlparser_span(span)))
        })?;
        let alias = match relation {
            TableFactor::Table { alias, .. } => alias,
            _ => None,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The rewriting has put the warehouse's key into parentheses after the name.
fn plan_models(relation: &TableFactor) -> Result<LogicalPlan> {
    match arguments::first_text(relation) {
        Some(key) => models_table::plan(key),
        None => Err(invalid(Error::invalid("INFORMATION_SCHEMA.MODELS takes no arguments"))),
    }
}

fn name_parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.to_uppercase()).collect()
}

fn plan_call(function: &str, relation: &TableFactor, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    if FUNCTIONS_ELSEWHERE.contains(&function) {
        return Err(invalid(Error::invalid(format!("ML.{function} is not in this build yet"))));
    }
    if !FUNCTIONS.contains(&function) {
        let error = Error::invalid(format!("there is no function ML.{function} over models"));
        return Err(invalid(match near(function, FUNCTIONS.iter().copied()) {
            Some(known) => error.with_hint(format!("did you mean ML.{known}?")),
            None => error.with_hint(format!("there are ML.{}", FUNCTIONS.join(", ML."))),
        }));
    }
    let arguments = Arguments::read(function, relation, context)?;
    match function {
        "PREDICT" => predict::plan(arguments),
        "TRANSFORM" => predict::plan_transform(arguments),
        "EVALUATE" => evaluate::plan(arguments),
        "CONFUSION_MATRIX" => curves::plan_confusion(arguments),
        "ROC_CURVE" => curves::plan_roc(arguments),
        "TRAINING_INFO" => information::plan_training(arguments),
        "FEATURE_INFO" => information::plan_features(arguments),
        _ => information::plan_weights(arguments),
    }
}

/// One of our errors inside the query engine's.
fn invalid(error: Error) -> DataFusionError {
    match error {
        Error::Query(error) => error,
        error => DataFusionError::External(Box::new(error)),
    }
}

/// Rows in memory as a plan.
fn rows_plan(
    name: &str,
    schema: arrow::datatypes::SchemaRef,
    batches: Vec<arrow::array::RecordBatch>,
) -> Result<LogicalPlan> {
    use datafusion::datasource::{MemTable, provider_as_source};
    use datafusion::logical_expr::LogicalPlanBuilder;

    let table = MemTable::try_new(schema, vec![batches])?;
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?.build()
}
