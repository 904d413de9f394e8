//! How the parts of a split that JSON does not know are written for other processes.

/// A value of any type, as the one value of an Arrow stream.
pub(super) mod value {
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use arrow::ipc::reader::StreamReader;
    use arrow::ipc::writer::StreamWriter;
    use datafusion::common::ScalarValue;
    use datafusion::error::Result;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Option<ScalarValue>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(to_bytes).transpose().map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ScalarValue>, D::Error> {
        let bytes = Option::<Vec<u8>>::deserialize(deserializer)?;
        bytes.as_deref().map(from_bytes).transpose().map_err(D::Error::custom)
    }

    fn to_bytes(value: &ScalarValue) -> datafusion::error::Result<Vec<u8>> {
        let batch = RecordBatch::try_from_iter_with_nullable([("value", value.to_array()?, true)])?;
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        writer.write(&batch)?;
        Ok(writer.into_inner()?)
    }

    fn from_bytes(bytes: &[u8]) -> datafusion::error::Result<ScalarValue> {
        let batch = StreamReader::try_new(bytes, None)?.next().transpose()?;
        let batch = batch.unwrap_or_else(|| RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty())));
        match batch.columns() {
            [values] if values.len() == 1 => ScalarValue::try_from_array(values, 0),
            _ => datafusion::common::exec_err!("a threshold is one value"),
        }
    }
}
