//! TRANSFORM as a value: which columns a model sees, and how they are prepared.

/// The columns of a TRANSFORM clause, column by column, as a `ColumnTransformer` or a `Pipeline` of feature stages says it
/// elsewhere. Statistics (means, categories, quantiles) are taken from the training rows, frozen into the model, and
/// applied wherever it predicts.
///
/// A column that nothing is said about is not seen by the model; the label must be kept.
///
/// ```
/// use gristmill::Transform;
///
/// let transform = Transform::new()
///     .keep(["late"])
///     .one_hot_encoder(["carrier", "dest"])
///     .standard_scaler(["distance"])
///     .expression("arr_hour - dep_hour", "hours");
/// assert!(transform.to_string().starts_with("\"late\", ML.ONE_HOT_ENCODER(\"carrier\") OVER () AS \"carrier\""));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transform {
    items: Vec<String>,
}

impl Transform {
    /// No columns yet.
    pub fn new() -> Self {
        Transform::default()
    }

    /// Columns as they are: the label, flags, arrays of numbers.
    #[must_use]
    pub fn keep<S: AsRef<str>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.items.extend(columns.into_iter().map(|column| quoted(column.as_ref())));
        self
    }

    /// (x - mean) / standard deviation.
    #[must_use]
    pub fn standard_scaler<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>) -> Self {
        self.fitted("ML.STANDARD_SCALER", columns, "")
    }

    /// From the least to the greatest value onto 0 to 1.
    #[must_use]
    pub fn min_max_scaler<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>) -> Self {
        self.fitted("ML.MIN_MAX_SCALER", columns, "")
    }

    /// x / max |x|: onto -1 to 1, 0 stays 0.
    #[must_use]
    pub fn max_abs_scaler<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>) -> Self {
        self.fitted("ML.MAX_ABS_SCALER", columns, "")
    }

    /// (x - median) / range between the quartiles: outliers do not count.
    #[must_use]
    pub fn robust_scaler<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>) -> Self {
        self.fitted("ML.ROBUST_SCALER", columns, "")
    }

    /// NULL becomes the `mean`, the `median` or the `most_frequent` value.
    #[must_use]
    pub fn imputer<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>, strategy: &str) -> Self {
        self.fitted("ML.IMPUTER", columns, &format!(", {}", literal(strategy)))
    }

    /// One input for each category.
    #[must_use]
    pub fn one_hot_encoder<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>) -> Self {
        self.fitted("ML.ONE_HOT_ENCODER", columns, "")
    }

    /// One input for each category, of columns that hold arrays of them.
    #[must_use]
    pub fn multi_hot_encoder<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>) -> Self {
        self.fitted("ML.MULTI_HOT_ENCODER", columns, "")
    }

    /// The category's number.
    #[must_use]
    pub fn label_encoder<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>) -> Self {
        self.fitted("ML.LABEL_ENCODER", columns, "")
    }

    /// One of `buckets` buckets that hold equally many training rows.
    #[must_use]
    pub fn quantile_bucketize<S: AsRef<str>>(self, columns: impl IntoIterator<Item = S>, buckets: usize) -> Self {
        self.fitted("ML.QUANTILE_BUCKETIZE", columns, &format!(", {buckets}"))
    }

    /// Any SQL expression under a name: scalar functions, other `ML.*` functions, several columns.
    #[must_use]
    pub fn expression(mut self, sql: &str, name: &str) -> Self {
        self.items.push(format!("{sql} AS {}", quoted(name)));
        self
    }

    fn fitted<S: AsRef<str>>(mut self, function: &str, columns: impl IntoIterator<Item = S>, arguments: &str) -> Self {
        self.items.extend(columns.into_iter().map(|column| {
            let column = quoted(column.as_ref());
            format!("{function}({column}{arguments}) OVER () AS {column}")
        }));
        self
    }
}

/// The select list, as TRANSFORM has it.
impl std::fmt::Display for Transform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.items.join(", "))
    }
}

/// What [`crate::ModelSpec::transform`] takes.
impl From<Transform> for String {
    fn from(transform: Transform) -> String {
        transform.to_string()
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_select_list() {
        let transform = Transform::new()
            .keep(["y"])
            .imputer(["a\"b"], "it's")
            .quantile_bucketize([String::from("x")], 4)
            .expression("x * 2", "twice");
        assert_eq!(
            String::from(transform),
            "\"y\", ML.IMPUTER(\"a\"\"b\", 'it''s') OVER () AS \"a\"\"b\", \
             ML.QUANTILE_BUCKETIZE(\"x\", 4) OVER () AS \"x\", x * 2 AS \"twice\""
        );
    }
}
