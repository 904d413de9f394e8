//! INSERT, UPDATE, DELETE and MERGE. What the planner names and refuses itself is left to it.

use datafusion::sql::sqlparser::ast::{
    Assignment, Delete, FromTable, Insert, Merge, MergeAction, MergeClause, MergeInsertExpr, MergeInsertKind,
    MergeUpdateExpr, TableFactor, TableWithJoins, Update, UpdateTableFromKind, Values,
};

use super::Clauses;
use crate::error::Result;

impl Clauses<'_> {
    pub(super) fn insert(&mut self, insert: &mut Insert) -> Result<()> {
        let Insert {
            insert_token,
            into: _,
            has_table_keyword: _,
            columns: _,
            overwrite: _,
            source,
            table: _,
            // The planner names and refuses each of these.
            optimizer_hints: _,
            or: _,
            ignore: _,
            table_alias: _,
            assignments: _,
            partitioned: _,
            after_columns: _,
            on: _,
            returning: _,
            output: _,
            replace_into: _,
            priority: _,
            insert_alias: _,
            settings: _,
            format_clause: _,
            multi_table_insert_type: _,
            multi_table_into_clauses: _,
            multi_table_when_clauses: _,
            multi_table_else_clause: _,
        } = insert;
        self.seen(insert_token.0.span);
        self.from = self.at;
        match source {
            Some(source) => self.query(source),
            None => Ok(()),
        }
    }

    pub(super) fn update(&mut self, update: &mut Update) -> Result<()> {
        let Update {
            update_token,
            table,
            assignments,
            from,
            selection,
            order_by,
            limit,
            // The planner names and refuses each of these.
            optimizer_hints: _,
            returning: _,
            output: _,
            or: _,
        } = update;
        self.seen(update_token.0.span);
        self.from = self.at;
        self.changed(table)?;
        match from {
            None => {}
            Some(UpdateTableFromKind::BeforeSet(tables) | UpdateTableFromKind::AfterSet(tables)) => {
                tables.iter_mut().try_for_each(|tables| self.tables(tables))?;
            }
        }
        for Assignment { target: _, value } in assignments {
            self.expression(value)?;
        }
        if let Some(condition) = selection {
            self.expression(condition)?;
        }
        self.order_exprs(order_by)?;
        limit.as_mut().map_or(Ok(()), |limit| self.expression(limit))
    }

    pub(super) fn delete(&mut self, delete: &mut Delete) -> Result<()> {
        let Delete {
            delete_token,
            from,
            using,
            selection,
            order_by,
            limit,
            // The planner names and refuses each of these.
            optimizer_hints: _,
            tables: _,
            returning: _,
            output: _,
        } = delete;
        self.seen(delete_token.0.span);
        self.from = self.at;
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
        from.iter_mut().try_for_each(|table| self.changed(table))?;
        if using.is_some() {
            return Err(self
                .refuse_here("USING behind the table that is changed")
                .with_hint("use a subquery in WHERE"));
        }
        if let Some(condition) = selection {
            self.expression(condition)?;
        }
        self.order_exprs(order_by)?;
        limit.as_mut().map_or(Ok(()), |limit| self.expression(limit))
    }

    /// The table whose rows change: the planner reads its name, drops the rest, and with it an alias.
    fn changed(&mut self, table: &mut TableWithJoins) -> Result<()> {
        self.tables(table)?;
        if !table.joins.is_empty() {
            return Err(self
                .refuse_here("a JOIN behind the table that is changed")
                .with_hint("use a subquery in WHERE"));
        }
        if let TableFactor::Table { sample: Some(_), .. } = &table.relation {
            return Err(self.refuse("TABLESAMPLE"));
        }
        Ok(())
    }

    pub(super) fn merge(&mut self, merge: &mut Merge) -> Result<()> {
        let Merge { merge_token, into: _, table, source, on, clauses, optimizer_hints: _, output: _ } = merge;
        self.seen(merge_token.0.span);
        self.from = self.at;
        for table in [table, source] {
            let mut alone = TableWithJoins { relation: table.clone(), joins: Vec::new() };
            self.tables(&mut alone)?;
            *table = alone.relation;
        }
        self.expression(on)?;
        for MergeClause { when_token: _, clause_kind: _, predicate, action } in clauses {
            if let Some(predicate) = predicate {
                self.expression(predicate)?;
            }
            match action {
                MergeAction::Insert(insert) => {
                    let MergeInsertExpr { insert_token: _, columns: _, kind_token: _, kind, insert_predicate } = insert;
                    if let MergeInsertKind::Values(Values { explicit_row: _, value_keyword: _, rows }) = kind {
                        rows.iter_mut().try_for_each(|row| self.expressions(&mut row.content))?;
                    }
                    insert_predicate.as_mut().map_or(Ok(()), |predicate| self.expression(predicate))?;
                }
                MergeAction::Update(update) => {
                    let MergeUpdateExpr { update_token: _, assignments, update_predicate, delete_predicate } = update;
                    for Assignment { target: _, value } in assignments {
                        self.expression(value)?;
                    }
                    let predicates = [update_predicate, delete_predicate].into_iter().flatten();
                    predicates.into_iter().try_for_each(|predicate| self.expression(predicate))?;
                }
                MergeAction::Delete { delete_token: _ } => {}
            }
        }
        Ok(())
    }
}
