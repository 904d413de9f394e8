//! Versions of Delta tables: `FROM t VERSION AS OF 3`, `t TIMESTAMP AS OF '2026-01-31'`, `t FOR SYSTEM_TIME AS OF ...`. The
//! planner reads none of them. The version is opened here, under a name of its own that takes the table's place.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::TableProvider;
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Spanned, TableAlias, TableFactor, TableVersion, VisitMut, VisitorMut,
};

/// Tables at a version, by the names that stand for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Versions(Arc<Mutex<HashMap<String, Arc<dyn TableProvider>>>>);

impl Versions {
    pub(crate) fn add(&self, name: String, table: Arc<dyn TableProvider>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, table);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// Which version a statement asks for.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a statement has a few of them at most")]
pub(crate) enum Wanted {
    Version(String),
    /// An expression that gives a time.
    Time(Expr),
}

/// A table with a version behind its name.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) table: ObjectName,
    pub(crate) wanted: Wanted,
}

/// The tables of the statement that have a version behind their names, in order.
pub(crate) fn asked(statement: &mut SqlStatement) -> Vec<Asked> {
    let mut found = Find(Vec::new());
    visit(statement, &mut found);
    found.0
}

/// Puts names that stand for tables at a version in the places of [`asked`].
pub(crate) fn replace(statement: &mut SqlStatement, names: Vec<String>) {
    visit(statement, &mut Replace(names.into_iter()));
}

fn visit(statement: &mut SqlStatement, visitor: &mut impl VisitorMut<Break = ()>) {
    match statement {
        SqlStatement::Statement(statement) => {
            let _ = statement.visit(visitor);
        }
        SqlStatement::Explain(explain) => visit(&mut explain.statement, visitor),
        SqlStatement::CreateExternalTable(_) | SqlStatement::CopyTo(_) | SqlStatement::Reset(_) => {}
    }
}

struct Find(Vec<Asked>);

impl VisitorMut for Find {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, version: Some(version), args: None, .. } = table
            && let Some(wanted) = wanted(version)
        {
            self.0.push(Asked { table: name.clone(), wanted });
        }
        ControlFlow::Continue(())
    }
}

fn wanted(version: &TableVersion) -> Option<Wanted> {
    match version {
        TableVersion::VersionAsOf(number) => Some(Wanted::Version(number.to_string())),
        TableVersion::TimestampAsOf(time) | TableVersion::ForSystemTimeAsOf(time) => Some(Wanted::Time(time.clone())),
        // What is left to the walk, which refuses it.
        TableVersion::Function(_) | TableVersion::Changes { .. } => None,
    }
}

struct Replace(std::vec::IntoIter<String>);

impl VisitorMut for Replace {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, version, args: None, alias, .. } = table else {
            return ControlFlow::Continue(());
        };
        if version.as_ref().and_then(wanted).is_none() {
            return ControlFlow::Continue(());
        }
        let Some(stands_for) = self.0.next() else { return ControlFlow::Break(()) };
        let span = name.span();
        if alias.is_none()
            && let Some(last) = name.0.last().and_then(|part| part.as_ident())
        {
            *alias = Some(TableAlias { explicit: true, name: last.clone(), columns: Vec::new(), at: None });
        }
        *name = ObjectName::from(vec![Ident { value: stands_for, quote_style: Some('"'), span }]);
        *version = None;
        ControlFlow::Continue(())
    }
}
