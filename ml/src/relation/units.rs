//! The units in which weights are told. Inputs that nobody asked to scale are standardised all the same, so the model's
//! weights are those of `(x - o) / s`. In units of the columns, of inputs as the query or TRANSFORM gives them:
//!
//! ```text
//!   Σ w (x - o) / s + b  =  Σ (w / s) x + (b - Σ w o / s)
//! ```
//!
//! A scaler that TRANSFORM spells out makes an input of its own, in whose units its weight stays.

use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem, SetExpr, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::linear::{Inference, LinearModel};
use crate::model::Predictor;

/// Offset o and scale s of each of the model's D inputs.
pub(super) struct Units {
    offsets: Vec<f64>,
    scales: Vec<f64>,
}

impl Units {
    /// Those of the inputs as the model sees them.
    pub(super) fn of_the_model(model: &LinearModel) -> Self {
        let d = model.layout.dims();
        Units { offsets: vec![0.0; d], scales: vec![1.0; d] }
    }

    /// Those of the columns.
    pub(super) fn of_the_columns(predictor: &Predictor, model: &LinearModel) -> Self {
        let mut units = Units::of_the_model(model);
        let spelled_out = predictor.record.spec.transform.as_deref().map(scaled_items).unwrap_or_default();
        for weighted in super::information::weighted_features(predictor) {
            let scaling = predictor.transform.scaling(weighted.feature);
            let is_automatic = !spelled_out.contains(&weighted.feature.name);
            if let (Some((offset, scale)), true) = (scaling, is_automatic) {
                units.offsets[weighted.inputs.clone()].fill(offset);
                units.scales[weighted.inputs].fill(scale);
            }
        }
        units
    }

    /// A weight of the model, or its standard error, in these units.
    pub(super) fn weight(&self, input: usize, weight: f64) -> f64 {
        weight / self.scales[input]
    }

    /// The intercept of an output of the model in these units.
    pub(super) fn intercept(&self, model: &LinearModel, output: usize) -> f64 {
        let outputs = model.kind.outputs();
        let moved = |(input, shift): (usize, f64)| model.coefficients[input * outputs + output] * shift;
        model.intercepts[output] - self.shifts().map(moved).sum::<f64>()
    }

    /// Standard error and p-value of the intercept in these units: of b - Σ w o / s. `None` where a model was trained before
    /// the covariances were kept.
    pub(super) fn intercept_inference(&self, model: &LinearModel, inference: &Inference) -> Option<(f64, f64)> {
        let d = model.coefficients.len();
        let shifts: Vec<(usize, f64)> = self.shifts().collect();
        if shifts.is_empty() {
            return Some((*inference.standard_errors.get(d)?, *inference.p_values.get(d)?));
        }
        let direction: Vec<(usize, f64)> =
            shifts.into_iter().map(|(input, shift)| (input, -shift)).chain([(d, 1.0)]).collect();
        let variance = inference.variance(&direction)?;
        let error = variance.max(0.0).sqrt();
        Some((error, inference.p_value(self.intercept(model, 0), error)?))
    }

    /// The inputs with o / s, where that is not 0.
    fn shifts(&self) -> impl Iterator<Item = (usize, f64)> {
        let shifts = self.offsets.iter().zip(&self.scales).map(|(offset, scale)| offset / scale);
        shifts.enumerate().filter(|(_, shift)| *shift != 0.0)
    }
}

/// Items of a TRANSFORM list that are the result of a scaler.
fn scaled_items(select_list: &str) -> Vec<String> {
    let text = format!("SELECT {select_list}");
    let statements = Parser::parse_sql(&GenericDialect {}, &text).unwrap_or_default();
    let Some(Statement::Query(query)) = statements.first() else { return Vec::new() };
    let SetExpr::Select(select) = query.body.as_ref() else { return Vec::new() };
    let scaled = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr, alias } => is_scaler(expr).then(|| folded(alias)),
        SelectItem::UnnamedExpr(expr) => is_scaler(expr).then(|| expr.to_string()),
        _ => None,
    };
    select.projection.iter().filter_map(scaled).collect()
}

fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn is_scaler(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_scaler(inner),
        Expr::Function(call) => {
            let name = call.name.to_string().to_uppercase();
            name.starts_with("ML.") && name.ends_with("_SCALER")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalers_are_told_from_what_stands_around_them() {
        let list = "a, ML.STANDARD_SCALER(b) OVER () AS B2, (ml.robust_scaler(c) OVER ()) AS \"C\", \
                    ML.MAX_ABS_SCALER(d) OVER () + 1 AS d, ML.IMPUTER(e, 'mean') OVER () AS e, * EXCEPT (f)";
        assert_eq!(scaled_items(list), ["b2", "C"]);
        assert_eq!(scaled_items("not ) a list"), Vec::<String>::new());
    }
}
