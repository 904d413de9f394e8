//! From the text of a statement to its plan: its tokens are rewritten and parsed, what the planner would misread or drop is
//! written otherwise or refused, and the query engine plans what is left.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement as SqlStatement};
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::Spanned;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, dialect_from_str};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use super::Session;
use crate::delta::DeltaTable;
use crate::error::{Error, Result};
use crate::expression::{Listed, read_list};
use crate::script::field_access;
use crate::script::names::{SameName, name_columns, twins};
use crate::script::tokens::{self, offset_of};
use crate::syntax::versions::{self, Wanted};
use crate::syntax::{bigquery, branches, casts, clauses, from_first, row_values, spelling, units, using};
use crate::{fault, syntax};

impl Session {
    /// Plans a query as a script's SELECT would be: parameters bound, extension syntax understood. Errors carry an offset
    /// into `sql`.
    ///
    /// # Errors
    /// Text that is no single query, names that do not exist, whatever planning finds.
    pub async fn plan_query(&self, sql: &str) -> Result<DataFrame> {
        self.inner.stores.forget_listings();
        fault::kept(async {
            let tokens = self.bind(sql)?;
            self.plan_tokens(sql, tokens).await
        })
        .await
    }

    /// The tokens of `text` with parameters in their places.
    pub fn bind(&self, text: &str) -> Result<Vec<TokenWithSpan>> {
        self.parameters().bind(text, tokens::tokenize_as(text, self.dialect().as_ref())?)
    }

    /// The items of the select list `text`, parameters bound.
    ///
    /// # Errors
    /// Text that is no select list, a parameter that was not declared; with its place.
    pub fn select_list(&self, text: &str) -> Result<Vec<Listed>> {
        read_list(text, self.bind(text)?, self.dialect().as_ref())
    }

    /// The dialect of SQL that statements are written in (`datafusion.sql_parser.dialect`).
    fn dialect(&self) -> Box<dyn Dialect> {
        let state = self.inner.context.state_ref();
        let name = state.read().config_options().sql_parser.dialect;
        dialect_from_str(name).unwrap_or_else(|| Box::new(GenericDialect {}))
    }

    /// Plans bound tokens of the statement `text` as a query.
    pub(crate) async fn plan_tokens(&self, text: &str, tokens: Vec<TokenWithSpan>) -> Result<DataFrame> {
        let plan = self.plan_statement(text, tokens).await?;
        if matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_))
        {
            return Err(Error::invalid("expected a query").at_offset(0));
        }
        Ok(self.data_frame(twins::restore_unique(plan)?))
    }

    /// Plans bound tokens of the statement `text`, whatever kind of SQL statement it is.
    pub(crate) async fn plan_statement(&self, text: &str, tokens: Vec<TokenWithSpan>) -> Result<LogicalPlan> {
        Ok(self.plan_adjusted(text, tokens, |_| Ok(())).await?.0)
    }

    /// As [`Session::plan_statement`], with a last look at the parsed statement, which may change it and give something.
    pub(crate) async fn plan_adjusted<T>(
        &self,
        text: &str,
        tokens: Vec<TokenWithSpan>,
        adjust: impl Fn(&mut SqlStatement) -> Result<T>,
    ) -> Result<(LogicalPlan, T)> {
        let mut tokens = tokens;
        // What came of the statement as it is written, when casts have the name of something else.
        let mut unnamed = None;
        loop {
            let mut statement = self.parse_tokens(text, tokens.clone()).await?;
            if let Some(unnamed) = unnamed.take_if(|_| !casts::tell_apart(&mut statement)) {
                return unnamed;
            }
            let given = adjust(&mut statement)?;
            let state = self.inner.context.state();
            // Boxed: the future of a deep plan would otherwise sit on the caller's stack.
            let error = match Box::pin(state.statement_to_plan(statement)).await {
                Ok(plan) if unnamed.is_none() && casts::share_a_name(&plan)? => {
                    unnamed = Some(Ok((plan, given)));
                    continue;
                }
                Ok(plan) => return Ok((plan, given)),
                Err(error) => error,
            };
            if let Some(corrected) = spelling::corrected(&error, &tokens) {
                tokens = corrected;
            } else if let Some(unnamed) = unnamed {
                return unnamed;
            } else if casts::clash(&error) {
                unnamed = Some(Err(self.explain(error, text)));
            } else {
                return Err(self.explain(error, text));
            }
        }
    }

    /// Lets the extension rewrite bound tokens, then parses them.
    pub(crate) async fn parse_tokens(&self, text: &str, mut tokens: Vec<TokenWithSpan>) -> Result<SqlStatement> {
        for rewrite in &self.inner.extension.rewrites {
            tokens = rewrite.rewrite(self, tokens).await?;
        }
        tokens = units::read(from_first::complete(tokens), text)?;
        let limit = self.inner.context.state_ref().read().config_options().sql_parser.recursion_limit.get();
        let parse = || {
            let dialect = self.dialect();
            let parser = DFParserBuilder::new(tokens).with_dialect(dialect.as_ref());
            let mut parser = parser.with_recursion_limit(limit).build()?;
            parser.parse_statements()
        };
        let mut statements = parse().map_err(|error| self.explain(error, text))?;
        match (statements.pop_front(), statements.is_empty()) {
            (Some(mut statement), true) => {
                syntax::measure(&mut statement, text)?;
                name_columns(&mut statement).map_err(|SameName { name, place }| {
                    let error = Error::invalid(format!("two columns are named `{name}`"));
                    error.at_offset(offset_of(text, place)).with_hint("give one of them another name with AS")
                })?;
                branches::name_expressions(&mut statement);
                bigquery::resolve_in(&mut statement, &|name| self.is_table(name));
                field_access::resolve_in(&mut statement);
                self.open_versions(&mut statement, text).await?;
                row_values::resolve_in(&mut statement)?;
                self.settle(&mut statement, text)?;
                using::prepare(&mut statement);
                syntax::balance(&mut statement, text)?;
                Ok(statement)
            }
            (None, _) => Err(Error::invalid("expected a statement").at_offset(0)),
            (Some(_), false) => Err(Error::invalid("expected one statement, got several").at_offset(0)),
        }
    }

    /// Opens the versions of Delta tables that the statement asks for.
    async fn open_versions(&self, statement: &mut SqlStatement, text: &str) -> Result<()> {
        if !self.dialect().supports_table_versioning() {
            return Ok(());
        }
        let asked = versions::asked(statement);
        let mut names = Vec::with_capacity(asked.len());
        for one in asked {
            let place = offset_of(text, one.table.span().start);
            let name = self.open_version(&one).await.map_err(|error| error.at_offset(place))?;
            names.push(name);
        }
        versions::replace(statement, names);
        Ok(())
    }

    async fn open_version(&self, asked: &versions::Asked) -> Result<String> {
        let enable = self.inner.context.state_ref().read().config_options().sql_parser.enable_ident_normalization;
        let table = object_name_to_table_reference(asked.table.clone(), enable)?;
        let provider = self.inner.context.table_provider(table.clone()).await?;
        let Some(delta) = provider.downcast_ref::<DeltaTable>() else {
            return Err(Error::invalid(format!("`{table}` is no Delta table, and other tables have no versions")));
        };
        let at = match &asked.wanted {
            Wanted::Version(number) => {
                let wrong = |_| Error::invalid(format!("VERSION AS OF takes a whole number from 0 on, got {number}"));
                delta.at_version(number.parse().map_err(wrong)?).await?
            }
            Wanted::Time(time) => {
                let frame = self.inner.context.sql(&format!("SELECT CAST({time} AS TIMESTAMP)")).await?;
                let batches = frame.collect().await?;
                let column = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.column(0));
                let times = column.map(|column| cast(column, &DataType::Timestamp(TimeUnit::Millisecond, None)));
                let times = times.transpose().map_err(DataFusionError::from)?;
                let time = times.as_ref().map(|times| times.as_primitive::<TimestampMillisecondType>());
                match time.filter(|times| times.is_valid(0)) {
                    Some(times) => delta.at_time(times.value(0)).await?,
                    None => return Err(Error::invalid("TIMESTAMP AS OF takes a time")),
                }
            }
        };
        let name = format!("{table} at version {} of {}", at.version().unwrap_or_default(), at.location());
        self.inner.versions.add(name.clone(), Arc::new(at));
        Ok(name)
    }

    /// Whether there is a table or a view of this name, which holds no schema.
    fn is_table(&self, name: &str) -> bool {
        self.inner.context.table_exist(TableReference::bare(name)).unwrap_or(false)
    }

    /// Sees to it that no clause is dropped.
    fn settle(&self, statement: &mut SqlStatement, text: &str) -> Result<()> {
        let state = self.inner.context.state_ref();
        let state = state.read();
        let is_scalar = |name: &str| state.scalar_functions().contains_key(name);
        clauses::settle(statement, text, &is_scalar)
    }
}
