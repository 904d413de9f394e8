//! Builds the steps of a transform one by one, keeping track of every column's type.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field, Schema};
use engine::{Error, Result};

use super::automatic::CategoryEncoding;
use super::input::InputColumn;
use super::planning;
use super::spec::{
    CategoryLimit, FeatureKind, FeatureSpec, FitFunction, Imputation, LabelColumn, Step, TransformSpec, Work,
    element_type, engine_error, is_number, is_text,
};

/// Names of columns made by steps begin with this, which no SQL name does without quotes.
const INTERNAL: &str = "gm$";

/// Whether a column is made by a step.
pub(crate) fn is_internal(name: &str) -> bool {
    name.starts_with(INTERNAL)
}

/// A column as the user wrote it: steps are spelled out.
pub(crate) fn describe<F: Described>(steps: &[Step<F>], column: &str) -> String {
    let Some(position) = steps.iter().position(|step| step.name == column) else {
        return column.to_owned();
    };
    match &steps[position].work {
        Work::Fit { input, function } => format!("{}({})", function.name(), describe(steps, input)),
        Work::Sql { sql } => steps[..position]
            .iter()
            .rev()
            .filter(|step| sql.contains(&quoted(&step.name)))
            .fold(sql.clone(), |text, step| text.replace(&quoted(&step.name), &describe(steps, &step.name))),
    }
}

/// What has a name for messages.
pub(crate) trait Described {
    /// As the user writes it.
    fn name(&self) -> &'static str;
}

impl Described for FitFunction {
    fn name(&self) -> &'static str {
        FitFunction::name(self)
    }
}

/// A name as a quoted SQL identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// How columns become features where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    /// Whether plain numbers are standardised (they are always imputed).
    pub(crate) standardise: bool,
    /// What becomes of strings and booleans.
    pub(crate) categories: CategoryEncoding,
    /// Categories of a column that get an input of their own, at most: as many as memory allows.
    pub(crate) categories_max: usize,
}

impl Defaults {
    /// Which categories of a column get an input of their own where nothing is said.
    fn limit(self) -> CategoryLimit {
        CategoryLimit { top_k: self.categories_max, frequency_threshold: 1, is_written: false }
    }
}

/// All of them, where a category takes no input of its own.
const ALL: CategoryLimit = CategoryLimit { top_k: usize::MAX, frequency_threshold: 1, is_written: true };

/// Steps under construction.
#[derive(Debug)]
pub(crate) struct Steps {
    columns: Schema,
    steps: Vec<Step<FitFunction>>,
    features: Vec<FeatureSpec>,
}

impl Steps {
    /// Nothing but the training query's columns.
    pub(crate) fn new(schema: &Schema) -> Self {
        Steps { columns: schema.clone(), steps: Vec::new(), features: Vec::new() }
    }

    /// The type of a column.
    pub(crate) fn type_of(&self, column: &str) -> Result<DataType> {
        match self.columns.field_with_name(column) {
            Ok(field) => Ok(field.data_type().clone()),
            Err(_) => Err(planning::unknown_column(column, &self.columns)),
        }
    }

    /// A column as the user wrote it.
    pub(crate) fn describe(&self, column: &str) -> String {
        describe(&self.steps, column)
    }

    /// Adds a stateless expression and gives its column; a plain column is its own.
    pub(crate) fn sql(&mut self, text: &str) -> Result<String> {
        let expr = planning::plan(text, &self.columns)?;
        if let datafusion::logical_expr::Expr::Column(column) = &expr {
            return Ok(column.name.clone());
        }
        if let Some(encoder) = planning::columns_of(&expr).iter().find(|column| self.is_encoded(column)) {
            return Err(self.encoder_inside(encoder));
        }
        let read = planning::read_by(&expr, &self.columns);
        let data_type = planning::physical(expr, text, &read)?.data_type(&read)?;
        Ok(self.add(Work::Sql { sql: text.to_owned() }, data_type))
    }

    /// Adds a function to be fitted on a column.
    pub(crate) fn fit(&mut self, function: FitFunction, input: &str) -> Result<String> {
        if self.is_encoded(input) {
            return Err(self.encoder_inside(input));
        }
        let data_type = function.output_type(&self.type_of(input)?, &self.describe(input))?;
        let work = Work::Fit { input: input.to_owned(), function };
        if let Some(known) = self.steps.iter().find(|step| step.work == work) {
            return Ok(known.name.clone());
        }
        Ok(self.add(work, data_type))
    }

    fn add(&mut self, work: Work<FitFunction>, data_type: DataType) -> String {
        let name = format!("{INTERNAL}{}", self.steps.len() + 1);
        let mut fields: Vec<_> = self.columns.fields().to_vec();
        fields.push(Field::new(&name, data_type, true).into());
        self.columns = Schema::new(fields);
        self.steps.push(Step { name: name.clone(), work });
        name
    }

    fn function_of(&self, column: &str) -> Option<&FitFunction> {
        self.steps.iter().find(|step| step.name == column).and_then(|step| match &step.work {
            Work::Fit { function, .. } => Some(function),
            Work::Sql { .. } => None,
        })
    }

    fn is_encoded(&self, column: &str) -> bool {
        matches!(self.function_of(column), Some(FitFunction::OneHotEncoder { .. } | FitFunction::MultiHotEncoder(_)))
    }

    fn encoder_inside(&self, column: &str) -> Error {
        let name = self.function_of(column).map_or("the encoder", |function| function.name());
        Error::invalid(format!("TRANSFORM: the result of {name} is a feature and cannot be an argument or an operand"))
            .with_hint(format!("put {name} outermost in its item of the list"))
    }

    /// Adds what the model sees of `column` under `name`.
    pub(crate) fn feature(&mut self, name: &str, column: &str, defaults: Defaults) -> Result<()> {
        match self.function_of(column) {
            Some(FitFunction::OneHotEncoder { .. }) => return self.add_feature(name, column, FeatureKind::OneHot),
            Some(FitFunction::MultiHotEncoder(_)) => return self.add_feature(name, column, FeatureKind::MultiHot),
            Some(FitFunction::QuantileBucketize { .. } | FitFunction::Imputer(Imputation::MostFrequent)) | None => {}
            // Numbers that nothing has scaled.
            Some(FitFunction::Imputer(_) | FitFunction::LabelEncoder(_)) if defaults.standardise => {}
            Some(_) => return self.add_feature(name, column, FeatureKind::Number),
        }
        let data_type = self.type_of(column)?;
        let refuse = |what: &str| {
            Err(Error::invalid(format!("column `{name}` of type {data_type} cannot be a feature: {what}"))
                .with_hint("leave it out of the query or turn it into numbers or strings"))
        };
        match &data_type {
            DataType::Boolean => self.category(name, column, defaults),
            text if is_text(text) => self.category(name, column, defaults),
            number if is_number(number) => {
                let scaled = self.fit(number_function(defaults), column)?;
                self.add_feature(name, &scaled, FeatureKind::Number)
            }
            DataType::Date32 | DataType::Date64 => self.parts(name, column, DATE_PARTS, defaults),
            DataType::Timestamp(..) => self.parts(name, column, TIMESTAMP_PARTS, defaults),
            DataType::Time32(_) | DataType::Time64(_) => self.parts(name, column, TIME_PARTS, defaults),
            DataType::Duration(_) => self.parts(name, column, DURATION_PARTS, defaults),
            DataType::Struct(fields) => {
                for field in fields.clone().iter() {
                    let part =
                        self.sql(&format!("get_field({}, '{}')", quoted(column), field.name().replace('\'', "''")))?;
                    self.feature(&format!("{name}.{}", field.name()), &part, defaults)?;
                }
                Ok(())
            }
            list => match element_type(list) {
                Some(element) if is_number(element) => {
                    let scaled = self.fit(number_function(defaults), column)?;
                    self.add_feature(name, &scaled, FeatureKind::Number)
                }
                Some(element) if is_text(element) => {
                    let encoded = self.fit(FitFunction::MultiHotEncoder(defaults.limit()), column)?;
                    self.add_feature(name, &encoded, FeatureKind::MultiHot)
                }
                Some(_) => refuse("an array must hold numbers or strings"),
                None => {
                    refuse("features are numbers, strings, booleans, dates, timestamps, arrays and structs of those")
                }
            },
        }
    }

    fn category(&mut self, name: &str, column: &str, defaults: Defaults) -> Result<()> {
        let one_hot = |drop_most_frequent: bool| {
            (FitFunction::OneHotEncoder { limit: defaults.limit(), drop_most_frequent }, FeatureKind::OneHot)
        };
        let (function, kind) = match defaults.categories {
            CategoryEncoding::OneHot => one_hot(false),
            CategoryEncoding::Dummy => one_hot(true),
            CategoryEncoding::Label => (FitFunction::LabelEncoder(ALL), FeatureKind::Number),
            CategoryEncoding::Target => {
                (FitFunction::TargetEncoder { standardise: defaults.standardise }, FeatureKind::Number)
            }
        };
        let encoded = self.fit(function, column)?;
        self.add_feature(name, &encoded, kind)
    }

    fn parts(&mut self, name: &str, column: &str, parts: &[(&str, &str)], defaults: Defaults) -> Result<()> {
        for (part, sql) in parts {
            let value = self.sql(&sql.replace("{}", &quoted(column)))?;
            let function = if defaults.standardise { FitFunction::StandardScaler } else { number_function(defaults) };
            let scaled = self.fit(function, &value)?;
            self.add_feature(&format!("{name}.{part}"), &scaled, FeatureKind::Number)?;
        }
        Ok(())
    }

    /// Adds a feature as it is.
    pub(crate) fn add_feature(&mut self, name: &str, column: &str, kind: FeatureKind) -> Result<()> {
        if self.features.iter().any(|feature| feature.name == name) {
            return Err(Error::invalid(format!("TRANSFORM: two features are named `{name}`"))
                .with_hint("give one of them another name with AS"));
        }
        self.features.push(FeatureSpec { name: name.to_owned(), column: column.to_owned(), kind });
        Ok(())
    }

    /// The whole, with only the raw columns that are needed.
    pub(crate) fn finish(self, labels: Vec<LabelColumn>) -> Result<TransformSpec> {
        let Steps { columns, steps, features } = self;
        if features.is_empty() {
            return Err(Error::invalid(
                "the model has no features: beside the label there must be at least one column",
            ));
        }
        let mut spec = TransformSpec { inputs: Vec::new(), steps, features, labels, columns };
        let last = spec.features.iter().map(|f| &f.column).chain(spec.labels.iter().map(|l| &l.column));
        let used: BTreeSet<String> = spec.raw_columns_of(last.map(String::as_str))?;
        for name in used.iter() {
            spec.columns.field_with_name(name).map_err(engine_error)?;
        }
        let raw = spec.columns.fields().iter().filter(|field| used.contains(field.name()));
        spec.inputs = raw.map(|f| InputColumn { name: f.name().clone(), data_type: f.data_type().clone() }).collect();
        let kept = spec.columns.fields().iter().filter(|f| used.contains(f.name()) || is_internal(f.name())).cloned();
        spec.columns = Schema::new(kept.collect::<Vec<_>>());
        Ok(spec)
    }
}

fn number_function(defaults: Defaults) -> FitFunction {
    if defaults.standardise { FitFunction::StandardScaler } else { FitFunction::Imputer(Imputation::Mean) }
}

/// What a point in time is made of, `{}` being the column. Days of the week count from Sunday = 0.
const TIMESTAMP_PARTS: &[(&str, &str)] = &[
    ("epoch", "date_part('epoch', {})"),
    ("year", "date_part('year', {})"),
    ("month", "date_part('month', {})"),
    ("day", "date_part('day', {})"),
    ("day_of_week", "date_part('dow', {})"),
    ("hour", "date_part('hour', {})"),
    ("minute", "date_part('minute', {})"),
];
const DATE_PARTS: &[(&str, &str)] = &[
    ("epoch", "date_part('epoch', {})"),
    ("year", "date_part('year', {})"),
    ("month", "date_part('month', {})"),
    ("day", "date_part('day', {})"),
    ("day_of_week", "date_part('dow', {})"),
];
const TIME_PARTS: &[(&str, &str)] = &[("hour", "date_part('hour', {})"), ("minute", "date_part('minute', {})")];
const DURATION_PARTS: &[(&str, &str)] = &[("ticks", "CAST(CAST({} AS BIGINT) AS DOUBLE)")];
