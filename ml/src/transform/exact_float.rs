//! Numbers of a frozen transform as JSON strings: `"0.1"`, shortest digits that give the same bits back.
//!
//! Not JSON numbers, because a JSON reader may be off by one bit in the last place (serde_json is, by default), and cannot
//! hold infinities.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Writes one number.
pub(crate) fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{x:?}"))
}

/// Reads one number.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom(format!("`{text}` is no number")))
}

/// A number inside a list or an option.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Exact(#[serde(with = "self")] pub(crate) f64);

/// Lists of numbers.
pub(crate) mod list {
    use super::Exact;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a list.
    pub(crate) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|x| Exact(*x)))
    }

    /// Reads a list.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Exact>::deserialize(deserializer)?.into_iter().map(|x| x.0).collect())
    }
}

/// Numbers that may be absent.
pub(crate) mod option {
    use super::Exact;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the number or null.
    pub(crate) fn serialize<S: Serializer>(x: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        x.map(Exact).serialize(serializer)
    }

    /// Reads the number or null.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Exact>::deserialize(deserializer)?.map(|x| x.0))
    }
}
