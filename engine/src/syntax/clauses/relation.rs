//! What FROM names: tables, subqueries, functions, and how they are joined.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, Join, JoinConstraint, JoinOperator, ObjectName, TableAlias, TableAliasColumnDef, TableFactor,
    TableFunctionArgs, TableSampleKind, TableVersion, TableWithJoins,
};

use super::Clauses;
use crate::error::{Error, Result};

/// Words before JOIN that the parser takes for the name of the table to their left.
const KINDS_OF_JOINS: &[&str] = &["any", "all", "asof", "paste", "positional", "global"];

impl Clauses<'_> {
    pub(super) fn tables(&mut self, tables: &mut TableWithJoins) -> Result<()> {
        let TableWithJoins { relation, joins } = tables;
        let mut before = Some(&*relation).and_then(implicit_alias);
        for join in joins.iter() {
            if let Some(kind) = before.filter(|alias| KINDS_OF_JOINS.contains(&alias.as_str())) {
                return Err(self.refuse(&format!("{} JOIN", kind.to_uppercase())));
            }
            before = implicit_alias(&join.relation);
        }
        let aliases = joins.iter().map(|join| &join.relation).chain([&*relation]).filter_map(implicit_alias);
        if aliases.into_iter().any(|alias| alias == "final") {
            return Err(self.refuse("FINAL"));
        }
        self.relation(relation)?;
        joins.iter_mut().try_for_each(|join| self.join(join))
    }

    pub(super) fn join(&mut self, join: &mut Join) -> Result<()> {
        let Join { relation, global, join_operator } = join;
        self.not("GLOBAL", *global)?;
        self.relation(relation)?;
        match join_operator {
            JoinOperator::Semi(constraint) => {
                *join_operator = JoinOperator::LeftSemi(std::mem::replace(constraint, JoinConstraint::None));
            }
            JoinOperator::Anti(constraint) => {
                *join_operator = JoinOperator::LeftAnti(std::mem::replace(constraint, JoinConstraint::None));
            }
            _ => {}
        }
        match join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint)
            | JoinOperator::Semi(constraint)
            | JoinOperator::LeftSemi(constraint)
            | JoinOperator::RightSemi(constraint)
            | JoinOperator::Anti(constraint)
            | JoinOperator::LeftAnti(constraint)
            | JoinOperator::RightAnti(constraint) => self.constraint(constraint),
            JoinOperator::CrossJoin(JoinConstraint::None) => Ok(()),
            JoinOperator::CrossJoin(_) => Err(self.wrong("CROSS JOIN takes no ON and no USING").with_hint("use JOIN")),
            JoinOperator::CrossApply => Err(self.refuse("CROSS APPLY").with_hint("use CROSS JOIN LATERAL")),
            JoinOperator::OuterApply => Err(self.refuse("OUTER APPLY").with_hint("use LEFT JOIN LATERAL ... ON true")),
            JoinOperator::AsOf { match_condition: _, constraint: _ } => Err(self.refuse("ASOF JOIN")),
            JoinOperator::StraightJoin(_) => Err(self.refuse("STRAIGHT_JOIN").with_hint("use JOIN")),
            JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
                Err(self.refuse("ARRAY JOIN").with_hint("use CROSS JOIN UNNEST(...)"))
            }
        }
    }

    fn constraint(&mut self, constraint: &mut JoinConstraint) -> Result<()> {
        match constraint {
            JoinConstraint::On(condition) => self.expression(condition),
            JoinConstraint::Using(_) | JoinConstraint::Natural => Ok(()),
            JoinConstraint::None => {
                Err(self.wrong("JOIN needs ON or USING").with_hint("CROSS JOIN joins every row with every other one"))
            }
        }
    }

    fn relation(&mut self, relation: &mut TableFactor) -> Result<()> {
        self.deeper(|walk| walk.relation_parts(relation))
    }

    fn relation_parts(&mut self, relation: &mut TableFactor) -> Result<()> {
        match relation {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                self.seen_name(name);
                if !with_hints.is_empty() {
                    return Err(self
                        .after("WITH")
                        .with_hint("CREATE EXTERNAL TABLE ... OPTIONS (...) gives a file its options"));
                }
                self.ordinality(*with_ordinality)?;
                self.empty("PARTITION", partitions)?;
                if json_path.is_some() {
                    return Err(self.refuse_here("a path behind a table's name"));
                }
                if !index_hints.is_empty() {
                    return Err(self.refuse_here("an index behind a table's name"));
                }
                self.version(name, version)?;
                if let Some(args) = args {
                    self.table_arguments(name, args)?;
                }
                self.sample(sample)?;
                self.alias_of(alias)
            }
            TableFactor::Derived { lateral: _, subquery, alias, sample } => {
                self.query(subquery)?;
                self.sample(sample)?;
                self.alias_of(alias)
            }
            TableFactor::TableFunction { expr: _, alias: _ } => {
                Err(self.refuse("TABLE").with_hint("call it without TABLE(...)"))
            }
            TableFactor::Function { lateral: _, name, args, with_ordinality, alias } => {
                self.seen_name(name);
                self.ordinality(*with_ordinality)?;
                args.iter_mut().try_for_each(|arg| self.positional(name, arg))?;
                self.alias_of(alias)
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset, with_offset_alias, with_ordinality } => {
                self.not("WITH OFFSET", *with_offset || with_offset_alias.is_some())?;
                self.ordinality(*with_ordinality)?;
                self.expressions(array_exprs)?;
                self.alias_of(alias)
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.tables(table_with_joins)?;
                self.alias_of(alias)
            }
            TableFactor::JsonTable { json_expr: _, json_path: _, columns: _, alias: _ } => {
                Err(self.refuse("JSON_TABLE"))
            }
            TableFactor::OpenJsonTable { json_expr: _, json_path: _, columns: _, alias: _ } => {
                Err(self.refuse("OPENJSON"))
            }
            TableFactor::Pivot {
                table: _,
                aggregate_functions: _,
                value_column: _,
                value_source: _,
                default_on_null: _,
                alias: _,
            } => Err(self.refuse("PIVOT").with_hint("sum(...) FILTER (WHERE ...) for each column")),
            TableFactor::Unpivot { table: _, value: _, name: _, columns: _, null_inclusion: _, alias: _ } => {
                Err(self.refuse("UNPIVOT").with_hint("UNION ALL of one SELECT for each column"))
            }
            TableFactor::MatchRecognize {
                table: _,
                partition_by: _,
                order_by: _,
                measures: _,
                rows_per_match: _,
                after_match_skip: _,
                pattern: _,
                symbols: _,
                alias: _,
            } => Err(self.refuse("MATCH_RECOGNIZE")),
            TableFactor::XmlTable { namespaces: _, row_expression: _, passing: _, columns: _, alias: _ } => {
                Err(self.refuse("XMLTABLE"))
            }
            TableFactor::SemanticView { name: _, dimensions: _, metrics: _, facts: _, where_clause: _, alias: _ } => {
                Err(self.refuse("SEMANTIC_VIEW"))
            }
        }
    }

    fn ordinality(&self, given: bool) -> Result<()> {
        self.not("WITH ORDINALITY", given)
    }

    /// Read before the walk where it can be; what is left of it here is not read by anything.
    fn version(&self, name: &ObjectName, version: &Option<TableVersion>) -> Result<()> {
        let clause = match version {
            None => return Ok(()),
            Some(TableVersion::ForSystemTimeAsOf(_)) => "FOR SYSTEM_TIME AS OF",
            Some(TableVersion::TimestampAsOf(_)) => "TIMESTAMP AS OF",
            Some(TableVersion::VersionAsOf(_)) => "VERSION AS OF",
            Some(TableVersion::Function(_)) => return Err(self.refuse("AT").with_hint("TIMESTAMP AS OF '2026-01-31'")),
            Some(TableVersion::Changes { changes: _, at: _, end: _ }) => return Err(self.refuse("CHANGES")),
        };
        Err(Error::invalid(format!("{clause}: `{name}` is no Delta table, and other tables have no versions"))
            .at_offset(self.place_of(clause)))
    }

    fn sample(&mut self, sample: &mut Option<TableSampleKind>) -> Result<()> {
        match sample {
            None => Ok(()),
            Some(TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) => {
                crate::syntax::sample::check(sample).map_err(|error| error.at_offset(self.sample_place()))
            }
        }
    }

    fn sample_place(&self) -> usize {
        let place = self.place_of("TABLESAMPLE");
        if self.text[place..].to_uppercase().starts_with("TABLESAMPLE") { place } else { self.place_of("SAMPLE") }
    }

    fn table_arguments(&mut self, name: &ObjectName, args: &mut TableFunctionArgs) -> Result<()> {
        let TableFunctionArgs { args, settings } = args;
        self.none("SETTINGS", settings)?;
        args.iter_mut().try_for_each(|arg| self.positional(name, arg))
    }

    /// Names of arguments are dropped where a table comes from a function.
    fn positional(&mut self, function: &ObjectName, arg: &mut FunctionArg) -> Result<()> {
        match arg {
            FunctionArg::Unnamed(arg) => self.argument(arg),
            FunctionArg::Named { name, arg: _, operator: _ } => {
                let message = format!("{function}: arguments have no names here, and `{name}` is one");
                Err(self.wrong(message).with_hint("give the arguments in their order"))
            }
            FunctionArg::ExprNamed { name, arg: _, operator: _ } => {
                let message = format!("{function}: arguments have no names here, and `{name}` is one");
                Err(self.wrong(message).with_hint("give the arguments in their order"))
            }
        }
    }

    fn alias_of(&mut self, alias: &Option<TableAlias>) -> Result<()> {
        alias.as_ref().map_or(Ok(()), |alias| self.alias(alias))
    }

    pub(super) fn alias(&mut self, alias: &TableAlias) -> Result<()> {
        let TableAlias { explicit: _, name, columns, at } = alias;
        self.seen_ident(name);
        self.none("AT", at)?;
        for TableAliasColumnDef { name, data_type } in columns {
            self.seen_ident(name);
            if data_type.is_some() {
                return Err(self
                    .refuse_here("a type behind a column's name in an alias")
                    .with_hint("use CAST in the query"));
            }
        }
        Ok(())
    }

    /// Refuses a clause that stands behind what has been seen last.
    fn after(&mut self, clause: &str) -> Error {
        let from = std::mem::replace(&mut self.from, self.at);
        let error = self.refuse(clause);
        self.from = from;
        error
    }

    pub(super) fn expressions(&mut self, exprs: &mut [Expr]) -> Result<()> {
        exprs.iter_mut().try_for_each(|expr| self.expression(expr))
    }
}

/// The alias of a table that is given without AS, lower case.
fn implicit_alias(relation: &TableFactor) -> Option<String> {
    let alias = match relation {
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } | TableFactor::Function { alias, .. } => {
            alias
        }
        _ => return None,
    };
    let alias = alias.as_ref().filter(|alias| !alias.explicit && alias.name.quote_style.is_none())?;
    Some(alias.name.value.to_lowercase())
}
