//! `ML.EVALUATE(MODEL m [, data] [, STRUCT(t AS threshold)])`: one row of metrics, of the held-out rows when no data is
//! given.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::Result;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, LogicalPlanBuilder, lit};
use engine::{Error, near};

use super::arguments::{Arguments, wrong};
use super::functions::{self, column, score_fields};
use super::{invalid, predict, rows_plan};
use crate::metric;
use crate::registry::Known;
use crate::transform::LabelSource;

const SCORE: &str = "__gm_score";
const METRICS: &str = "__gm_metrics";

pub(super) fn plan(arguments: Arguments) -> Result<LogicalPlan> {
    let threshold = arguments.checked_threshold()?;
    let scored = scored(&arguments)?;
    let (name, more) = match arguments.shape().model_type.is_classifier() {
        true => ("gm_evaluate_classifier", vec![lit(threshold)]),
        false => ("gm_evaluate_regressor", vec![]),
    };
    let call = aggregate(name)?.call([column("label"), column("scores")].into_iter().chain(more).collect());
    let metrics = LogicalPlanBuilder::from(scored).aggregate(Vec::<Expr>::new(), [call.alias(METRICS)])?.build()?;
    let DataType::Struct(fields) = metrics.schema().field(0).data_type().clone() else {
        return Err(wrong(&arguments.function, "the metrics are no struct"));
    };
    let columns = fields.iter().map(|field| get_field(column(METRICS), field.name().as_str()).alias(field.name()));
    LogicalPlanBuilder::from(metrics).project(columns)?.build()
}

/// Labels and scores, as columns `label` and `scores`, of the data or of the held-out rows.
pub(super) fn scored(arguments: &Arguments) -> Result<LogicalPlan> {
    let shape = arguments.shape();
    let Some(data) = &arguments.data else {
        let (schema, batches) = match &arguments.known {
            Known::Loaded(loaded) => loaded.held_out().map_err(invalid)?,
            Known::Planned(_) | Known::Running(..) => (Arc::new(Schema::new(score_fields(shape))), vec![]),
        };
        return rows_plan("held_out", schema, batches);
    };
    predict::check_columns(arguments, data)?;
    check_label(arguments, data)?;
    LogicalPlanBuilder::from(data.clone())
        .project([functions::score(&arguments.id, shape).alias(SCORE)])?
        .project(["label", "scores"].map(|field| get_field(column(SCORE), field).alias(field)))?
        .build()
}

/// The data must have the columns of the label.
fn check_label(arguments: &Arguments, data: &LogicalPlan) -> Result<()> {
    let shape = arguments.shape();
    for name in shape.label_columns() {
        if data.schema().has_column_with_unqualified_name(name) {
            continue;
        }
        let made = match &shape.label_source {
            LabelSource::Column(_) => format!("no label column {name}"),
            LabelSource::Made(_) => format!("no column {name}, of which TRANSFORM makes the label {}", shape.label),
        };
        let what = format!("ML.{}: the data has {made}, without which nothing can be measured", arguments.function);
        let names = data.schema().fields().iter().map(|field| field.name().as_str());
        let error = Error::invalid(what);
        return Err(invalid(match near(name, names) {
            Some(near) => error.with_hint(format!("is it the column {near}?")),
            None => error,
        }));
    }
    if let (Known::Loaded(loaded), LabelSource::Made(_)) = (&arguments.known, &shape.label_source) {
        loaded.predictor.made_labels(&predict::no_rows(data)).map_err(invalid)?;
    }
    Ok(())
}

/// One of the metrics as an aggregate function.
pub(super) fn aggregate(name: &str) -> Result<Arc<AggregateUDF>> {
    let found = metric::aggregates().into_iter().find(|function| function.name() == name);
    found.ok_or_else(|| invalid(Error::invalid(format!("the aggregate function {name} is missing"))))
}
