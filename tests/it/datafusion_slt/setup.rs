//! Tables and functions that some files expect to find, because no SQL of DataFusion's makes them.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, DictionaryArray, Float64Array, Int32Array, LargeBinaryArray, LargeStringArray,
    RecordBatch, StringArray, StructArray, TimestampNanosecondArray, UInt32Array, UnionArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema, TimeUnit, UnionFields};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udf,
};
use datafusion::prelude::{AvroReadOptions, CsvReadOptions, SessionContext};
use engine::Session;

use super::place::Place;

/// Files that need what cannot be made here, each with what it is.
pub(super) const IMPOSSIBLE: [(&str, &str); 3] = [
    ("information_schema_table_types.slt", "needs a temporary table, which only a program can register"),
    ("range_partitioning.slt", "needs tables partitioned by range, which only a program can register"),
    ("cast_extension_type_metadata.slt", "needs a planner of types, which only a program can register"),
];

/// Makes what the file expects.
pub(super) async fn prepare(file: &str, session: &Session, place: &Place) {
    let context = session.context();
    match file {
        "cte.slt" => strict_schema(context),
        "information_schema_columns.slt" => table_with_many_types(context),
        "map.slt" => table_with_map(context),
        "avro.slt" => avro(context, place).await,
        "joins.slt" => {
            context.register_udf(example());
            partitioned(context, place).await;
            table_with_many_types(context);
        }
        "metadata.slt" | "arrow_field.slt" => tables_with_metadata(context),
        "union_function.slt" => union(context),
        "aggregate.slt" => nullable_union(context),
        "dictionary_struct.slt" => dictionary_struct(context),
        "async_udf.slt" => context.register_udf(AsyncScalarUDF::new(Arc::new(AsyncAbs::new())).into_scalar_udf()),
        _ => {}
    }
}

fn batch(columns: Vec<(Field, ArrayRef)>, metadata: &[(&str, &str)]) -> RecordBatch {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields).with_metadata(of_pairs(metadata))), arrays).unwrap()
}

fn of_pairs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn strict_schema(context: &SessionContext) {
    let schema = MemorySchemaProvider::new();
    let orders =
        batch(vec![(Field::new("order_id", DataType::Int32, false), Arc::new(Int32Array::from(vec![1, 2])))], &[]);
    let table = MemTable::try_new(orders.schema(), vec![vec![orders]]).unwrap();
    schema.register_table("orders".to_string(), Arc::new(table)).unwrap();
    context.catalog("datafusion").unwrap().register_schema("strict_schema", Arc::new(schema)).unwrap();
}

fn table_with_many_types(context: &SessionContext) {
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("my_schema", Arc::new(MemorySchemaProvider::new())).unwrap();
    context.register_catalog("my_catalog", Arc::new(catalog));
    let bytes = b"foo" as &[u8];
    let rows = batch(
        vec![
            (Field::new("int32_col", DataType::Int32, false), Arc::new(Int32Array::from(vec![1]))),
            (Field::new("float64_col", DataType::Float64, true), Arc::new(Float64Array::from(vec![1.0]))),
            (Field::new("utf8_col", DataType::Utf8, true), Arc::new(StringArray::from(vec!["foo"]))),
            (Field::new("large_utf8_col", DataType::LargeUtf8, false), Arc::new(LargeStringArray::from(vec!["bar"]))),
            (Field::new("binary_col", DataType::Binary, false), Arc::new(BinaryArray::from(vec![bytes]))),
            (
                Field::new("large_binary_col", DataType::LargeBinary, false),
                Arc::new(LargeBinaryArray::from(vec![bytes])),
            ),
            (nanoseconds("timestamp_nanos", false), Arc::new(TimestampNanosecondArray::from(vec![123]))),
        ],
        &[],
    );
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
    context.register_table("my_catalog.my_schema.table_with_many_types", Arc::new(table)).unwrap();
}

fn nanoseconds(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Nanosecond, None), nullable)
}

fn table_with_map(context: &SessionContext) {
    let entry = vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Int64, true)];
    let entries = Field::new("entries", DataType::Struct(entry.into()), false);
    let schema = Schema::new(vec![
        Field::new("int_field", DataType::Int64, true),
        Field::new("map_field", DataType::Map(Arc::new(entries), false), true),
    ]);
    let table = MemTable::try_new(Arc::new(schema), vec![vec![]]).unwrap();
    context.register_table("table_with_map", Arc::new(table)).unwrap();
}

/// The same file twice; it is there only with a checkout of DataFusion.
async fn avro(context: &SessionContext, place: &Place) {
    let source = place.root().join("testing/data/avro/alltypes_plain.avro");
    if !source.exists() {
        return;
    }
    let directory = place.scratch("avro.slt").join("avro");
    fs::create_dir_all(&directory).unwrap();
    for name in ["alltypes_plain1.avro", "alltypes_plain2.avro"] {
        fs::copy(&source, directory.join(name)).unwrap();
    }
    let directory = format!("{}/", directory.display());
    context.register_avro("alltypes_plain_multi_files", directory, AvroReadOptions::default()).await.unwrap();
}

async fn partitioned(context: &SessionContext, place: &Place) {
    let directory = place.scratch("joins.slt").join("partitioned");
    fs::create_dir_all(&directory).unwrap();
    let rows: String = (0..=10).map(|row| format!("0,{row},{}\n", row % 2 == 0)).collect();
    fs::write(directory.join("partition-0.csv"), rows).unwrap();
    let schema = Schema::new(vec![
        Field::new("c1", DataType::UInt32, false),
        Field::new("c2", DataType::UInt64, false),
        Field::new("c3", DataType::Boolean, false),
    ]);
    let options = CsvReadOptions::new().schema(&schema);
    let directory = format!("{}/", directory.display());
    context.register_csv("test_partition_table", directory, options).await.unwrap();
}

/// `example(a, b)` adds.
fn example() -> ScalarUDF {
    let add = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let (left, right) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_primitive::<Float64Type>());
        let sum: Float64Array = left.iter().zip(right).map(|(left, right)| Some(left? + right?)).collect();
        Ok(ColumnarValue::Array(Arc::new(sum)))
    };
    let arguments = vec![DataType::Float64, DataType::Float64];
    create_udf("example", arguments, DataType::Float64, Volatility::Immutable, Arc::new(add))
}

fn tables_with_metadata(context: &SessionContext) {
    let of = |field: Field, text: &str| field.with_metadata(of_pairs(&[("metadata_key", text)]));
    let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    let times = TimestampNanosecondArray::from(vec![1_599_572_549_190_855_123; 3]);
    let rows = batch(
        vec![
            (
                of(Field::new("id", DataType::Int32, true), "the id field"),
                Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
            ),
            (
                of(text("name", true), "the name field"),
                Arc::new(StringArray::from(vec![None, Some("bar"), Some("baz")])),
            ),
            (
                of(text("l_name", true), "the l_name field"),
                Arc::new(StringArray::from(vec![None, Some("l_bar"), Some("l_baz")])),
            ),
            (of(nanoseconds("ts", false), "ts non-nullable field"), Arc::new(times)),
            (
                of(text("nonnull_name", false), "the nonnull_name field"),
                Arc::new(StringArray::from(vec!["no_foo", "no_bar", "no_baz"])),
            ),
        ],
        &[("metadata_key", "the entire schema")],
    );
    context.register_batch("table_with_metadata", rows).unwrap();
    let numbers = |name: &str, values: Vec<i32>, text: &str| {
        let column: ArrayRef = Arc::new(Int32Array::from(values));
        batch(vec![(Field::new(name, DataType::Int32, false), column)], &[("metadata_key", text)])
    };
    context.register_batch("larger_table", numbers("a", (1..=10).collect(), "left")).unwrap();
    context.register_batch("smaller_table", numbers("b", vec![1], "right")).unwrap();
}

fn union(context: &SessionContext) {
    let fields = vec![Field::new("int", DataType::Int32, false), Field::new("string", DataType::Utf8, false)];
    let texts = StringArray::from(vec!["foo", "bar", "baz", "qux", "bar", "quux"]);
    let union = UnionArray::try_new(
        UnionFields::try_new(vec![3, 1], fields).unwrap(),
        ScalarBuffer::from(vec![3_i8, 1, 3, 3, 1, 3]),
        None,
        vec![Arc::new(Int32Array::from(vec![1, 2, 3, 1, 5, 3])), Arc::new(texts)],
    )
    .unwrap();
    let field = Field::new("union_column", arrow::array::Array::data_type(&union).clone(), false);
    context.register_batch("union_table", batch(vec![(field, Arc::new(union))], &[])).unwrap();
}

fn nullable_union(context: &SessionContext) {
    let fields = vec![Field::new("i", DataType::Int32, true), Field::new("s", DataType::Utf8, true)];
    let union = UnionArray::try_new(
        UnionFields::try_new(vec![0, 1], fields).unwrap(),
        ScalarBuffer::from(vec![0_i8, 0, 1, 1, 0, 0, 1, 0]),
        Some(ScalarBuffer::from(vec![0, 1, 0, 1, 2, 3, 2, 4])),
        vec![
            Arc::new(Int32Array::from(vec![Some(1), Some(1), None, None, Some(5)])),
            Arc::new(StringArray::from(vec![Some("x"), Some("y"), None])),
        ],
    )
    .unwrap();
    let groups: ArrayRef = Arc::new(Int32Array::from(vec![1, 1, 1, 2, 2, 3, 3, 4]));
    let field = Field::new("u", arrow::array::Array::data_type(&union).clone(), false);
    let rows = batch(vec![(Field::new("g", DataType::Int32, false), groups), (field, Arc::new(union))], &[]);
    context.register_batch("approx_distinct_union_test", rows).unwrap();
}

fn dictionary_struct(context: &SessionContext) {
    let fields: Fields =
        vec![Field::new("name", DataType::Utf8, false), Field::new("id", DataType::Int32, false)].into();
    let people = |names: Vec<&str>, ids: Vec<i32>| -> ArrayRef {
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(names)), Arc::new(Int32Array::from(ids))];
        Arc::new(StructArray::try_new(fields.clone(), columns, None).unwrap())
    };
    let keyed =
        |keys: UInt32Array, values: ArrayRef| -> ArrayRef { Arc::new(DictionaryArray::try_new(keys, values).unwrap()) };
    let of_keys = |name: &str, nullable: bool| {
        let plain = DataType::Struct(fields.clone());
        Field::new(name, DataType::Dictionary(Box::new(DataType::UInt32), Box::new(plain)), nullable)
    };
    let plain = people(vec!["Alice", "Bob", "Carol", "Alice", "Bob"], vec![1, 2, 3, 1, 2]);
    let dictionary =
        keyed(UInt32Array::from(vec![0, 1, 2, 0, 1]), people(vec!["Alice", "Bob", "Carol"], vec![1, 2, 3]));
    let columns = vec![
        (of_keys("dict_struct", false), dictionary),
        (Field::new("plain_struct", DataType::Struct(fields.clone()), false), plain),
    ];
    context.register_batch("dict_struct_table", batch(columns, &[])).unwrap();
    let keys = UInt32Array::from(vec![Some(0), None, Some(1), None]);
    let columns = vec![(of_keys("ds", true), keyed(keys, people(vec!["X", "Y"], vec![10, 20])))];
    context.register_batch("dict_struct_nullable", batch(columns, &[])).unwrap();
}

/// `async_abs(x)` is `abs(x)`, computed by a function that waits.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsyncAbs {
    abs: Arc<ScalarUDF>,
}

impl AsyncAbs {
    fn new() -> Self {
        AsyncAbs { abs: datafusion::functions::math::abs() }
    }
}

impl ScalarUDFImpl for AsyncAbs {
    fn name(&self) -> &str {
        "async_abs"
    }

    fn signature(&self) -> &Signature {
        self.abs.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.abs.return_type(arguments)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        datafusion::common::not_impl_err!("async_abs is computed asynchronously")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for AsyncAbs {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.abs.invoke_with_args(arguments)
    }
}
