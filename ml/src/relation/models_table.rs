//! `INFORMATION_SCHEMA.MODELS` and the rows of SHOW MODELS. The table is read when a query runs, not when it is planned.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session as CatalogSession, TableProvider};
use datafusion::common::{Result, plan_err};
use datafusion::datasource::{MemTable, TableType, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use engine::Session;
use storage::ArtifactStore;

use crate::registry::{self, ModelSummary};

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let count = |name: &str| Field::new(name, DataType::UInt64, false);
    Arc::new(Schema::new(vec![
        text("model_catalog"),
        text("model_schema"),
        text("model_name"),
        text("model_type"),
        count("version"),
        Field::new("is_latest", DataType::Boolean, false),
        text("aliases"),
        text("label"),
        text("creation_time"),
        count("training_rows"),
        count("evaluation_rows"),
        text("metric"),
        Field::new("metric_value", DataType::Float64, true),
        count("duration_ms"),
        count("bytes"),
        text("description"),
        text("location"),
    ]))
}

/// The rows: one for each version of each model.
pub(crate) async fn batch(store: &ArtifactStore) -> engine::Result<RecordBatch> {
    let models = registry::list_in(store).await?;
    let text = |value: &dyn Fn(&ModelSummary) -> String| -> ArrayRef {
        Arc::new(models.iter().map(|m| Some(value(m))).collect::<StringArray>())
    };
    let count = |value: &dyn Fn(&ModelSummary) -> u64| -> ArrayRef {
        Arc::new(models.iter().map(|m| Some(value(m))).collect::<UInt64Array>())
    };
    let is_latest = |m: &ModelSummary| !models.iter().any(|other| other.name == m.name && other.version > m.version);
    let columns: Vec<ArrayRef> = vec![
        text(&|_| "gristmill".into()),
        text(&|_| "models".into()),
        text(&|m| m.name.clone()),
        text(&|m| m.model_type.to_uppercase()),
        count(&|m| m.version),
        Arc::new(models.iter().map(|m| Some(is_latest(m))).collect::<BooleanArray>()),
        text(&|m| m.aliases.join(", ")),
        text(&|m| m.label.clone()),
        text(&|m| m.created.clone()),
        count(&|m| m.rows.train as u64),
        count(&|m| m.rows.eval as u64),
        Arc::new(models.iter().map(|m| m.headline.as_ref().map(|h| h.name)).collect::<StringArray>()),
        Arc::new(models.iter().map(|m| m.headline.as_ref().map(|h| h.value)).collect::<Float64Array>()),
        count(&|m| m.duration_ms),
        count(&|m| m.bytes),
        Arc::new(models.iter().map(|m| m.description.clone()).collect::<StringArray>()),
        text(&|m| m.location.clone()),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| engine::Error::Query(error.into()))
}

static WAREHOUSES: OnceLock<Mutex<HashMap<String, ArtifactStore>>> = OnceLock::new();

fn warehouses() -> std::sync::MutexGuard<'static, HashMap<String, ArtifactStore>> {
    WAREHOUSES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers the session's warehouse under a key that a plan can name.
pub(crate) fn remember(session: &Session) -> String {
    let store = registry::store(session);
    let key = format!("{}:{}", session.context().session_id(), store.location());
    warehouses().insert(key.clone(), store);
    key
}

/// The table of the warehouse that was remembered under this key.
pub(crate) fn plan(key: &str) -> Result<LogicalPlan> {
    let Some(store) = warehouses().get(key).cloned() else { return plan_err!("the warehouse {key} is not known") };
    let source = provider_as_source(Arc::new(ModelsTable { store, schema: schema() }));
    LogicalPlanBuilder::scan("models", source, None)?.build()
}

#[derive(Debug)]
struct ModelsTable {
    store: ArtifactStore,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for ModelsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn CatalogSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = batch(&self.store).await.map_err(super::invalid)?;
        MemTable::try_new(self.schema.clone(), vec![vec![rows]])?.scan(state, projection, filters, limit).await
    }
}
