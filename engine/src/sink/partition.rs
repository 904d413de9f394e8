//! Rows by the values of partition columns: which directory each row belongs in, named as Hive names them.

use std::collections::HashMap;
use std::fmt::Write;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::FormatOptions;
use datafusion::error::{DataFusionError, Result};
use std::sync::Arc;

use crate::error::Error;

/// The directory of rows whose value is NULL, as Hive and Spark name it.
pub(crate) const NULL_DIRECTORY: &str = "__HIVE_DEFAULT_PARTITION__";

/// Bytes that the name of a directory can have, on every file system and in what copies buckets to one.
const NAME_BYTES_MAX: usize = 255;
/// Letters of a value that is too long, in the message about it.
const SHOWN_LETTERS: usize = 40;

/// Splits batches by the values of some columns.
pub(super) struct Partitioner {
    names: Vec<String>,
    columns: Vec<usize>,
    rest: Vec<usize>,
    converter: RowConverter,
    /// Values seen so far and their directories.
    directories: HashMap<OwnedRow, Arc<str>>,
}

impl Partitioner {
    /// For rows of `schema`; `names` are columns of it.
    pub(super) fn new(schema: &SchemaRef, names: &[String]) -> Result<Self> {
        let columns = names.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let rest: Vec<usize> = (0..schema.fields().len()).filter(|index| !columns.contains(index)).collect();
        let fields = columns.iter().map(|index| SortField::new(schema.field(*index).data_type().clone())).collect();
        Ok(Partitioner {
            names: names.to_vec(),
            columns,
            rest,
            converter: RowConverter::new(fields)?,
            directories: HashMap::new(),
        })
    }

    /// The batch's rows by directory, in order of first appearance, without the partition columns.
    pub(super) fn split(&mut self, batch: &RecordBatch) -> Result<Vec<(Arc<str>, RecordBatch)>> {
        let keys: Vec<ArrayRef> = self.columns.iter().map(|index| Arc::clone(batch.column(*index))).collect();
        let rows = self.converter.convert_columns(&keys)?;
        let mut groups: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        for index in 0..rows.num_rows() {
            let place = *places.entry(rows.row(index).data()).or_insert_with(|| {
                groups.push((index, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(u32::try_from(index).expect("a batch has fewer than 2^32 rows"));
        }
        let rest = batch.project(&self.rest)?;
        let whole = groups.len() == 1;
        let mut split = Vec::with_capacity(groups.len());
        for (first, indices) in groups {
            let directory = match self.directories.get(&rows.row(first).owned()) {
                Some(directory) => Arc::clone(directory),
                None => {
                    let directory: Arc<str> = directory(&self.names, &keys, first)?.into();
                    self.directories.insert(rows.row(first).owned(), Arc::clone(&directory));
                    directory
                }
            };
            let part = if whole { rest.clone() } else { take_record_batch(&rest, &UInt32Array::from(indices))? };
            split.push((directory, part));
        }
        Ok(split)
    }
}

/// `year=2013/origin=EWR` from one row's values.
fn directory(names: &[String], keys: &[ArrayRef], row: usize) -> Result<String> {
    let mut path = String::new();
    for (name, values) in names.iter().zip(keys) {
        let separator = if path.is_empty() { "" } else { "/" };
        let text = text(values, row)?;
        let value = text.as_deref().map_or_else(|| NULL_DIRECTORY.to_string(), escaped);
        let directory = format!("{}={value}", escaped(name));
        if directory.len() > NAME_BYTES_MAX {
            return Err(too_long(name, text.as_deref().unwrap_or_default(), directory.len()));
        }
        // Writing to a String cannot fail.
        let _ = write!(path, "{separator}{directory}");
    }
    Ok(path)
}

fn too_long(column: &str, value: &str, bytes: usize) -> DataFusionError {
    let begin: String = value.chars().take(SHOWN_LETTERS).collect();
    DataFusionError::External(Box::new(Error::invalid(format!(
        "PARTITIONED BY: column `{column}` has the value '{begin}...' of {} letters, whose directory would have a name of \
         {bytes} bytes; {NAME_BYTES_MAX} are possible",
        value.chars().count()
    ))))
}

/// The directory of no rows at all: it makes the partition columns known.
pub(super) fn null_directory(names: &[String]) -> String {
    let directories: Vec<String> = names.iter().map(|name| format!("{}={NULL_DIRECTORY}", escaped(name))).collect();
    directories.join("/")
}

fn text(values: &ArrayRef, row: usize) -> Result<Option<String>> {
    let one = values.slice(row, 1);
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    let cast = cast_with_options(&one, &DataType::Utf8, &options)?;
    let texts = cast.as_any().downcast_ref::<StringArray>().expect("a cast to Utf8 gives a StringArray");
    Ok((!texts.is_null(0)).then(|| texts.value(0).to_string()))
}

/// Characters that would not survive as part of a directory's name, as `%XX`. An empty text is a NULL's like.
fn escaped(value: &str) -> String {
    if value.is_empty() {
        return NULL_DIRECTORY.to_string();
    }
    let mut name = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_control() || "\"#%'*/:=?\\{}[]^".contains(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(name, "%{byte:02X}");
            }
        } else {
            name.push(c);
        }
    }
    name
}

/// The schema without the partition columns.
pub(crate) fn written_schema(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().filter(|field| !names.contains(field.name())).cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The schema as a reader of the directories finds it: partition columns come last.
pub(crate) fn read_schema(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    let mut fields: Vec<_> = written_schema(schema, names).fields().iter().cloned().collect();
    fields.extend(names.iter().filter_map(|name| schema.field_with_name(name).ok()).cloned().map(Arc::new));
    Arc::new(Schema::new(fields))
}

/// The text that a directory's name stands for.
pub(crate) fn unescaped(text: &str) -> String {
    percent_decoded(text).unwrap_or_else(|| text.to_string())
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' && after.len() >= 2 {
            let code = std::str::from_utf8(&after[..2]).ok()?;
            bytes.push(u8::from_str_radix(code, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array};
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn rows_go_to_the_directories_of_their_values() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("m", DataType::Int32, true),
            Field::new("x", DataType::Int64, false),
            Field::new("o", DataType::Utf8, true),
        ]));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(Int32Array::from(vec![Some(1), Some(2), None, Some(1)])),
                Arc::new(Int64Array::from(vec![10, 20, 30, 40])),
                Arc::new(StringArray::from(vec![Some("a/b"), Some("é"), None, Some("a/b")])),
            ],
        )
        .unwrap();
        let names = ["o".to_string(), "m".to_string()];
        let mut partitioner = Partitioner::new(&schema, &names).unwrap();
        let split = partitioner.split(&batch).unwrap();
        let got: Vec<(String, Vec<i64>)> = split
            .iter()
            .map(|(directory, part)| {
                let column = part.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                (directory.to_string(), column.values().to_vec())
            })
            .collect();
        let expected = vec![
            ("o=a%2Fb/m=1".to_string(), vec![10, 40]),
            ("o=é/m=2".to_string(), vec![20]),
            (format!("o={NULL_DIRECTORY}/m={NULL_DIRECTORY}"), vec![30]),
        ];
        assert_eq!(got, expected);
        assert_eq!(written_schema(&schema, &names), split[0].1.schema());
    }
}
