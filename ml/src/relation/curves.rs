//! `ML.CONFUSION_MATRIX` and `ML.ROC_CURVE`, of data or of the held-out rows.

use arrow::datatypes::DataType;
use datafusion::common::{Column, Result, ScalarValue, UnnestOptions};
use datafusion::functions::core::expr_fn::{coalesce, get_field};
use datafusion::functions_nested::expr_fn::array_element;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};

use super::arguments::{Arguments, wrong};
use super::evaluate::{aggregate, scored};
use super::functions::column;

const MATRIX: &str = "__gm_matrix";
const CURVE: &str = "__gm_curve";
const INDEX: &str = "__gm_index";
const CLASS: &str = "__gm_class";

/// A row for each class: expected_label, then a column for each predicted class with the number of rows.
pub(super) fn plan_confusion(arguments: Arguments) -> Result<LogicalPlan> {
    only_classifiers(&arguments)?;
    let threshold = arguments.checked_threshold()?;
    let shape = arguments.shape().clone();
    let call = aggregate("gm_confusion")?.call(vec![column("label"), column("scores"), lit(threshold)]);
    let matrix =
        LogicalPlanBuilder::from(scored(&arguments)?).aggregate(Vec::<Expr>::new(), [call.alias(MATRIX)])?.build()?;
    let classes = shape.column_classes();
    let rows: Vec<Vec<Expr>> =
        classes.iter().enumerate().map(|(index, class)| vec![lit(index as i64), lit(class.as_str())]).collect();
    let classes_plan = LogicalPlanBuilder::values(rows)?
        .project([column("column1").alias(INDEX), column("column2").alias(CLASS)])?
        .build()?;
    let expected = if shape.classes.is_some() {
        cast(column(CLASS), shape.label_type.clone())
    } else {
        lit(ScalarValue::try_new_null(&shape.label_type)?)
    };
    let row = array_element(column(MATRIX), column(INDEX) + lit(1i64));
    let counts = classes.iter().enumerate().map(|(index, class)| {
        let count = array_element(row.clone(), lit(index as i64 + 1));
        coalesce(vec![count, lit(0i64)]).alias(class)
    });
    LogicalPlanBuilder::from(classes_plan)
        .cross_join(matrix)?
        .sort([column(INDEX).sort(true, false)])?
        .project([expected.alias("expected_label")].into_iter().chain(counts).collect::<Vec<_>>())?
        .build()
}

/// A row for each threshold, from the highest down: those that were given, or all that make a difference.
pub(super) fn plan_roc(arguments: Arguments) -> Result<LogicalPlan> {
    only_classifiers(&arguments)?;
    if arguments.settings.threshold.is_some() {
        return Err(wrong(
            &arguments.function,
            "its thresholds are an array: ML.ROC_CURVE(MODEL m, TABLE t, [0.25, 0.5])",
        ));
    }
    if arguments.shape().classes.as_ref().is_some_and(|classes| classes.len() > 2) {
        return Err(wrong(&arguments.function, "it is for two classes, this model has more"));
    }
    let thresholds = arguments.thresholds.as_ref().map(|thresholds| {
        let values: Vec<ScalarValue> = thresholds.iter().map(|x| ScalarValue::Float64(Some(*x))).collect();
        lit(ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64)))
    });
    let call = [column("label"), column("scores")].into_iter().chain(thresholds);
    let call = aggregate("gm_roc_curve")?.call(call.collect());
    // Of no rows there is no curve.
    let without_nulls = UnnestOptions::new().with_preserve_nulls(false);
    let curve = LogicalPlanBuilder::from(scored(&arguments)?)
        .aggregate(Vec::<Expr>::new(), [call.alias(CURVE)])?
        .unnest_columns_with_options(vec![Column::new_unqualified(CURVE)], without_nulls)?
        .build()?;
    let DataType::Struct(fields) = curve.schema().field(0).data_type().clone() else {
        return Err(wrong(&arguments.function, "the points of the curve are no structs"));
    };
    let columns = fields.iter().map(|field| get_field(column(CURVE), field.name().as_str()).alias(field.name()));
    LogicalPlanBuilder::from(curve).project(columns)?.build()
}

fn only_classifiers(arguments: &Arguments) -> Result<()> {
    if arguments.shape().model_type.is_classifier() {
        return Ok(());
    }
    let name = arguments.shape().model_type.name();
    Err(wrong(&arguments.function, &format!("it is for classifiers, {} is a {name}", arguments.shape().name)))
}
