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
mod units;

use std::sync::Arc;

use datafusion::common::{Diagnostic, Span};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::sql::sqlparser::ast::{ObjectName, Spanned, TableFactor};
use engine::{Error, near};

use arguments::Arguments;
pub(crate) use functions::{scalar_functions, score_arrays, score_fields};
pub(crate) use information::named_weights;
pub(crate) use rewrite::ModelNames;

/// Begins the literal that stands for a model.
pub(crate) const MODEL_PREFIX: &str = "gristmill-model:";

/// The functions over models, without `ML.`.
pub(crate) const FUNCTIONS: &[&str] = &[
    "PREDICT",
    "EVALUATE",
    "CONFUSION_MATRIX",
    "ROC_CURVE",
    "TRAINING_INFO",
    "FEATURE_INFO",
    "WEIGHTS",
    "ADVANCED_WEIGHTS",
    "TRANSFORM",
];

/// Functions of the dialect that this build does not have.
const FUNCTIONS_ELSEWHERE: &[&str] = &[
    "FEATURE_IMPORTANCE",
    "EXPLAIN_PREDICT",
    "GLOBAL_EXPLAIN",
    "CENTROIDS",
    "PRINCIPAL_COMPONENTS",
    "RECONSTRUCTION_LOSS",
    "DETECT_ANOMALIES",
    "FORECAST",
    "RECOMMEND",
    "TRIAL_INFO",
];

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
    must_exist(function).map_err(invalid)?;
    let arguments = Arguments::read(function, relation, context)?;
    match function {
        "PREDICT" => predict::plan(arguments),
        "TRANSFORM" => predict::plan_transform(arguments),
        "EVALUATE" => evaluate::plan(arguments),
        "CONFUSION_MATRIX" => curves::plan_confusion(arguments),
        "ROC_CURVE" => curves::plan_roc(arguments),
        "TRAINING_INFO" => information::plan_training(arguments),
        "FEATURE_INFO" => information::plan_features(arguments),
        "ADVANCED_WEIGHTS" => information::plan_advanced_weights(arguments),
        _ => information::plan_weights(arguments),
    }
}

/// Whether there is such a function over models (upper case, without `ML.`).
fn must_exist(function: &str) -> engine::Result<()> {
    if FUNCTIONS.contains(&function) {
        return Ok(());
    }
    if FUNCTIONS_ELSEWHERE.contains(&function) {
        let error = Error::invalid(format!("ML.{function} is not in this build yet"));
        return Err(error.with_hint(format!("there are ML.{}", FUNCTIONS.join(", ML."))));
    }
    let error = Error::invalid(format!("there is no function ML.{function} over models"));
    Err(match near(function, FUNCTIONS.iter().chain(FUNCTIONS_ELSEWHERE).copied()) {
        Some(known) => error.with_hint(format!("did you mean ML.{known}?")),
        None => error.with_hint(format!("there are ML.{}", FUNCTIONS.join(", ML."))),
    })
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
