//! Decimals in CSV and JSON files are rounded to the digits of their column, as CAST rounds text: the query engine's readers
//! cut them off. So they read one digit more than the column has, and a cast above them rounds; what is cut off behind that
//! digit does not matter to rounding half away from zero.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::listing::{ListingTable, ListingTableConfig};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, TableScan, TableScanBuilder, cast};
use datafusion::optimizer::AnalyzerRule;

/// See the module.
#[derive(Debug)]
pub(super) struct RoundedText;

impl AnalyzerRule for RoundedText {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rounded = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::TableScan(scan) => rounded(scan),
            plan => Ok(Transformed::no(plan)),
        });
        rounded.map(|done| done.data)
    }

    fn name(&self) -> &'static str {
        "rounded_text"
    }
}

fn rounded(scan: TableScan) -> Result<Transformed<LogicalPlan>> {
    let unchanged = |scan| Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    if !scan.source.schema().fields().iter().any(|field| with_one_digit_more(field.data_type()).is_some()) {
        return unchanged(scan);
    }
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<ListingTable>().filter(|table| is_text(table)) else {
        return unchanged(scan);
    };
    // Filters are written for the column's own type; they arrive after this rule.
    if !scan.filters.is_empty() {
        return unchanged(scan);
    }
    let Some(read) = read_finer(table)? else { return unchanged(scan) };
    let TableScan { table_name, projection, fetch, projected_schema, .. } = scan;
    let scan = TableScanBuilder::new(table_name, provider_as_source(read))
        .with_projection(projection)
        .with_fetch(fetch)
        .build()?;
    let columns = scan.projected_schema.iter().zip(projected_schema.fields()).map(|((relation, read), field)| {
        let column = Expr::Column((relation, read).into());
        match read.data_type() == field.data_type() {
            true => column,
            false => cast(column, field.data_type().clone()).alias_qualified(relation.cloned(), field.name()),
        }
    });
    let columns = columns.collect();
    let projection = Projection::try_new(columns, Arc::new(LogicalPlan::TableScan(scan)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

fn is_text(table: &ListingTable) -> bool {
    let format = &table.options().format;
    format.downcast_ref::<CsvFormat>().is_some() || format.downcast_ref::<JsonFormat>().is_some()
}

/// The same files, their decimals with one digit more; `None` when they have none that are written in the files.
fn read_finer(table: &ListingTable) -> Result<Option<Arc<dyn TableProvider>>> {
    let schema = table.schema();
    let partitions = &table.options().table_partition_cols;
    let in_files = schema.fields().iter().filter(|field| !partitions.iter().any(|(name, _)| name == field.name()));
    let mut is_finer = false;
    let fields = in_files.map(|field| match with_one_digit_more(field.data_type()) {
        Some(finer) => {
            is_finer = true;
            Arc::new(Field::clone(field).with_data_type(finer))
        }
        None => Arc::clone(field),
    });
    let fields: Vec<_> = fields.collect();
    if !is_finer {
        return Ok(None);
    }
    let config = ListingTableConfig::new_with_multi_paths(table.table_paths().clone())
        .with_listing_options(table.options().clone())
        .with_schema(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())));
    Ok(Some(Arc::new(ListingTable::try_new(config)?)))
}

/// `None` for other types, and for decimals that have no room.
fn with_one_digit_more(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Decimal128(precision, scale) if *precision < 38 => {
            Some(DataType::Decimal128(precision + 1, scale + 1))
        }
        DataType::Decimal128(precision, scale) => Some(DataType::Decimal256(precision + 1, scale + 1)),
        DataType::Decimal256(precision, scale) if *precision < 76 => {
            Some(DataType::Decimal256(precision + 1, scale + 1))
        }
        _ => None,
    }
}
