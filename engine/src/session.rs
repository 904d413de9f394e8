//! A session: tables, functions, options and the way to run a script.

/// placeholder until the session lands
#[derive(Clone)]
pub struct Session {
    context: datafusion::prelude::SessionContext,
}

impl Session {
    /// The query engine's own context: tables, functions, configuration.
    pub fn context(&self) -> &datafusion::prelude::SessionContext {
        &self.context
    }
}
