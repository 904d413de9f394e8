//! What driver, scheduler and executors must have alike: functions, stores, configuration, plan codec. Made by one
//! function from one [`Extension`], which makes "works locally, unknown function on the cluster" impossible.

use std::sync::Arc;

use ballista_core::config::BallistaConfig;
use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::prelude::SessionConfig;
use datafusion_proto::physical_plan::PhysicalExtensionCodec;
use storage::Stores;

use super::MESSAGE_BYTES_MAX;
use super::codec::PlanCodec;
use crate::extension::Extension;
use crate::functions;
use crate::memory::FairPool;
use crate::source::StoreRegistry;

/// See the module. Cloning is cheap.
#[derive(Clone)]
pub struct Environment {
    stores: Stores,
    extension: Extension,
}

impl Environment {
    /// From the stores of this process and what other crates add.
    pub fn new(stores: Stores, extension: Extension) -> Self {
        Environment { stores, extension }
    }

    /// The stores of this process.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// What other crates add.
    pub fn extension(&self) -> &Extension {
        &self.extension
    }

    pub(crate) fn codec(&self) -> Arc<dyn PhysicalExtensionCodec> {
        Arc::new(PlanCodec::new(self.stores.clone()))
    }

    /// A state in which plans are decoded; nothing runs in it.
    pub(super) fn state(&self, config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Result<SessionState> {
        let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
        let mut state = builder.build();
        functions::register(&mut state)?;
        for function in &self.extension.aggregate_functions {
            state.register_udaf(Arc::clone(function))?;
        }
        for function in &self.extension.scalar_functions {
            state.register_udf(Arc::clone(function))?;
        }
        Ok(state)
    }

    /// What plans are decoded in, as the scheduler does it.
    ///
    /// # Errors
    /// Functions that do not fit together.
    pub(crate) fn decoding(&self, config: SessionConfig) -> Result<Arc<TaskContext>> {
        Ok(self.state(config, self.runtime(RuntimeEnvBuilder::new())?)?.task_ctx())
    }

    pub(super) fn functions(&self) -> Result<BallistaFunctionRegistry> {
        let state = self.state(default_config(), self.runtime(RuntimeEnvBuilder::new())?)?;
        Ok(BallistaFunctionRegistry::from(&state))
    }

    pub(super) fn runtime(&self, builder: RuntimeEnvBuilder) -> Result<Arc<RuntimeEnv>> {
        // What readers hold is counted in the pools of tasks, which are made later and are upstream's.
        let uncounted = Arc::new(FairPool::new(None));
        let registry = StoreRegistry::new(self.stores.clone(), uncounted);
        builder.with_object_store_registry(Arc::new(registry)).build_arc()
    }
}

/// A side of a join that is smaller goes to every task whole, so that the other side need not be shuffled. Of the sizes tried
/// (4, 16, 40 and 128 MB, 22 queries of TPC-H) the smaller ones shuffle large tables without need, and with the largest every
/// task hashes tables that are worth a shuffle.
const BROADCAST_BYTES: usize = 32 << 20;

/// Before a driver's settings are known.
pub(super) fn default_config() -> SessionConfig {
    for_cluster(SessionConfig::new())
}

/// Turns what a driver would use alone into what its plans need when they are cut into stages.
pub(crate) fn for_cluster(mut config: SessionConfig) -> SessionConfig {
    config = config
        .with_option_extension(BallistaConfig::default())
        // Stages are cut at hash repartitioning only; any other is removed from the plan.
        .with_round_robin_repartition(false)
        .with_ballista_grpc_client_max_message_size(MESSAGE_BYTES_MAX)
        .with_ballista_broadcast_join_threshold_bytes(BROADCAST_BYTES)
        // The driver submits physical plans, which the static planner cuts.
        .with_ballista_adaptive_query_planner(false);
    let options = config.options_mut();
    // View arrays are sent whole, with the buffers that they share.
    options.execution.parquet.schema_force_view_types = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Passes values between operators of one process; operators of different stages are in different ones.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    without_dynamic_filters(&mut config);
    config
}

/// Turns off, whatever the session says, what passes values between operators of one process: those of different stages
/// are in different ones.
pub(crate) fn without_dynamic_filters(config: &mut SessionConfig) {
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
}
