//! The one value by which the engine learns of models.

use std::sync::Arc;

use engine::Extension;
use engine::extension::Setting;

use crate::distributed;
use crate::relation::{self, ModelNames, ModelRelations};
use crate::statement::ModelStatements;
use crate::{function, materialize, metric, registry, spec, statistics, transform};

/// Settings of models, settable wherever the engine's own are.
const SETTINGS: &[Setting] = &[
    Setting { key: "ml.kernel", description: "Matrix kernel: auto, blas or native." },
    Setting { key: "ml.seed", description: "Seed of models whose statement names none." },
    Setting {
        key: "ml.checkpoint_seconds",
        description: "Seconds between two checkpoints of a training; at an epoch's end a tenth of them. 0 goes by steps alone.",
    },
    Setting {
        key: "ml.checkpoint_steps",
        description: "Steps of a network between two checkpoints; 0 goes by time alone.",
    },
    Setting {
        key: "ml.worker_wait_seconds",
        description: "Seconds that a training on a cluster waits while fewer workers are alive than it needs.",
    },
];

/// Everything that models add to the engine.
pub fn extension() -> Extension {
    let mut scalar_functions = function::scalar_functions();
    scalar_functions.extend(relation::scalar_functions());
    scalar_functions.extend(materialize::scalar_functions());
    let mut aggregate_functions = statistics::aggregates();
    aggregate_functions.extend(metric::aggregates());
    aggregate_functions.extend(transform::aggregates());
    Extension {
        name: "ml",
        scalar_functions,
        aggregate_functions,
        relation_planners: vec![Arc::new(ModelRelations)],
        statements: vec![Arc::new(ModelStatements)],
        rewrites: vec![Arc::new(ModelNames)],
        settings: SETTINGS.to_vec(),
        gang_tasks: distributed::tasks(),
        worker: Some(registry::serve_from),
    }
}

/// Names of the options of CREATE MODEL, for completion.
pub fn option_names() -> Vec<&'static str> {
    spec::option_names().collect()
}
