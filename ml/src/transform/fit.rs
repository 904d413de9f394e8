//! Fits a transform: level by level, one aggregate query over the training rows each.
//!
//! A function whose argument is made of raw columns alone is on the first level; one whose argument needs a fitted
//! function's result is on the level above it. All functions of a level share one query.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use engine::{Error, Result};

use super::categories::{Categories, CategoryCounts, CategoryType};
use super::fitted::Fitted;
use super::frozen::{Feature, FrozenTransform, Inputs};
use super::info::FeatureInfo;
use super::planning;
use super::spec::{
    CategoryLimit, FeatureKind, FitFunction, Imputation, Step, TransformSpec, Work, element_type, engine_error,
    is_number,
};
use super::statistics::{ColumnStatistics, Find, Needs, collect};
use super::target::{self, Target};
use crate::estimate;
use crate::statistics::Rows;

/// What is asked beside what the functions need.
#[derive(Debug, Clone)]
pub struct FitOptions {
    /// Medians of all numeric inputs, for ML.FEATURE_INFO. Exact medians need memory for each distinct value, so a
    /// caller with very many rows leaves them out.
    pub medians: bool,
    /// The label, for TARGET_ENCODING.
    pub target: Option<Target>,
    /// How quantiles are found: a matter of memory and time, never of the result.
    pub quantiles: Find,
}

impl Default for FitOptions {
    fn default() -> Self {
        FitOptions { medians: true, target: None, quantiles: Find::ByCounting }
    }
}

impl TransformSpec {
    /// Fits all functions on `train`, the rows of the training split as the training query gives them.
    ///
    /// # Errors
    /// No rows, NaN or infinities in a number (names the column), arrays of different lengths, a failing query.
    pub async fn fit(&self, train: impl Into<Rows>, options: &FitOptions) -> Result<FrozenTransform> {
        let train = train.into();
        let mut fitting = Fitting { spec: self, steps: Vec::new(), warnings: Vec::new(), info: Vec::new() };
        let levels = self.levels()?;
        let last = levels.values().copied().max().unwrap_or(0);
        for level in 1..=last.max(1) {
            fitting.fit_level(level, &levels, &train, options).await?;
        }
        fitting.freeze()
    }

    /// The level of each step: how many queries must be answered before its column is known.
    fn levels(&self) -> Result<BTreeMap<String, usize>> {
        let mut levels: BTreeMap<String, usize> = BTreeMap::new();
        for step in &self.steps {
            let level_of = |column: &str| levels.get(column).copied().unwrap_or(0);
            let level = match &step.work {
                Work::Fit { input, .. } => level_of(input) + 1,
                Work::Sql { sql } => {
                    let columns = planning::columns_of(&planning::plan(sql, &self.columns)?);
                    columns.iter().map(|column| level_of(column)).max().unwrap_or(0)
                }
            };
            levels.insert(step.name.clone(), level);
        }
        Ok(levels)
    }
}

struct Fitting<'a> {
    spec: &'a TransformSpec,
    steps: Vec<Step<Fitted>>,
    warnings: Vec<String>,
    info: Vec<FeatureInfo>,
}

impl Fitting<'_> {
    async fn fit_level(
        &mut self,
        level: usize,
        levels: &BTreeMap<String, usize>,
        train: &Rows,
        options: &FitOptions,
    ) -> Result<()> {
        let mut wanted: Vec<(String, Needs)> = Vec::new();
        let mut want = |column: &str, needs: Needs| match wanted.iter_mut().find(|(known, _)| known == column) {
            Some((_, known)) => known.merge(needs),
            None => wanted.push((column.to_owned(), needs)),
        };
        let of_level = || self.spec.steps.iter().filter(|step| levels.get(&step.name) == Some(&level));
        for step in of_level() {
            if let Work::Fit { input, function } = &step.work {
                want(input, needs_of(function, self.spec.columns.field_with_name(input).map(|f| f.data_type()).ok()));
            }
        }
        if level == 1 {
            for name in self.feature_inputs()? {
                let data_type = self.spec.columns.field_with_name(&name).map(|f| f.data_type().clone()).ok();
                want(&name, data_type.map(|t| needs_for_info(&t, options)).unwrap_or_default());
            }
        }
        let columns =
            wanted.iter().map(|(column, needs)| Ok((self.spec.expression(column, &self.steps)?, needs.clone())));
        let found = collect(train, &columns.collect::<Result<Vec<_>>>()?, options.quantiles).await?;
        if found.first().is_some_and(|statistics| statistics.rows == 0) {
            return Err(Error::invalid("there are no training rows"));
        }
        let found: BTreeMap<String, ColumnStatistics> =
            wanted.into_iter().zip(found).map(|((column, _), statistics)| (column, statistics)).collect();
        let mut fitted = Vec::new();
        for step in of_level() {
            if let Work::Fit { input, function } = &step.work {
                let name = self.spec.describe(input);
                let data_type = self.spec.columns.field_with_name(input).map_err(engine_error)?.data_type();
                let function = match function {
                    FitFunction::TargetEncoder { standardise } => {
                        let target = options
                            .target
                            .as_ref()
                            .ok_or_else(|| Error::invalid("TARGET_ENCODING needs the label of the training rows"))?;
                        let column = self.spec.expression(input, &self.steps)?;
                        target::fit(train, column, CategoryType::of(data_type), target, *standardise).await?
                    }
                    other => freeze(other, &name, data_type, &found[input], &mut self.warnings)?,
                };
                fitted.push(Step { name: step.name.clone(), work: Work::Fit { input: input.clone(), function } });
            }
        }
        self.steps.extend(fitted);
        if level == 1 {
            for input in self.feature_inputs()? {
                let statistics = &found[&input];
                self.info.push(FeatureInfo::of(&input, statistics));
            }
        }
        Ok(())
    }

    /// The raw columns that features are made of, in the order of the training query.
    fn feature_inputs(&self) -> Result<Vec<String>> {
        let used = self.spec.raw_columns_of(self.spec.features.iter().map(|feature| feature.column.as_str()))?;
        Ok(self.spec.inputs.iter().map(|input| input.name.clone()).filter(|name| used.contains(name)).collect())
    }

    fn freeze(self) -> Result<FrozenTransform> {
        let spec = self.spec;
        let function_of = |column: &str| {
            self.steps.iter().find(|step| step.name == column).and_then(|step| match &step.work {
                Work::Fit { function, .. } => Some(function),
                Work::Sql { .. } => None,
            })
        };
        let mut features = Vec::new();
        for feature in &spec.features {
            let function = function_of(&feature.column);
            let width = function.and_then(Fitted::categories).map_or(0, Categories::width);
            let missing = function.map_or(0.0, Fitted::missing);
            let inputs = match feature.kind {
                FeatureKind::Number => match function.and_then(Fitted::length) {
                    None => Inputs::Number { missing },
                    Some(length) => Inputs::Numbers { length, missing },
                },
                FeatureKind::OneHot => Inputs::OneHot { width },
                FeatureKind::MultiHot => Inputs::Bag { width },
                FeatureKind::Buckets { width } => Inputs::Buckets { width },
            };
            features.push(Feature { name: feature.name.clone(), column: feature.column.clone(), inputs });
        }
        let mut steps = Vec::new();
        for step in &spec.steps {
            steps.push(match &step.work {
                Work::Sql { sql } => Step { name: step.name.clone(), work: Work::Sql { sql: sql.clone() } },
                Work::Fit { .. } => {
                    let fitted = self.steps.iter().find(|fitted| fitted.name == step.name);
                    fitted.expect("every level was fitted").clone()
                }
            });
        }
        FrozenTransform::new(spec.inputs.clone(), steps, features, spec.labels.clone(), self.info, self.warnings)
    }
}

fn needs_of(function: &FitFunction, input: Option<&DataType>) -> Needs {
    let none = Needs::default();
    let array = input.is_some_and(|input| element_type(input).is_some());
    let moments = || Needs { moments: !array, array_moments: array, ..Needs::default() };
    match function {
        FitFunction::StandardScaler | FitFunction::MinMaxScaler | FitFunction::MaxAbsScaler => moments(),
        FitFunction::Imputer(Imputation::Mean) => moments(),
        FitFunction::Imputer(Imputation::Median) => Needs { quantiles: vec![0.5], ..moments() },
        FitFunction::Imputer(Imputation::MostFrequent) => Needs { categories: true, ..none },
        FitFunction::RobustScaler { low, high, .. } => Needs { quantiles: vec![*low, 0.5, *high], ..moments() },
        FitFunction::QuantileBucketize { buckets, .. } => {
            Needs { quantiles: inner_probabilities(*buckets), ..moments() }
        }
        FitFunction::LabelEncoder(_) | FitFunction::OneHotEncoder { .. } | FitFunction::TargetEncoder { .. } => {
            Needs { categories: true, ..none }
        }
        FitFunction::MultiHotEncoder(_) => Needs { elements: true, ..none },
    }
}

fn needs_for_info(data_type: &DataType, options: &FitOptions) -> Needs {
    match element_type(data_type) {
        Some(element) if is_number(element) => Needs { array_moments: true, ..Needs::default() },
        None if data_type.is_numeric() => {
            let quantiles = if options.medians { vec![0.5] } else { Vec::new() };
            Needs { moments: true, quantiles, ..Needs::default() }
        }
        _ => Needs::default(),
    }
}

/// 1/k, 2/k, ... (k-1)/k.
fn inner_probabilities(buckets: usize) -> Vec<f64> {
    (1..buckets).map(|i| i as f64 / buckets as f64).collect()
}

fn freeze(
    function: &FitFunction,
    column: &str,
    data_type: &DataType,
    found: &ColumnStatistics,
    warnings: &mut Vec<String>,
) -> Result<Fitted> {
    let length = one_length(column, found)?;
    if length.is_none() && element_type(data_type).is_some_and(is_number) {
        return Err(Error::invalid(format!(
            "feature column `{column}` is NULL in every training row: the length of its arrays is unknown"
        )));
    }
    let moments = found.moments.clone().unwrap_or_default();
    if moments.not_finite > 0 {
        let what = if moments.not_finite == 1 { "value that is" } else { "values that are" };
        return Err(Error::invalid(format!(
            "feature column `{column}` holds {} {what} NaN or infinite in the training rows",
            moments.not_finite
        ))
        .with_hint(
            "filter such rows or turn the values into NULL, which is imputed: CASE WHEN isnan(x) THEN NULL ELSE x END",
        ));
    }
    let mut warn = |what: &str| warnings.push(format!("feature column `{column}` {what}"));
    let all_null = found.nulls == found.rows;
    if all_null {
        warn("is NULL in every training row: it tells the model nothing");
    }
    let scale = |offset: f64, scale: f64, low: Option<f64>, high: Option<f64>| {
        // A column without spread, as scikit-learn does it: only moved.
        let scale = if scale > 0.0 && scale.is_finite() { scale } else { 1.0 };
        let scaled = (moments.mean.unwrap_or(0.0) - offset) / scale;
        let missing = scaled.clamp(low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY));
        Fitted::Scale { offset, scale, low, high, missing, length }
    };
    let or_0 = |x: Option<f64>| x.unwrap_or(0.0);
    Ok(match function {
        FitFunction::StandardScaler => scale(or_0(moments.mean), or_0(moments.stddev), None, None),
        FitFunction::MinMaxScaler => {
            let (low, high) = (or_0(moments.min), or_0(moments.max));
            scale(low, high - low, Some(0.0), Some(1.0))
        }
        FitFunction::MaxAbsScaler => scale(0.0, or_0(moments.max_abs), Some(-1.0), Some(1.0)),
        FitFunction::RobustScaler { low, high, center, scale: by_range } => {
            let quantile = |p: f64| found.quantile(p).unwrap_or(0.0);
            let offset = if *center { quantile(0.5) } else { 0.0 };
            scale(offset, if *by_range { quantile(*high) - quantile(*low) } else { 1.0 }, None, None)
        }
        FitFunction::Imputer(Imputation::Mean) => Fitted::FillNumber { missing: or_0(moments.mean), length },
        FitFunction::Imputer(Imputation::Median) => {
            Fitted::FillNumber { missing: or_0(found.quantile(0.5)), length: None }
        }
        FitFunction::Imputer(Imputation::MostFrequent) => {
            let counts = found.categories.as_ref().map(|categories| categories.counts.as_slice()).unwrap_or_default();
            most_frequent(counts, data_type)
        }
        FitFunction::QuantileBucketize { buckets, format } => {
            let mut splits: Vec<f64> =
                inner_probabilities(*buckets).into_iter().filter_map(|p| found.quantile(p)).collect();
            splits.dedup();
            Fitted::Bucketize { splits, format: *format }
        }
        FitFunction::TargetEncoder { .. } => unreachable!("a target encoder is fitted with the label"),
        FitFunction::LabelEncoder(limit)
        | FitFunction::OneHotEncoder { limit, .. }
        | FitFunction::MultiHotEncoder(limit) => {
            let counts = found.categories.clone().unwrap_or_default();
            let drop_first = matches!(function, FitFunction::OneHotEncoder { drop_most_frequent: true, .. });
            let of = CategoryType::of(element_type(data_type).unwrap_or(data_type));
            let categories = Categories::choose(&counts, of, *limit, drop_first);
            if let Some(told) = left_out(&counts, &categories, *limit, function.name()).filter(|_| !all_null) {
                warn(&told);
            }
            match function {
                FitFunction::LabelEncoder(_) => Fitted::LabelEncoder(categories),
                FitFunction::OneHotEncoder { .. } => Fitted::OneHot(categories),
                _ => Fitted::MultiHot(categories),
            }
        }
    })
}

/// What the user should know of the categories that share an input.
fn left_out(counts: &CategoryCounts, kept: &Categories, limit: CategoryLimit, function: &str) -> Option<String> {
    let threshold = limit.frequency_threshold;
    let all = counts.counts.len();
    let rare = all - kept.values.len() - usize::from(kept.dropped.is_some());
    if rare == all {
        let most = counts.counts.first().map_or(0, |(_, count)| *count);
        return Some(format!(
            "has no category that occurs {threshold} times (the most frequent: {most}): all of them count as other; \
             frequency_threshold is an argument of {function}"
        ));
    }
    if rare == 0 || limit.is_written {
        return None;
    }
    let thousands = |count: usize| estimate::thousands(count as f64);
    let why = match counts.counts.iter().filter(|(_, count)| *count >= threshold).count() {
        frequent if frequent > limit.top_k => format!("beyond the {} most frequent", thousands(limit.top_k)),
        _ => format!("seen less than {threshold} times"),
    };
    Some(format!(
        "has {} categories, of which {} share one input, {why}; ML.ONE_HOT_ENCODER(x, 'none', top_k, \
         frequency_threshold) OVER () in TRANSFORM says how many have their own",
        thousands(all),
        thousands(rare)
    ))
}

/// The most frequent value, ties by value; `counts` come with ties by text.
fn most_frequent(counts: &[(String, u64)], data_type: &DataType) -> Fitted {
    let first = counts.first().map_or("", |(value, _)| value.as_str());
    match data_type {
        DataType::Boolean => Fitted::FillBoolean { missing: first == "true" },
        number if is_number(number) => {
            let most = counts.first().map_or(0, |(_, count)| *count);
            let tied = counts.iter().take_while(|(_, count)| *count == most);
            let missing = tied.filter_map(|(value, _)| value.parse::<f64>().ok()).min_by(f64::total_cmp);
            Fitted::FillNumber { missing: missing.unwrap_or(0.0), length: None }
        }
        _ => Fitted::FillText { missing: first.to_owned() },
    }
}

/// The length that all arrays of a column have.
fn one_length(column: &str, found: &ColumnStatistics) -> Result<Option<usize>> {
    match found.lengths {
        Some((shortest, longest)) if shortest != longest => Err(Error::invalid(format!(
            "feature column `{column}` holds arrays of different lengths: from {shortest} to {longest} elements"
        ))
        .with_hint("every array of a feature column must have the same length")),
        Some((length, _)) => Ok(Some(length)),
        None => Ok(None),
    }
}
