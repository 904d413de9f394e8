//! Named windows (`WINDOW w AS (...)`). The planner knows them in the select list alone and drops what refines them, so they
//! are put in their places here: in ORDER BY and QUALIFY, too, and `OVER (w ROWS ...)` keeps what `w` says.

use datafusion::sql::sqlparser::ast::{Ident, NamedWindowDefinition, NamedWindowExpr, WindowSpec};

use crate::error::{Error, Result, near};

/// The windows that one SELECT names.
#[derive(Debug, Default)]
pub(super) struct Windows(Vec<(String, WindowSpec)>);

impl Windows {
    /// Adds a window; it may refine one that is defined before it.
    pub(super) fn define(&mut self, definition: NamedWindowDefinition) -> Result<()> {
        let NamedWindowDefinition(name, window) = definition;
        if self.find(&name).is_some() {
            return Err(Error::invalid(format!("the window `{name}` is defined twice")));
        }
        let spec = match window {
            NamedWindowExpr::NamedWindow(other) => self.get(&other)?.clone(),
            NamedWindowExpr::WindowSpec(mut spec) => {
                self.refine(&mut spec)?;
                spec
            }
        };
        self.0.push((folded(&name), spec));
        Ok(())
    }

    /// The window that is called so.
    pub(super) fn get(&self, name: &Ident) -> Result<&WindowSpec> {
        self.find(name).ok_or_else(|| {
            let known = self.0.iter().map(|(name, _)| name.as_str());
            let error = Error::invalid(format!("there is no window `{name}`"));
            match near(&name.value, known) {
                Some(known) => error.with_hint(format!("did you mean `{known}`?")),
                None => error.with_hint(format!("WINDOW {name} AS (...) defines it")),
            }
        })
    }

    /// Gives a window that refines another what it takes from that one.
    pub(super) fn refine(&self, spec: &mut WindowSpec) -> Result<()> {
        let Some(name) = spec.window_name.take() else { return Ok(()) };
        let base = self.get(&name)?;
        if !spec.partition_by.is_empty() {
            return Err(Error::invalid(format!(
                "a window that refines `{name}` cannot have a PARTITION BY of its own"
            )));
        }
        if !spec.order_by.is_empty() && !base.order_by.is_empty() {
            return Err(Error::invalid(format!("the window `{name}` has an ORDER BY already")));
        }
        if let Some(frame) = &base.window_frame {
            if !spec.order_by.is_empty() || spec.window_frame.is_some() {
                return Err(Error::invalid(format!("the window `{name}` has a frame already and cannot be refined")));
            }
            spec.window_frame = Some(frame.clone());
        }
        spec.partition_by.clone_from(&base.partition_by);
        if spec.order_by.is_empty() {
            spec.order_by.clone_from(&base.order_by);
        }
        Ok(())
    }

    /// All of them, to be walked over.
    pub(super) fn specs_mut(&mut self) -> impl Iterator<Item = &mut WindowSpec> {
        self.0.iter_mut().map(|(_, spec)| spec)
    }

    fn find(&self, name: &Ident) -> Option<&WindowSpec> {
        let name = folded(name);
        self.0.iter().find(|(known, _)| *known == name).map(|(_, spec)| spec)
    }
}

/// Folded as SQL folds names.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}
