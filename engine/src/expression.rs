//! Expressions of SQL outside of any statement, such as those of a model's TRANSFORM. They are read as a SELECT reads them:
//! the same passes over the text, the same functions, types and rules, and they come out simplified, as functions that are
//! only another spelling of something (`COALESCE`) must be before they can run. The settings are those that a session begins
//! with, so that an expression means the same wherever it is read again.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, Projection, ScalarUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::parser::{DFParserBuilder, Statement as SqlStatement};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, ExprWithAlias, Ident, Query, SelectItem, SetExpr, Statement, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::analysis;
use crate::configuration::{configuration, update_functions};
use crate::error::{Error, Result};
use crate::functions;
use crate::mistake::{KnownNames, explain};
use crate::options::Options;
use crate::runner::LocalRunner;
use crate::script::field_access;
use crate::script::tokens::{is_space, offset_of, token_at, tokenize};
use crate::syntax::{self, clauses, row_values, units};

/// One item of a select list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The item.
    pub item: SelectItem,
    /// Where it begins in the text of the list.
    pub offset: usize,
}

/// Reads the select list `text` in the dialect that sessions begin with, without parameters.
///
/// # Errors
/// Text that is no select list, with its place.
pub fn select_list(text: &str) -> Result<Vec<Listed>> {
    read_list(text, tokenize(text)?, &GenericDialect {})
}

/// Reads the select list of these bound tokens of `text`.
pub(crate) fn read_list(text: &str, tokens: Vec<TokenWithSpan>, dialect: &dyn Dialect) -> Result<Vec<Listed>> {
    let offsets = begins(text, &tokens);
    let query = read_query(text, tokens, dialect)?;
    let extra = || Error::invalid("expected a list of expressions and nothing after it");
    let SetExpr::Select(select) = *query.body else { return Err(extra()) };
    if !select.from.is_empty() || select.selection.is_some() || query.order_by.is_some() || query.limit_clause.is_some()
    {
        return Err(extra());
    }
    let items = select.projection;
    let place = |index: usize| if offsets.len() == items.len() { offsets[index] } else { 0 };
    Ok(items.iter().enumerate().map(|(index, item)| Listed { item: item.clone(), offset: place(index) }).collect())
}

/// Where the items of a list begin: after the commas outside of all brackets.
fn begins(text: &str, tokens: &[TokenWithSpan]) -> Vec<usize> {
    let (mut offsets, mut depth, mut awaited) = (Vec::new(), 0usize, true);
    for token in tokens.iter().filter(|token| !is_space(token) && token.token != Token::EOF) {
        if std::mem::take(&mut awaited) {
            offsets.push(offset_of(text, token.span.start));
        }
        match token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::Comma => awaited = depth == 0,
            _ => {}
        }
    }
    offsets
}

/// Parses `SELECT` and the tokens.
fn read_query(text: &str, tokens: Vec<TokenWithSpan>, dialect: &dyn Dialect) -> Result<Query> {
    let nothing = || Error::invalid("expected an expression");
    let first = tokens.iter().find(|token| !is_space(token) && token.token != Token::EOF).ok_or_else(nothing)?;
    let select = token_at(first, Token::make_keyword("SELECT"));
    let mut tokens = units::read(tokens, text)?;
    tokens.insert(0, select);
    let names = KnownNames::default();
    let parse = || DFParserBuilder::new(tokens).with_dialect(dialect).build()?.parse_statements();
    let mut statements = parse().map_err(|error| explain(error, text, &names))?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(SqlStatement::Statement(statement)), true) => match *statement {
            Statement::Query(query) => Ok(*query),
            _ => Err(nothing()),
        },
        _ => Err(Error::invalid("expected a list of expressions and nothing after it")),
    }
}

/// Gives a session the language of ours: what plans lack to be right.
pub(crate) fn with_language(builder: SessionStateBuilder, in_tasks: bool) -> SessionStateBuilder {
    builder
        .with_analyzer_rules(analysis::analyzer_rules(in_tasks))
        .with_expr_planners(analysis::expr_planners())
        .with_type_planner(Arc::new(analysis::Types))
}

/// See the module.
pub struct Expressions {
    state: SessionState,
}

impl Expressions {
    /// With all functions of a session and these.
    ///
    /// # Errors
    /// A function of a name that cannot be registered.
    pub fn new(more: Vec<Arc<ScalarUDF>>) -> Result<Self> {
        let builder = SessionStateBuilder::new().with_config(configuration(&Options::default(), &LocalRunner)?);
        let mut state = with_language(builder, false).with_default_features().build();
        functions::register(&mut state)?;
        update_functions(&mut state)?;
        for function in more {
            state.register_udf(function)?;
        }
        Ok(Expressions { state })
    }

    /// Plans the expression `text` over `columns`, whose names are exact; see [`Expressions::settled`] for what is left to do.
    ///
    /// # Errors
    /// Text that is no expression, names and functions that do not exist, types that do not fit. Without a place.
    pub fn plan(&self, text: &str, columns: &Schema) -> Result<Expr> {
        let expr = self.read(text).map_err(without_place)?;
        let columns = DFSchema::try_from(named_columns(&expr, columns))?;
        let planned = self.state.create_logical_expr_from_sql_expr(ExprWithAlias { expr, alias: None }, &columns);
        Ok(planned?.unalias_nested().data)
    }

    /// One expression of a statement's SELECT, after the passes that statements go through.
    fn read(&self, text: &str) -> Result<SqlExpr> {
        let tokens = tokenize(text)?;
        let query = read_query(text, tokens, &GenericDialect {})?;
        let mut statement = SqlStatement::Statement(Box::new(Statement::Query(Box::new(query))));
        syntax::measure(&mut statement, text)?;
        field_access::resolve_in(&mut statement);
        row_values::resolve_in(&mut statement)?;
        clauses::settle(&mut statement, text, &|name| self.state.scalar_functions().contains_key(name))?;
        syntax::balance(&mut statement, text)?;
        let one = || Error::invalid(format!("expected one expression, got `{text}`"));
        let SqlStatement::Statement(statement) = statement else { return Err(one()) };
        let Statement::Query(query) = *statement else { return Err(one()) };
        let SetExpr::Select(mut select) = *query.body else { return Err(one()) };
        match (select.projection.pop(), select.projection.is_empty() && select.from.is_empty()) {
            (Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }), true) => Ok(expr),
            _ => Err(one()),
        }
    }

    /// The expression with settled types, as every rule of a session wants it, and simplified.
    ///
    /// # Errors
    /// Types that do not fit.
    pub fn settled(&self, expr: Expr, columns: &Schema) -> Result<Expr> {
        let schema = Arc::new(DFSchema::try_from(columns.clone())?);
        let none = EmptyRelation { produce_one_row: false, schema: Arc::clone(&schema) };
        let projection = Projection::try_new(vec![expr], Arc::new(LogicalPlan::EmptyRelation(none)))?;
        let config = self.state.config_options();
        let plan = LogicalPlan::Projection(projection);
        let analyzed = self.state.analyzer().execute_and_check(plan, config, |_, _| {})?;
        let expr = match analyzed {
            LogicalPlan::Projection(Projection { mut expr, .. }) if expr.len() == 1 => expr.swap_remove(0),
            other => return Err(DataFusionError::Plan(format!("an expression has become a plan: {other}")).into()),
        };
        let context = SimplifyContext::builder()
            .with_schema(schema)
            .with_config_options(Arc::clone(config))
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time)
            .build();
        Ok(ExprSimplifier::new(context).simplify(expr.unalias_nested().data)?)
    }

    /// The physical expression of a settled one, over batches of `columns`.
    ///
    /// # Errors
    /// Types that do not fit.
    pub fn physical(&self, expr: Expr, columns: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        let schema = DFSchema::try_from(columns.clone())?;
        Ok(self.state.create_physical_expr(expr, &schema)?)
    }

    /// What the query engine says about the expression `text`, in the user's nouns, without a place.
    pub fn explain(&self, error: DataFusionError, text: &str) -> Error {
        let functions = self.state.scalar_functions().keys().cloned().collect();
        without_place(explain(error, text, &KnownNames { tables: Vec::new(), functions }))
    }
}

/// An expression's own text is not the one that the user has written.
fn without_place(error: Error) -> Error {
    match error {
        Error::Invalid { message, hint, .. } => Error::Invalid { message, offset: None, hint },
        other => other,
    }
}

/// Those of `columns` that the expression may name: planning takes time for each column that it is shown.
fn named_columns(expr: &SqlExpr, columns: &Schema) -> Schema {
    struct Names(HashSet<String>);
    impl Names {
        fn add(&mut self, ident: &Ident) {
            self.0.insert(match ident.quote_style {
                Some(_) => ident.value.clone(),
                None => ident.value.to_lowercase(),
            });
        }
    }
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<()> {
            match expr {
                SqlExpr::Identifier(ident) => self.add(ident),
                SqlExpr::CompoundIdentifier(parts) => parts.iter().for_each(|ident| self.add(ident)),
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(HashSet::new());
    let _ = expr.visit(&mut names);
    let named = columns.fields().iter().filter(|field| names.0.contains(field.name()));
    Schema::new(named.cloned().collect::<Vec<_>>())
}
