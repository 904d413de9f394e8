//! The options of CREATE MODEL: which there are, for which model types, and typed reading of their values.

use engine::{Error, Result, near};
use serde::{Deserialize, Serialize};

use super::{ModelSpec, OptionValue, WrittenOption};

/// The kinds of models that can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelType {
    /// Least squares.
    LinearReg,
    /// Binary or multinomial logistic regression.
    LogisticReg,
    /// A feed-forward network over classes.
    DnnClassifier,
    /// A feed-forward network that predicts a number.
    DnnRegressor,
}

impl ModelType {
    /// All of them.
    pub const ALL: [ModelType; 4] =
        [ModelType::LinearReg, ModelType::LogisticReg, ModelType::DnnClassifier, ModelType::DnnRegressor];

    /// As in the option `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            ModelType::LinearReg => "linear_reg",
            ModelType::LogisticReg => "logistic_reg",
            ModelType::DnnClassifier => "dnn_classifier",
            ModelType::DnnRegressor => "dnn_regressor",
        }
    }

    /// Whether it predicts one of some classes.
    pub fn is_classifier(self) -> bool {
        matches!(self, ModelType::LogisticReg | ModelType::DnnClassifier)
    }

    /// Whether it is trained on minibatches.
    pub fn is_network(self) -> bool {
        matches!(self, ModelType::DnnClassifier | ModelType::DnnRegressor)
    }
}

/// Model types of the dialect that this build cannot train.
const MODEL_TYPES_ELSEWHERE: [&str; 9] = [
    "boosted_tree_classifier",
    "boosted_tree_regressor",
    "random_forest_classifier",
    "random_forest_regressor",
    "kmeans",
    "pca",
    "transform_only",
    "text_classifier",
    "matrix_factorization",
];

/// Which model types an option belongs to.
#[derive(Clone, Copy, PartialEq)]
enum For {
    All,
    Linear,
    Network,
    DnnRegressor,
    Classifier,
    /// Belongs to the dialect but not to this build.
    Nobody,
}

impl For {
    fn holds(self, model_type: ModelType) -> bool {
        match self {
            For::All => true,
            For::Linear => !model_type.is_network(),
            For::Network => model_type.is_network(),
            For::DnnRegressor => model_type == ModelType::DnnRegressor,
            For::Classifier => model_type.is_classifier(),
            For::Nobody => false,
        }
    }
}

const OPTIONS: &[(&str, For)] = &[
    ("model_type", For::All),
    ("input_label_cols", For::All),
    ("max_iterations", For::All),
    ("learn_rate", For::All),
    ("l1_reg", For::All),
    ("l2_reg", For::All),
    ("early_stop", For::All),
    ("min_rel_progress", For::All),
    ("data_split_method", For::All),
    ("data_split_eval_fraction", For::All),
    ("data_split_test_fraction", For::All),
    ("data_split_col", For::All),
    ("class_weights", For::Classifier),
    ("auto_class_weights", For::Classifier),
    ("category_encoding_method", For::All),
    ("standardize_features", For::All),
    ("seed", For::All),
    ("num_shards", For::All),
    ("kernel", For::All),
    ("num_workers", For::All),
    ("publish_if", For::All),
    ("optimize_strategy", For::Linear),
    ("learn_rate_strategy", For::Linear),
    ("ls_init_learn_rate", For::Linear),
    ("calculate_p_values", For::Linear),
    ("fit_intercept", For::Linear),
    ("hidden_units", For::Network),
    ("activation_fn", For::Network),
    ("optimizer", For::Network),
    ("batch_size", For::Network),
    ("dropout", For::Network),
    ("lr_schedule", For::Network),
    ("clip_norm", For::Network),
    ("layer_norm", For::Network),
    ("loss_fn", For::DnnRegressor),
    ("huber_delta", For::DnnRegressor),
    ("enable_global_explain", For::Nobody),
    ("warm_start", For::Nobody),
    ("num_trials", For::Nobody),
    ("max_parallel_trials", For::Nobody),
    ("hparam_tuning_algorithm", For::Nobody),
    ("hparam_tuning_objectives", For::Nobody),
    ("kms_key_name", For::Nobody),
    ("model_registry", For::Nobody),
    ("vertex_ai_model_id", For::Nobody),
    ("integrated_gradients_num_steps", For::Nobody),
    ("tf_version", For::Nobody),
    ("num_parallel_tree", For::Nobody),
    ("max_tree_depth", For::Nobody),
    ("min_tree_child_weight", For::Nobody),
    ("min_split_loss", For::Nobody),
    ("subsample", For::Nobody),
    ("colsample_bytree", For::Nobody),
    ("colsample_bylevel", For::Nobody),
    ("colsample_bynode", For::Nobody),
    ("tree_method", For::Nobody),
    ("num_clusters", For::Nobody),
    ("kmeans_init_method", For::Nobody),
    ("distance_type", For::Nobody),
];

/// Names of all options that some model type of this build takes, for completion.
pub(crate) fn option_names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|(_, models)| *models != For::Nobody).map(|(name, _)| *name)
}

/// The name under which an option is known: BigQuery's older name of one stands for it.
fn canonical(name: &str) -> String {
    match name.to_lowercase().as_str() {
        "labels" => "input_label_cols".to_string(),
        name => name.to_string(),
    }
}

/// The options of one model, known to be options of its type, each given once.
pub(super) struct Options<'a> {
    given: &'a [WrittenOption],
}

impl<'a> Options<'a> {
    /// Finds the model type, and refuses options that it does not take.
    pub(super) fn new(spec: &'a ModelSpec) -> Result<(ModelType, Self)> {
        let options = Options { given: &spec.options };
        for (index, option) in options.given.iter().enumerate() {
            let name = &option.name.value;
            let known = OPTIONS.iter().any(|(known, _)| *known == canonical(name));
            if !known {
                return Err(unknown_option(option));
            }
            if options.given[..index].iter().any(|before| canonical(&before.name.value) == canonical(name)) {
                return Err(at(option.name.offset, Error::invalid(format!("option {name} is given twice"))));
            }
        }
        let model_type = options.model_type()?;
        for option in options.given {
            let name = canonical(&option.name.value);
            let models = OPTIONS.iter().find(|(known, _)| *known == name).map_or(For::Nobody, |(_, models)| *models);
            if models == For::Nobody {
                let error = Error::invalid(format!("option {name} is not in this build yet"));
                return Err(at(option.name.offset, error));
            }
            if !models.holds(model_type) {
                let takers: Vec<&str> =
                    ModelType::ALL.into_iter().filter(|m| models.holds(*m)).map(ModelType::name).collect();
                let error = Error::invalid(format!("option {name} is none of {}", model_type.name()))
                    .with_hint(format!("it belongs to {}", takers.join(", ")));
                return Err(at(option.name.offset, error));
            }
        }
        Ok((model_type, options))
    }

    fn model_type(&self) -> Result<ModelType> {
        let names = || ModelType::ALL.map(ModelType::name).join(", ");
        let Some(option) = self.find("model_type") else {
            return Err(Error::invalid("option model_type is missing").with_hint(format!("it is one of {}", names())));
        };
        let OptionValue::Text(text) = &option.value.value else {
            return Err(wrong(option, "the name of a model type"));
        };
        if let Some(found) = ModelType::ALL.into_iter().find(|m| m.name().eq_ignore_ascii_case(text)) {
            return Ok(found);
        }
        if MODEL_TYPES_ELSEWHERE.iter().any(|name| name.eq_ignore_ascii_case(text)) {
            let error = Error::invalid(format!("model type '{text}' is not in this build yet"));
            return Err(at(option.value.offset, error.with_hint(format!("there are {}", names()))));
        }
        let error = Error::invalid(format!("unknown model type '{text}'"));
        let types = ModelType::ALL.map(ModelType::name).into_iter().chain(MODEL_TYPES_ELSEWHERE);
        let hint = match near(text, types) {
            Some(name) => format!("did you mean '{name}'?"),
            None => format!("there are {}", names()),
        };
        Err(at(option.value.offset, error.with_hint(hint)))
    }

    /// The option as written.
    pub(super) fn find(&self, name: &str) -> Option<&'a WrittenOption> {
        self.given.iter().find(|option| canonical(&option.name.value) == name)
    }

    /// TRUE or FALSE.
    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>> {
        self.read(name, "TRUE or FALSE", |value| match value {
            OptionValue::Boolean(b) => Some(*b),
            _ => None,
        })
    }

    /// A number for which `holds`; `what` says which.
    pub(super) fn number(&self, name: &str, what: &str, holds: impl Fn(f64) -> bool) -> Result<Option<f64>> {
        self.read(name, what, |value| as_number(value).filter(|x| holds(*x)))
    }

    /// A whole number between `least` and `most`.
    pub(super) fn integer(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>> {
        self.read(name, &format!("a whole number from {least} to {most}"), |value| {
            as_integer(value).filter(|i| (least..=most).contains(i))
        })
    }

    /// Whole numbers, each between `least` and `most`.
    pub(super) fn integers(&self, name: &str, least: i64, most: i64) -> Result<Option<Vec<i64>>> {
        let fits = |value: &OptionValue| as_integer(value).filter(|i| (least..=most).contains(i));
        self.read(name, &format!("a list of whole numbers from {least} to {most}, such as [64, 64]"), |value| {
            match value {
                OptionValue::List(items) => items.iter().map(fits).collect(),
                _ => None,
            }
        })
    }

    /// Text.
    pub(super) fn text(&self, name: &str, what: &str) -> Result<Option<&'a str>> {
        let Some(option) = self.find(name) else { return Ok(None) };
        match &option.value.value {
            OptionValue::Text(text) => Ok(Some(text)),
            _ => Err(wrong(option, what)),
        }
    }

    /// One of some names.
    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let Some(option) = self.find(name) else { return Ok(None) };
        let what = format!("one of {}", names().join(", "));
        let OptionValue::Text(text) = &option.value.value else { return Err(wrong(option, &what)) };
        match choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => Err(match near(text, names()) {
                Some(near) => wrong(option, &what).with_hint(format!("did you mean '{near}'?")),
                None => wrong(option, &what),
            }),
        }
    }

    fn read<T>(&self, name: &str, what: &str, read: impl FnOnce(&OptionValue) -> Option<T>) -> Result<Option<T>> {
        let Some(option) = self.find(name) else { return Ok(None) };
        read(&option.value.value).map(Some).ok_or_else(|| wrong(option, what))
    }
}

/// Any number.
pub(super) fn as_number(value: &OptionValue) -> Option<f64> {
    match value {
        OptionValue::Integer(i) => Some(*i as f64),
        OptionValue::Float(x) => Some(*x),
        _ => None,
    }
}

/// A whole number, also when written as `1e3`.
pub(super) fn as_integer(value: &OptionValue) -> Option<i64> {
    match value {
        OptionValue::Integer(i) => Some(*i),
        OptionValue::Float(x) if x.fract() == 0.0 && x.abs() < 9e15 => Some(*x as i64),
        _ => None,
    }
}

/// `option dropout: expected ..., got 1.5`, at the value.
pub(super) fn wrong(option: &WrittenOption, expected: &str) -> Error {
    let name = option.name.value.to_lowercase();
    at(option.value.offset, Error::invalid(format!("option {name}: expected {expected}, got {}", option.value.value)))
}

/// Adds the offset when there is one.
pub(super) fn at(offset: Option<usize>, error: Error) -> Error {
    match offset {
        Some(offset) => error.at_offset(offset),
        None => error,
    }
}

fn unknown_option(option: &WrittenOption) -> Error {
    let name = &option.name.value;
    let error = at(option.name.offset, Error::invalid(format!("unknown option {name}")));
    // An option of the dialect that this build does not have is told apart once it is spelled rightly.
    match near(name, OPTIONS.iter().map(|(name, _)| *name)) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error.with_hint(format!("options are {}", option_names().collect::<Vec<_>>().join(", "))),
    }
}
