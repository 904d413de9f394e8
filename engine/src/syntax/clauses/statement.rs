//! Statements by kind.

use datafusion::sql::parser::{CopyToSource, CopyToStatement, ExplainStatement, Statement as SqlStatement};
use datafusion::sql::sqlparser::ast::{
    CreateFunction, CreateFunctionBody, DropFunction, Query, SelectInto, SetExpr, Statement,
};

use super::Clauses;
use crate::error::Result;

impl Clauses<'_> {
    pub(super) fn sql_statement(&mut self, statement: &mut SqlStatement) -> Result<()> {
        match statement {
            SqlStatement::Statement(statement) => self.statement(statement),
            SqlStatement::CreateExternalTable(table) => self.create_external_table(table),
            SqlStatement::CopyTo(copy) => {
                let CopyToStatement { source, target: _, partitioned_by: _, stored_as: _, options: _ } = copy;
                match source {
                    CopyToSource::Relation(_) => Ok(()),
                    CopyToSource::Query(query) => self.query(query),
                }
            }
            SqlStatement::Explain(explain) => {
                let ExplainStatement { options: _, statement } = explain;
                self.sql_statement(statement)
            }
            SqlStatement::Reset(_) => Ok(()),
        }
    }

    fn statement(&mut self, statement: &mut Statement) -> Result<()> {
        match statement {
            Statement::Query(query) => self.outermost(query),
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            Statement::Merge(merge) => self.merge(merge),
            Statement::CreateTable(table) => self.create_table(table),
            Statement::CreateView(view) => self.create_view(view),
            Statement::CreateSchema { schema_name, if_not_exists: _, with, options, default_collate_spec, clone } => {
                self.create_schema(schema_name, with, options, default_collate_spec, clone)
            }
            Statement::Prepare { name, data_types: _, statement } => {
                self.seen_ident(name);
                self.prepared = true;
                self.statement(statement)
            }
            Statement::Execute {
                name: _,
                parameters,
                has_parentheses: _,
                // The planner names and refuses each of these.
                immediate: _,
                into: _,
                using: _,
                output: _,
                default: _,
            } => self.expressions(parameters),
            Statement::Explain {
                describe_alias: _,
                analyze: _,
                verbose: _,
                query_plan,
                estimate,
                statement,
                format: _,
                options,
            } => {
                self.not("QUERY PLAN", *query_plan)?;
                self.not("ESTIMATE", *estimate)?;
                if options.is_some() {
                    return Err(self
                        .refuse("EXPLAIN with options in parentheses")
                        .with_hint("EXPLAIN ANALYZE VERBOSE ..."));
                }
                self.statement(statement)
            }
            Statement::ExplainTable { describe_alias: _, hive_format, has_table_keyword: _, table_name } => {
                self.seen_name(table_name);
                match hive_format {
                    Some(_) => Err(self.refuse_here("EXTENDED or FORMATTED")),
                    None => Ok(()),
                }
            }
            // Nothing depends on a table or view here, so CASCADE and RESTRICT are the same.
            Statement::Drop {
                object_type: _,
                if_exists: _,
                names,
                cascade: _,
                restrict: _,
                purge,
                temporary: _,
                table,
            } => {
                names.first().into_iter().for_each(|name| self.seen_name(name));
                self.not("PURGE", *purge)?;
                self.none("ON", table)
            }
            Statement::CreateFunction(function) => self.create_function(function),
            Statement::DropFunction(DropFunction { if_exists: _, func_desc, drop_behavior: _ }) => {
                match func_desc.get(1) {
                    Some(_) => Err(self.refuse("DROP FUNCTION of several functions at once")),
                    None => Ok(()),
                }
            }
            // Read whole by the planner, or refused by it with its clause's name.
            Statement::ShowColumns { extended: _, full: _, show_options: _ }
            | Statement::ShowFunctions { filter: _ }
            | Statement::ShowTables { terse: _, history: _, extended: _, full: _, external: _, show_options: _ }
            | Statement::ShowVariable { variable: _ }
            | Statement::ShowCreate { obj_type: _, obj_name: _ }
            | Statement::Deallocate { name: _, prepare: _ }
            | Statement::Set(_)
            | Statement::Reset(_)
            | Statement::StartTransaction {
                modes: _,
                begin: _,
                transaction: _,
                modifier: _,
                statements: _,
                exception: _,
                has_end_keyword: _,
            }
            | Statement::Commit { chain: _, end: _, modifier: _ }
            | Statement::Rollback { chain: _, savepoint: _ } => Ok(()),
            // What a database could be told beside its name has no meaning here.
            Statement::CreateDatabase { .. } => Ok(()),
            // The planner has none of these.
            Statement::Copy { .. }
            | Statement::Analyze(_)
            | Statement::Truncate(_)
            | Statement::Msck(_)
            | Statement::Install { .. }
            | Statement::Load { .. }
            | Statement::Directory { .. }
            | Statement::Case(_)
            | Statement::If(_)
            | Statement::While(_)
            | Statement::Raise(_)
            | Statement::Call(_)
            | Statement::CopyIntoSnowflake { .. }
            | Statement::Open(_)
            | Statement::Close { .. }
            | Statement::CreateVirtualTable { .. }
            | Statement::CreateIndex(_)
            | Statement::CreateRole(_)
            | Statement::CreateSecret { .. }
            | Statement::CreateServer(_)
            | Statement::CreatePolicy(_)
            | Statement::CreateConnector(_)
            | Statement::CreateOperator(_)
            | Statement::CreateOperatorFamily(_)
            | Statement::CreateOperatorClass(_)
            | Statement::AlterTable(_)
            | Statement::AlterSchema(_)
            | Statement::AlterIndex { .. }
            | Statement::AlterView { .. }
            | Statement::AlterFunction(_)
            | Statement::AlterType(_)
            | Statement::AlterCollation(_)
            | Statement::AlterOperator(_)
            | Statement::AlterOperatorFamily(_)
            | Statement::AlterOperatorClass(_)
            | Statement::AlterRole { .. }
            | Statement::AlterPolicy(_)
            | Statement::AlterConnector { .. }
            | Statement::AlterSession { .. }
            | Statement::AttachDatabase { .. }
            | Statement::AttachDuckDBDatabase { .. }
            | Statement::DetachDuckDBDatabase { .. }
            | Statement::DropDomain(_)
            | Statement::DropProcedure { .. }
            | Statement::DropSecret { .. }
            | Statement::DropPolicy(_)
            | Statement::DropConnector { .. }
            | Statement::Declare { .. }
            | Statement::CreateExtension(_)
            | Statement::CreateCollation(_)
            | Statement::DropExtension(_)
            | Statement::DropOperator(_)
            | Statement::DropOperatorFamily(_)
            | Statement::DropOperatorClass(_)
            | Statement::Fetch { .. }
            | Statement::Flush { .. }
            | Statement::Discard { .. }
            | Statement::ShowStatus { .. }
            | Statement::ShowVariables { .. }
            | Statement::ShowCatalogs { .. }
            | Statement::ShowDatabases { .. }
            | Statement::ShowProcessList { .. }
            | Statement::ShowSchemas { .. }
            | Statement::ShowCharset(_)
            | Statement::ShowObjects(_)
            | Statement::ShowViews { .. }
            | Statement::ShowCollation { .. }
            | Statement::Use(_)
            | Statement::Comment { .. }
            | Statement::CreateTrigger(_)
            | Statement::DropTrigger(_)
            | Statement::CreateProcedure { .. }
            | Statement::CreateMacro { .. }
            | Statement::CreateStage { .. }
            | Statement::Assert { .. }
            | Statement::Grant(_)
            | Statement::Deny(_)
            | Statement::Revoke(_)
            | Statement::Kill { .. }
            | Statement::Savepoint { .. }
            | Statement::ReleaseSavepoint { .. }
            | Statement::Cache { .. }
            | Statement::UNCache { .. }
            | Statement::CreateSequence { .. }
            | Statement::CreateDomain(_)
            | Statement::CreateType { .. }
            | Statement::Pragma { .. }
            | Statement::Lock(_)
            | Statement::LockTables { .. }
            | Statement::UnlockTables
            | Statement::Unload { .. }
            | Statement::OptimizeTable { .. }
            | Statement::LISTEN { .. }
            | Statement::UNLISTEN { .. }
            | Statement::NOTIFY { .. }
            | Statement::LoadData { .. }
            | Statement::RenameTable(_)
            | Statement::List(_)
            | Statement::Remove(_)
            | Statement::RaisError { .. }
            | Statement::Throw(_)
            | Statement::Print(_)
            | Statement::WaitFor(_)
            | Statement::Return(_)
            | Statement::ExportData(_)
            | Statement::CreateUser(_)
            | Statement::AlterUser(_)
            | Statement::Vacuum(_) => Ok(()),
        }
    }

    /// The planner makes a table of what the outermost SELECT puts INTO it, and drops an INTO elsewhere.
    fn outermost(&mut self, query: &mut Query) -> Result<()> {
        let into = match query.body.as_mut() {
            SetExpr::Select(select) => select.into.take(),
            _ => None,
        };
        if let Some(SelectInto { temporary: _, unlogged, table: _, name }) = &into {
            self.seen_name(name);
            self.not("UNLOGGED", *unlogged)?;
        }
        self.query(query)?;
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.into = into;
        }
        Ok(())
    }

    fn create_function(&mut self, function: &mut CreateFunction) -> Result<()> {
        let CreateFunction {
            or_alter,
            or_replace: _,
            temporary: _,
            if_not_exists,
            name,
            args,
            return_type: _,
            function_body,
            behavior: _,
            called_on_null,
            parallel,
            security,
            set_params,
            using,
            language: _,
            determinism_specifier,
            options,
            remote_connection,
        } = function;
        self.seen_name(name);
        self.not("OR ALTER", *or_alter)?;
        self.not("IF NOT EXISTS", *if_not_exists)?;
        self.none("CALLED ON NULL INPUT", called_on_null)?;
        self.none("PARALLEL", parallel)?;
        self.none("SECURITY", security)?;
        self.empty("SET", set_params)?;
        self.none("USING", using)?;
        self.none("DETERMINISTIC", determinism_specifier)?;
        self.none("OPTIONS", options)?;
        self.none("REMOTE WITH CONNECTION", remote_connection)?;
        for arg in args.iter_mut().flatten() {
            arg.default_expr.as_mut().map_or(Ok(()), |value| self.expression(value))?;
        }
        match function_body {
            Some(
                CreateFunctionBody::AsBeforeOptions { body, link_symbol: _ }
                | CreateFunctionBody::AsAfterOptions(body)
                | CreateFunctionBody::Return(body)
                | CreateFunctionBody::AsReturnExpr(body),
            ) => self.expression(body),
            Some(CreateFunctionBody::AsBeginEnd(_) | CreateFunctionBody::AsReturnSelect(_)) | None => Ok(()),
        }
    }
}
