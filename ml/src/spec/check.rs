//! From a specification as written to one that can be trained: every option has its type, every column exists.

use arrow::datatypes::Schema;
use engine::{Error, Result, near};
use serde::{Deserialize, Serialize};

use super::option::{Options, as_integer, as_number, at, wrong};
use super::publication::Publication;
use super::{IfExists, ModelSpec, ModelType, OptionValue, WrittenOption};
use crate::kernel::KernelChoice;
use crate::layer::Activation;
use crate::loss::Loss;
use crate::materialize::SplitMethod;
use crate::metric;
use crate::optimizer::Optimizer;
use crate::schedule::{Schedule, Shape};
use crate::transform::{CATEGORIES_MAX, CategoryEncoding};

/// A specification that fits its training query. All that changes the trained bytes is in here, but for the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckedSpec {
    /// The model's name.
    pub name: String,
    /// What to do when the name is taken.
    #[serde(skip)]
    pub if_exists: IfExists,
    /// Which kind of model.
    pub model_type: ModelType,
    /// Column of the training query, or of TRANSFORM's output, that is to be predicted.
    pub label: String,
    /// The select list of TRANSFORM.
    pub transform: Option<String>,
    /// Byte offset of that list in the statement, for messages.
    #[serde(skip)]
    pub transform_offset: Option<usize>,
    /// How rows are kept from training.
    #[serde(with = "split_text")]
    pub split: SplitMethod,
    /// How classes count.
    pub class_weights: ClassWeights,
    /// How strings become numbers without TRANSFORM.
    pub category_encoding: CategoryEncoding,
    /// Whether numbers that nothing has scaled are standardised.
    #[serde(default)]
    pub standardise: bool,
    /// Decides the order of rows, the split and the initial weights.
    pub seed: u64,
    /// Whether the statement says the seed; the session's setting counts otherwise.
    #[serde(skip)]
    pub seed_given: bool,
    /// S, a power of two.
    pub shards: usize,
    /// Which matrix kernel was asked for; the session decides when none was.
    #[serde(skip)]
    pub kernel: Option<KernelChoice>,
    /// How many threads train; the session decides when none was given. Never changes a byte.
    #[serde(skip)]
    pub workers: Option<usize>,
    /// Without which it is not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_if: Option<Publication>,
    /// How it is trained.
    pub estimator: Estimator,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// `linear_reg`, `logistic_reg`.
    Linear(LinearSettings),
    /// `dnn_classifier`, `dnn_regressor`.
    Network(NetworkSettings),
}

/// Settings of linear models. `None` leaves the choice to the solver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearSettings {
    /// Which solver.
    pub strategy: OptimizeStrategy,
    /// How gradient descent chooses its step.
    pub learn_rate_strategy: LearnRateStrategy,
    /// The constant rate, or the first one tried by the line search.
    pub learn_rate: Option<f64>,
    /// Weight of the sum of absolute coefficients.
    pub l1: f64,
    /// Weight of the sum of squared coefficients.
    pub l2: f64,
    /// Iterations at most.
    pub max_iterations: Option<usize>,
    /// Whether to stop when progress is small.
    pub early_stop: bool,
    /// What small is, relative to the loss.
    pub min_rel_progress: Option<f64>,
    /// Whether standard errors and p-values are computed.
    pub p_values: bool,
    /// Whether there is a constant term.
    pub fit_intercept: bool,
}

/// Solver of a linear model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizeStrategy {
    /// The normal equation where it applies, otherwise the best iterative solver.
    Auto,
    /// Full-batch gradient descent.
    BatchGradientDescent,
    /// Solve for least squares directly.
    NormalEquation,
}

/// Step size of gradient descent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnRateStrategy {
    /// Searched in each iteration.
    LineSearch,
    /// The same in all.
    Constant,
}

/// Settings of networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// Sums of each hidden layer.
    pub hidden: Vec<usize>,
    /// After every hidden layer.
    pub activation: Activation,
    /// Share of hidden outputs dropped, in [0, 1).
    pub dropout: f64,
    /// Whether hidden layers are normalised.
    pub layer_norm: bool,
    /// For regressors; a classifier's follows from its classes.
    pub regression_loss: Loss,
    /// How a gradient changes parameters.
    pub optimizer: Optimizer,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// Rows of a step.
    pub batch_size: usize,
    /// Epochs at most; where nothing is said it depends on the steps of an epoch.
    pub epochs: Option<usize>,
    /// Weight of the sum of absolute weights.
    pub l1: f64,
    /// Weight of the sum of squared weights.
    pub l2: f64,
    /// The gradient's norm is cut to this.
    pub clip_norm: Option<f64>,
    /// Whether to stop when an epoch gains little.
    pub early_stop: bool,
    /// What little is, relative to the loss; where nothing is said it depends on the steps of an epoch.
    pub min_rel_progress: Option<f64>,
}

/// How much a class counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All the same.
    Equal,
    /// Inverse to their share: rows / (classes * rows of the class).
    Balanced,
    /// As given, label and weight; others count 1.
    Given(Vec<(String, f64)>),
}

impl CheckedSpec {
    /// Categories of a column that get an input of their own where nothing is said, at most. A network keeps weights from each
    /// to its first layer, and works on all of them at each step.
    pub(crate) fn categories_max(&self) -> usize {
        match &self.estimator {
            Estimator::Linear(_) => CATEGORIES_MAX,
            Estimator::Network(settings) => {
                let first = settings.hidden.first().copied().unwrap_or(1).max(1);
                (FIRST_LAYER_WEIGHTS_MAX / first).clamp(1_000, CATEGORIES_MAX)
            }
        }
    }
}

/// Weights from the categories of one column to the first layer of a network: 64 MiB, and three times that to train them.
const FIRST_LAYER_WEIGHTS_MAX: usize = 1 << 24;

impl ModelSpec {
    /// Checks the specification against the schema of the training query.
    ///
    /// # Errors
    /// Unknown or wrongly typed options, with the near name and the place; columns that do not exist.
    pub fn check(&self, schema: &Schema) -> Result<CheckedSpec> {
        let (model_type, options) = Options::new(self)?;
        let label = label(&options, schema, self.transform.is_some())?;
        let split = split(&options, schema, &label)?;
        let estimator = if model_type.is_network() {
            Estimator::Network(network(&options)?)
        } else {
            Estimator::Linear(linear(&options, model_type)?)
        };
        if self.transform.is_some()
            && let Some(option) = options.find("category_encoding_method")
        {
            let error = Error::invalid("option category_encoding_method has no use beside TRANSFORM");
            return Err(at(option.name.offset, error));
        }
        // A model through the origin is one through the origin of the numbers as they are written.
        let through_origin = matches!(&estimator, Estimator::Linear(settings) if !settings.fit_intercept);
        let keeps_zero = self.transform.is_some() && through_origin;
        Ok(CheckedSpec {
            name: self.name.clone(),
            if_exists: self.if_exists,
            model_type,
            label,
            transform: self.transform.as_ref().map(|t| t.value.clone()),
            transform_offset: self.transform.as_ref().and_then(|t| t.offset),
            split,
            class_weights: class_weights(&options)?,
            category_encoding: category_encoding(&options)?,
            standardise: options.boolean("standardize_features")?.unwrap_or(!keeps_zero),
            seed: options.integer("seed", 0, i64::MAX)?.unwrap_or(0) as u64,
            seed_given: options.find("seed").is_some(),
            shards: shards(&options)?,
            kernel: options.choice(
                "kernel",
                &[("AUTO", KernelChoice::Auto), ("BLAS", KernelChoice::Blas), ("NATIVE", KernelChoice::Native)],
            )?,
            workers: options.integer("num_workers", 1, 1024)?.map(|n| n as usize),
            publish_if: publish_if(&options, model_type)?,
            estimator,
        })
    }
}

fn publish_if(options: &Options, model_type: ModelType) -> Result<Option<Publication>> {
    let Some(text) = options.text("publish_if", "a condition on metrics, such as 'roc_auc >= 0.9'")? else {
        return Ok(None);
    };
    let offset = options.find("publish_if").and_then(|option| option.value.offset);
    let metrics = if model_type.is_classifier() { metric::EVALUATION } else { metric::REGRESSION };
    Publication::parse(text, &metrics).map(Some).map_err(|error| at(offset, error))
}

fn label(options: &Options, schema: &Schema, has_transform: bool) -> Result<String> {
    let (name, offset) = match options.find("input_label_cols") {
        None => ("label".to_string(), None),
        Some(option) => {
            let one = match &option.value.value {
                OptionValue::List(items) if items.len() == 1 => &items[0],
                OptionValue::List(items) if items.len() > 1 => {
                    return Err(wrong(option, "one label column (several are not in this build yet)"));
                }
                value => value,
            };
            let OptionValue::Text(name) = one else { return Err(wrong(option, "a column's name, such as ['late']")) };
            (name.clone(), option.value.offset)
        }
    };
    if let Some(found) = find_column(schema, &name) {
        return Ok(found);
    }
    if has_transform {
        // TRANSFORM may make the label; its own check finds out.
        return Ok(name);
    }
    let error = at(offset, Error::invalid(format!("there is no label column {name} in the training query")));
    Err(match near(&name, schema.fields().iter().map(|f| f.name().as_str())) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None if offset.is_none() => error.with_hint("name it with the option input_label_cols = ['...']"),
        None => error.with_hint(format!("columns are {}", names(schema))),
    })
}

fn names(schema: &Schema) -> String {
    schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// The column's own spelling; letters' case decides only between columns that differ in nothing else.
fn find_column(schema: &Schema, name: &str) -> Option<String> {
    let fields = schema.fields();
    let exact = fields.iter().find(|f| f.name() == name);
    let folded = || fields.iter().find(|f| f.name().eq_ignore_ascii_case(name));
    exact.or_else(folded).map(|f| f.name().clone())
}

fn split(options: &Options, schema: &Schema, label: &str) -> Result<SplitMethod> {
    #[derive(Clone, Copy, PartialEq)]
    enum Method {
        Auto,
        Random,
        Custom,
        Seq,
        None,
    }
    let methods = [
        ("AUTO_SPLIT", Method::Auto),
        ("RANDOM", Method::Random),
        ("CUSTOM", Method::Custom),
        ("SEQ", Method::Seq),
        ("NO_SPLIT", Method::None),
    ];
    let method = options.choice("data_split_method", &methods)?.unwrap_or(Method::Auto);
    let is_fraction = |x: f64| (0.0..1.0).contains(&x);
    let eval = options.number("data_split_eval_fraction", "a number from 0 up to, not including, 1", is_fraction)?;
    let test = options.number("data_split_test_fraction", "a number from 0 up to, not including, 1", is_fraction)?;
    for name in ["data_split_eval_fraction", "data_split_test_fraction"] {
        if let (Method::Auto | Method::Custom | Method::None, Some(option)) = (method, options.find(name)) {
            let error = Error::invalid(format!("option {name} needs data_split_method = 'RANDOM' or 'SEQ'"));
            return Err(at(option.name.offset, error));
        }
    }
    let (eval_fraction, test_fraction) = (eval.unwrap_or(0.2), test.unwrap_or(0.0));
    if eval_fraction + test_fraction >= 1.0 {
        return Err(Error::invalid(format!(
            "data_split_eval_fraction = {eval_fraction} and data_split_test_fraction = {test_fraction} leave no rows to train on"
        )));
    }
    let column = split_column(options, schema, label, matches!(method, Method::Custom | Method::Seq))?;
    let method = match (method, column) {
        (Method::Custom, Some(column)) => SplitMethod::Custom { column },
        (Method::Seq, Some(column)) => SplitMethod::Sequential { column, eval: eval_fraction, test: test_fraction },
        (Method::Random, _) => SplitMethod::Random { eval: eval_fraction, test: test_fraction },
        (Method::None, _) => SplitMethod::None,
        _ => SplitMethod::Auto,
    };
    let offset = options.find("data_split_col").and_then(|option| option.value.offset);
    method.check(schema).map_err(|error| at(offset, error))?;
    Ok(method)
}

fn split_column(options: &Options, schema: &Schema, label: &str, needed: bool) -> Result<Option<String>> {
    let name = options.text("data_split_col", "a column's name")?;
    let offset = options.find("data_split_col").and_then(|o| o.value.offset);
    match (name, needed) {
        (None, false) => Ok(None),
        (None, true) => Err(Error::invalid("data_split_method = 'CUSTOM' or 'SEQ' needs the option data_split_col")),
        (Some(_), false) => {
            Err(at(offset, Error::invalid("option data_split_col needs data_split_method = 'CUSTOM' or 'SEQ'")))
        }
        (Some(name), true) => {
            // A name that is no column is found out by the method's own check.
            let found = find_column(schema, name).unwrap_or_else(|| name.to_string());
            if found == label {
                return Err(at(offset, Error::invalid(format!("data_split_col cannot be the label {label}"))));
            }
            Ok(Some(found))
        }
    }
}

fn class_weights(options: &Options) -> Result<ClassWeights> {
    let auto = options.boolean("auto_class_weights")?.unwrap_or(false);
    let Some(option) = options.find("class_weights") else {
        return Ok(if auto { ClassWeights::Balanced } else { ClassWeights::Equal });
    };
    if auto {
        return Err(at(option.name.offset, Error::invalid("class_weights and auto_class_weights exclude each other")));
    }
    let what = "a list such as [STRUCT('late', 2.0), STRUCT('punctual', 1.0)] with positive weights";
    let OptionValue::List(items) = &option.value.value else { return Err(wrong(option, what)) };
    let pairs: Option<Vec<(String, f64)>> = items.iter().map(class_weight).collect();
    pairs.filter(|pairs| !pairs.is_empty()).map(ClassWeights::Given).ok_or_else(|| wrong(option, what))
}

fn class_weight(item: &OptionValue) -> Option<(String, f64)> {
    let OptionValue::Struct(fields) = item else { return None };
    let [(_, label), (_, weight)] = fields.as_slice() else { return None };
    let label = match label {
        OptionValue::Text(text) => text.clone(),
        OptionValue::Boolean(b) => b.to_string(),
        OptionValue::Integer(i) => i.to_string(),
        _ => return None,
    };
    as_number(weight).filter(|w| *w > 0.0 && w.is_finite()).map(|w| (label, w))
}

fn category_encoding(options: &Options) -> Result<CategoryEncoding> {
    let choices = [
        ("ONE_HOT_ENCODING", CategoryEncoding::OneHot),
        ("DUMMY_ENCODING", CategoryEncoding::Dummy),
        ("LABEL_ENCODING", CategoryEncoding::Label),
        ("TARGET_ENCODING", CategoryEncoding::Target),
    ];
    Ok(options.choice("category_encoding_method", &choices)?.unwrap_or_default())
}

fn shards(options: &Options) -> Result<usize> {
    let shards = options.integer("num_shards", 1, 4096)?.unwrap_or(16) as usize;
    match options.find("num_shards") {
        Some(option) if !shards.is_power_of_two() => Err(wrong(option, "a power of two")),
        _ => Ok(shards),
    }
}

fn is_positive(x: f64) -> bool {
    x > 0.0 && x.is_finite()
}

fn is_not_negative(x: f64) -> bool {
    x >= 0.0 && x.is_finite()
}

/// What logistic regression has for l2_reg where nothing is said: scikit-learn's C = 1.
const LOGISTIC_L2: f64 = 1.0;

fn linear(options: &Options, model_type: ModelType) -> Result<LinearSettings> {
    let strategies = [
        ("AUTO_STRATEGY", OptimizeStrategy::Auto),
        ("BATCH_GRADIENT_DESCENT", OptimizeStrategy::BatchGradientDescent),
        ("NORMAL_EQUATION", OptimizeStrategy::NormalEquation),
    ];
    let strategy = options.choice("optimize_strategy", &strategies)?.unwrap_or(OptimizeStrategy::Auto);
    let l1 = options.number("l1_reg", "a number of at least 0", is_not_negative)?.unwrap_or(0.0);
    if strategy == OptimizeStrategy::NormalEquation {
        let offset = options.find("optimize_strategy").and_then(|o| o.value.offset);
        if model_type == ModelType::LogisticReg {
            return Err(at(offset, Error::invalid("logistic_reg has no normal equation")));
        }
        if l1 > 0.0 {
            return Err(at(offset, Error::invalid("the normal equation cannot do l1_reg")));
        }
    }
    let strategies = [("LINE_SEARCH", LearnRateStrategy::LineSearch), ("CONSTANT", LearnRateStrategy::Constant)];
    let learn_rate_strategy =
        options.choice("learn_rate_strategy", &strategies)?.unwrap_or(LearnRateStrategy::LineSearch);
    let learn_rate = options.number("learn_rate", "a positive number", is_positive)?;
    let first = options.number("ls_init_learn_rate", "a positive number", is_positive)?;
    for name in ["learn_rate", "learn_rate_strategy", "ls_init_learn_rate"] {
        if let Some(option) = options.find(name).filter(|_| strategy != OptimizeStrategy::BatchGradientDescent) {
            let error =
                Error::invalid(format!("option {name} has no effect: no other solver takes steps of that kind"))
                    .with_hint("leave it out, or say optimize_strategy = 'BATCH_GRADIENT_DESCENT'");
            return Err(at(option.name.offset, error));
        }
    }
    if let Some(option) =
        options.find("ls_init_learn_rate").filter(|_| learn_rate_strategy == LearnRateStrategy::Constant)
    {
        let error = Error::invalid("option ls_init_learn_rate has no effect beside learn_rate_strategy = 'CONSTANT'");
        return Err(at(option.name.offset, error.with_hint("learn_rate is the constant rate")));
    }
    let p_values = options.boolean("calculate_p_values")?.unwrap_or(false);
    // Without a penalty the weights of classes that can be told apart without error have no limit.
    let penalised = model_type == ModelType::LogisticReg && l1 == 0.0 && !p_values;
    let default = if penalised { LOGISTIC_L2 } else { 0.0 };
    let l2 = options.number("l2_reg", "a number of at least 0", is_not_negative)?.unwrap_or(default);
    if p_values && (l1 > 0.0 || l2 > 0.0 || strategy == OptimizeStrategy::BatchGradientDescent) {
        let offset = options.find("calculate_p_values").and_then(|o| o.name.offset);
        let error = "calculate_p_values needs a model without l1_reg and l2_reg, and not BATCH_GRADIENT_DESCENT";
        return Err(at(offset, Error::invalid(error)));
    }
    Ok(LinearSettings {
        strategy,
        learn_rate_strategy,
        learn_rate: learn_rate.or(first),
        l1,
        l2,
        max_iterations: options.integer("max_iterations", 1, 1_000_000)?.map(|n| n as usize),
        early_stop: options.boolean("early_stop")?.unwrap_or(true),
        min_rel_progress: options.number("min_rel_progress", "a number of at least 0", is_not_negative)?,
        p_values,
        fit_intercept: options.boolean("fit_intercept")?.unwrap_or(true),
    })
}

fn network(options: &Options) -> Result<NetworkSettings> {
    let activations: Vec<(&str, Activation)> =
        Activation::NAMES.iter().filter_map(|name| Activation::by_name(name).map(|a| (*name, a))).collect();
    let optimizers: Vec<(&str, Optimizer)> =
        Optimizer::NAMES.iter().filter_map(|name| Optimizer::by_name(name).map(|o| (*name, o))).collect();
    let optimizer = options.choice("optimizer", &optimizers)?.unwrap_or(Optimizer::ADAM);
    let rate = options.number("learn_rate", "a positive number", is_positive)?.unwrap_or(0.001);
    let hidden = match options.integers("hidden_units", 1, 1 << 16)? {
        Some(hidden) => hidden.into_iter().map(|h| h as usize).collect(),
        None => vec![64, 64],
    };
    let delta = options.number("huber_delta", "a positive number", is_positive)?;
    let regression_loss = match options.choice("loss_fn", &[("MSE", false), ("HUBER", true)])? {
        Some(true) => Loss::Huber { delta: delta.unwrap_or(1.0) },
        _ if delta.is_some() => return Err(Error::invalid("option huber_delta needs loss_fn = 'HUBER'")),
        _ => Loss::MeanSquaredError,
    };
    Ok(NetworkSettings {
        hidden,
        activation: options.choice("activation_fn", &activations)?.unwrap_or(Activation::Relu),
        dropout: options
            .number("dropout", "a number from 0 up to, not including, 1", |x| (0.0..1.0).contains(&x))?
            .unwrap_or(0.0),
        layer_norm: options.boolean("layer_norm")?.unwrap_or(false),
        regression_loss,
        optimizer,
        schedule: schedule(options, rate)?,
        batch_size: options.integer("batch_size", 1, 1 << 24)?.unwrap_or(32) as usize,
        epochs: options.integer("max_iterations", 1, 1_000_000)?.map(|n| n as usize),
        l1: options.number("l1_reg", "a number of at least 0", is_not_negative)?.unwrap_or(0.0),
        l2: options.number("l2_reg", "a number of at least 0", is_not_negative)?.unwrap_or(0.0),
        clip_norm: options.number("clip_norm", "a positive number", is_positive)?,
        early_stop: options.boolean("early_stop")?.unwrap_or(true),
        min_rel_progress: options.number("min_rel_progress", "a number of at least 0", is_not_negative)?,
    })
}

/// `lr_schedule = 'COSINE'` or `STRUCT('STEP' AS kind, 2 AS every, 0.5 AS factor, 100 AS warmup_steps)`.
fn schedule(options: &Options, base: f64) -> Result<Schedule> {
    let Some(option) = options.find("lr_schedule") else { return Ok(Schedule::constant(base)) };
    let (kind, fields) = match &option.value.value {
        OptionValue::Text(kind) => (kind.as_str(), &[][..]),
        OptionValue::Struct(fields) => match fields.split_first() {
            Some(((_, OptionValue::Text(kind)), rest)) => (kind.as_str(), rest),
            _ => return Err(wrong_schedule(option)),
        },
        _ => return Err(wrong_schedule(option)),
    };
    for (name, _) in fields {
        let known = ["every", "factor", "final_fraction", "warmup_steps"];
        match name {
            Some(name) if known.contains(&name.as_str()) => {}
            Some(name) => {
                let error = wrong_schedule(option);
                return Err(match near(name, known) {
                    Some(near) => error.with_hint(format!("unknown field {name}: did you mean {near}?")),
                    None => error.with_hint(format!("unknown field {name}: fields are {}", known.join(", "))),
                });
            }
            None => return Err(wrong_schedule(option)),
        }
    }
    let field = |name: &str| fields.iter().find(|(n, _)| n.as_deref() == Some(name)).map(|(_, v)| v);
    let number = |name: &str, default: f64| match field(name) {
        None => Ok(default),
        Some(value) => as_number(value).filter(|x| is_not_negative(*x)).ok_or_else(|| wrong_schedule(option)),
    };
    let shape = match kind.to_uppercase().as_str() {
        "CONSTANT" => Shape::Constant,
        "STEP" => Shape::Step { every: number("every", 1.0)?.max(1e-9), factor: number("factor", 0.5)? },
        "EXPONENTIAL" => Shape::Exponential { factor: number("factor", 0.9)? },
        "COSINE" => Shape::Cosine { final_fraction: number("final_fraction", 0.0)? },
        _ => return Err(wrong_schedule(option)),
    };
    let warmup_steps = match field("warmup_steps") {
        None => 0,
        Some(value) => as_integer(value).filter(|i| *i >= 0).ok_or_else(|| wrong_schedule(option))? as u64,
    };
    Ok(Schedule { base, shape, warmup_steps })
}

fn wrong_schedule(option: &WrittenOption) -> Error {
    wrong(
        option,
        "'CONSTANT', 'STEP', 'EXPONENTIAL' or 'COSINE', or a STRUCT such as \
         STRUCT('STEP' AS kind, 2 AS every, 0.5 AS factor, 100 AS warmup_steps)",
    )
}

/// The split as text, for `model.json`.
mod split_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::SplitMethod;

    pub(super) fn serialize<S: Serializer>(method: &SplitMethod, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&match method {
            SplitMethod::Auto => "AUTO_SPLIT".to_string(),
            SplitMethod::None => "NO_SPLIT".to_string(),
            SplitMethod::Custom { column } => format!("CUSTOM {column}"),
            SplitMethod::Random { eval, test } => format!("RANDOM {eval} {test}"),
            SplitMethod::Sequential { column, eval, test } => format!("SEQ {eval} {test} {column}"),
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SplitMethod, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom(format!("`{text}` is no split"));
        let (method, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let number = |text: &str| text.parse::<f64>().map_err(|_| wrong());
        let fractions = |text: &str| -> Result<(f64, f64), D::Error> {
            let (eval, test) = text.split_once(' ').ok_or_else(wrong)?;
            Ok((number(eval)?, number(test)?))
        };
        match method {
            "AUTO_SPLIT" => Ok(SplitMethod::Auto),
            "NO_SPLIT" => Ok(SplitMethod::None),
            "CUSTOM" => Ok(SplitMethod::Custom { column: rest.to_string() }),
            "RANDOM" => fractions(rest).map(|(eval, test)| SplitMethod::Random { eval, test }),
            "SEQ" => {
                let mut parts = rest.splitn(3, ' ');
                let mut part = || parts.next().ok_or_else(wrong);
                let (eval, test) = (number(part()?)?, number(part()?)?);
                Ok(SplitMethod::Sequential { column: part()?.to_string(), eval, test })
            }
            _ => Err(wrong()),
        }
    }
}
