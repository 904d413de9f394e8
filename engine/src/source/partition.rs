//! Hive partitions: directories named `column=value` between a table's directory and its files.

use arrow::datatypes::DataType;
use storage::{FoundFile, Location};

use super::split_glob;
use crate::error::{Error, Result};
use crate::sink::partition::NULL_DIRECTORY;

/// The partition columns of a table and their types: BIGINT when every value is a whole number, DATE when every value is
/// a day, else VARCHAR. None when the files lie in no such directories.
///
/// # Errors
/// Files of the same table with different partition columns.
pub(super) fn infer(location: &Location, files: &[FoundFile]) -> Result<Vec<(String, DataType)>> {
    let mut columns: Option<Vec<(String, Option<DataType>)>> = None;
    for file in files {
        let pairs = pairs(location, &file.location);
        match &mut columns {
            None => columns = Some(pairs.iter().map(|(name, value)| (name.clone(), kind(value))).collect()),
            Some(known) if names_agree(known, &pairs) => {
                for ((_, seen), (_, value)) in known.iter_mut().zip(&pairs) {
                    *seen = match (seen.take(), kind(value)) {
                        (Some(before), Some(now)) if before != now => Some(DataType::Utf8),
                        (before, now) => before.or(now),
                    };
                }
            }
            Some(known) => {
                let list = |names: &[&str]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
                let before: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
                let here: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
                return Err(Error::invalid(format!(
                    "{}: partition columns are {}, those of other files of {location} are {}",
                    file.location,
                    list(&here),
                    list(&before),
                )));
            }
        }
    }
    let columns = columns.unwrap_or_default().into_iter();
    Ok(columns.map(|(name, kind)| (name, kind.unwrap_or(DataType::Utf8))).collect())
}

/// Partition columns of which some value stands for NULL.
pub(super) fn with_nulls(files: &[&FoundFile]) -> Vec<String> {
    let mut columns = Vec::new();
    for file in files {
        for directory in file.location.path().as_ref().split('/') {
            if let Some((name, NULL_DIRECTORY)) = directory.split_once('=')
                && !columns.iter().any(|known| known == name)
            {
                columns.push(name.to_string());
            }
        }
    }
    columns
}

fn names_agree(known: &[(String, Option<DataType>)], pairs: &[(String, String)]) -> bool {
    known.len() == pairs.len() && known.iter().zip(pairs).all(|((known, _), (name, _))| known == name)
}

/// `name=value` directories that begin right below the table's own: `base`, or for a glob the directory before it.
pub(super) fn pairs(base: &Location, file: &Location) -> Vec<(String, String)> {
    let base = if base.is_glob() { split_glob(base).0 } else { base.clone() };
    let below = file.path().as_ref().strip_prefix(base.path().as_ref()).unwrap_or_default().trim_start_matches('/');
    let directories = below.rsplit_once('/').map_or("", |(directories, _)| directories);
    directories
        .split('/')
        .map_while(|directory| directory.split_once('='))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// `None` for a NULL, which may be of any type.
fn kind(value: &str) -> Option<DataType> {
    if value == NULL_DIRECTORY {
        None
    } else if value.parse::<i64>().is_ok_and(|number| number.to_string() == value) {
        Some(DataType::Int64)
    } else if is_date(value) {
        Some(DataType::Date32)
    } else {
        Some(DataType::Utf8)
    }
}

fn is_date(value: &str) -> bool {
    let shape = value.len() == 10
        && value.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shape && datafusion::common::ScalarValue::try_from_string(value.to_string(), &DataType::Date32).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_values() {
        for (value, expected) in [
            ("7", Some(DataType::Int64)),
            ("-7", Some(DataType::Int64)),
            // Leading zeros are part of the name: as a number they would be lost.
            ("007", Some(DataType::Utf8)),
            ("2013-01-31", Some(DataType::Date32)),
            ("2013-02-31", Some(DataType::Utf8)),
            ("EWR", Some(DataType::Utf8)),
            ("__HIVE_DEFAULT_PARTITION__", None),
        ] {
            assert_eq!(kind(value), expected, "{value}");
        }
    }

    #[test]
    fn directories_are_pairs() {
        let base = Location::parse("/data/t/").unwrap();
        for (path, expected) in [
            ("/data/t/a.parquet", vec![]),
            ("/data/t/y=2013/m=1/a.parquet", vec![("y", "2013"), ("m", "1")]),
            ("/data/t/x/m=1/a.parquet", vec![]),
            ("/data/t/m=1/x/a.parquet", vec![("m", "1")]),
        ] {
            let pairs = pairs(&base, &Location::parse(path).unwrap());
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(pairs, expected, "{path}");
        }
    }
}
