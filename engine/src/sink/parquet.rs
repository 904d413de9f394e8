//! Options of Parquet files, looked at before anything is written. Of some values the writer makes a panic, or goes on for
//! ever (parquet 59): those are refused with the option's name, and so are columns that the rows do not have.

use arrow::datatypes::Schema;
use datafusion::common::config::{ParquetOptions, TableParquetOptions};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Type as Physical;

use crate::error::{Error, Result, near};

fn refused(key: &str, reason: &str) -> Error {
    Error::invalid(format!("OPTIONS of PARQUET: {key}: {reason}"))
}

/// Finds values that no rows could be written with.
///
/// # Errors
/// The option, and what it takes.
pub(super) fn check(options: &TableParquetOptions) -> Result<()> {
    let global = &options.global;
    for (key, value) in counts(global) {
        if value == Some(0) {
            return Err(refused(key, "expected a number above 0, got 0"));
        }
    }
    let probability = |key: &str, value: Option<f64>| match value {
        Some(value) if !(value > 0.0 && value < 1.0) => {
            Err(refused(key, &format!("expected a number between 0 and 1, got {value}")))
        }
        _ => Ok(()),
    };
    probability("bloom_filter_fpp", global.bloom_filter_fpp)?;
    encoding("encoding", global.encoding.as_deref())?;
    let mut columns: Vec<_> = options.column_specific_options.iter().collect();
    columns.sort_by_key(|(column, _)| *column);
    for (column, own) in columns {
        probability(&format!("bloom_filter_fpp::{column}"), own.bloom_filter_fpp)?;
        encoding(&format!("encoding::{column}"), own.encoding.as_deref())?;
    }
    Ok(())
}

fn counts(global: &ParquetOptions) -> [(&'static str, Option<usize>); 6] {
    [
        ("max_row_group_size", Some(global.max_row_group_size)),
        ("write_batch_size", Some(global.write_batch_size)),
        ("data_pagesize_limit", Some(global.data_pagesize_limit)),
        ("data_page_row_count_limit", Some(global.data_page_row_count_limit)),
        ("column_index_truncate_length", global.column_index_truncate_length),
        ("statistics_truncate_length", global.statistics_truncate_length),
    ]
}

/// Encodings that a writer can be told; dictionaries are an option of their own.
const ENCODINGS: [&str; 6] =
    ["plain", "rle", "delta_binary_packed", "delta_length_byte_array", "delta_byte_array", "byte_stream_split"];

fn encoding(key: &str, name: Option<&str>) -> Result<()> {
    match name.map(str::to_lowercase) {
        Some(name) if !ENCODINGS.contains(&name.as_str()) => {
            Err(refused(key, &format!("expected {}, got `{name}`", ENCODINGS.join(", "))))
        }
        _ => Ok(()),
    }
}

/// Whether the encoding holds values of this kind.
fn holds(encoding: &str, kind: Physical) -> bool {
    match encoding {
        "rle" => kind == Physical::BOOLEAN,
        "delta_binary_packed" => matches!(kind, Physical::INT32 | Physical::INT64),
        "delta_length_byte_array" => kind == Physical::BYTE_ARRAY,
        "delta_byte_array" => matches!(kind, Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY),
        "byte_stream_split" => !matches!(kind, Physical::BOOLEAN | Physical::BYTE_ARRAY | Physical::INT96),
        _ => true,
    }
}

/// Finds options that do not fit the columns.
///
/// # Errors
/// A column that the rows do not have; an encoding for values of another kind.
pub(super) fn accepts(options: &TableParquetOptions, schema: &Schema) -> Result<()> {
    let is_told = options.global.encoding.is_some() || !options.column_specific_options.is_empty();
    // A schema that cannot be converted is the writer's own to refuse.
    let Some(Ok(converted)) = is_told.then(|| ArrowSchemaConverter::new().convert(schema)) else { return Ok(()) };
    let columns: Vec<(String, Physical)> =
        converted.columns().iter().map(|column| (column.path().string(), column.physical_type())).collect();
    let mut own: Vec<_> = options.column_specific_options.iter().collect();
    own.sort_by_key(|(column, _)| *column);
    for (column, _) in &own {
        if !columns.iter().any(|(known, _)| known == *column) {
            let error = Error::invalid(format!("OPTIONS of PARQUET: the rows have no column `{column}`"));
            return Err(match near(column, columns.iter().map(|(name, _)| name.as_str())) {
                Some(known) => error.with_hint(format!("did you mean `{known}`?")),
                None => error,
            });
        }
    }
    for (name, kind) in &columns {
        let special = options.column_specific_options.get(name).and_then(|own| own.encoding.as_deref());
        let key = special.map_or_else(|| "encoding".to_string(), |_| format!("encoding::{name}"));
        let Some(encoding) = special.or(options.global.encoding.as_deref()).map(str::to_lowercase) else { continue };
        if !holds(&encoding, *kind) {
            return Err(refused(&key, &format!("`{encoding}` does not hold the values of column `{name}`"))
                .with_hint(format!("OPTIONS ('format.encoding::{name}' 'plain')")));
        }
    }
    Ok(())
}
