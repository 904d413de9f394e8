//! Joins with USING, and natural ones, whose keys are one column: the left side's for an inner or a left join, the right
//! side's for a right join, whichever is not NULL for a full join; and first of all columns, in the order of the left side
//! (SQL-92 7.5). The query engine keeps both columns, takes the left one for the key whatever the join is, leaves both where
//! they were, and does not know in WHERE which is meant (DataFusion 55.2). [`crate::syntax::using`] prepares such joins and
//! says which of the two columns are asked for by the name of their side; those that are not go. Where some stay, the merged
//! one has a qualifier of its own, and a [`MergedKeys`] above says that a bare name means it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, Diagnostic, JoinType, NullEquality, SchemaError, Span, TableReference,
};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    EmptyRelation, Expr, Extension, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
    lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{Ident, JoinOperator, ObjectName, ObjectNamePart, TableFactor};

use crate::syntax::using::{ALL, MERGED, NATURAL, PREPARED};

/// Plans the joins that were prepared.
#[derive(Debug)]
pub(super) struct UsingJoins;

impl RelationPlanner for UsingJoins {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(prepared) = Prepared::of(&relation, context) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let TableFactor::NestedJoin { table_with_joins, alias } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let mut tables = *table_with_joins;
        let Some(join) = tables.joins.pop() else { unreachable!("a prepared relation has one join") };
        let left = context.plan(tables.relation)?;
        let right = context.plan(join.relation)?;
        let plan = prepared.plan(left, right)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// What a prepared join says.
struct Prepared {
    kind: JoinType,
    /// `None` when the join is a natural one.
    keys: Option<Vec<(String, Option<Span>)>>,
    /// Relations and their columns that are asked for by both names.
    asked: Vec<(String, String)>,
}

impl Prepared {
    fn of(relation: &TableFactor, context: &dyn RelationPlannerContext) -> Option<Prepared> {
        use datafusion::sql::sqlparser::ast::JoinConstraint::Using;

        let TableFactor::NestedJoin { table_with_joins, .. } = relation else { return None };
        let [join] = table_with_joins.joins.as_slice() else { return None };
        let (kind, names) = match &join.join_operator {
            JoinOperator::Join(Using(names)) | JoinOperator::Inner(Using(names)) => (JoinType::Inner, names),
            JoinOperator::Left(Using(names)) | JoinOperator::LeftOuter(Using(names)) => (JoinType::Left, names),
            JoinOperator::Right(Using(names)) | JoinOperator::RightOuter(Using(names)) => (JoinType::Right, names),
            JoinOperator::FullOuter(Using(names)) => (JoinType::Full, names),
            _ => return None,
        };
        let mut names = names.iter().map(idents);
        let mark = names.next()?;
        let is_natural = match mark.as_slice() {
            [mark] if mark.value == PREPARED => false,
            [mark] if mark.value == NATURAL => true,
            _ => return None,
        };
        let mut keys = Vec::new();
        let mut asked = Vec::new();
        for name in names {
            match name.as_slice() {
                [key] => keys.push((context.normalize_ident((*key).clone()), Span::try_from_sqlparser_span(key.span))),
                [table, column] => {
                    asked.push((context.normalize_ident((*table).clone()), context.normalize_ident((*column).clone())));
                }
                _ => return None,
            }
        }
        Some(Prepared { kind, keys: (!is_natural).then_some(keys), asked })
    }

    fn plan(&self, left: LogicalPlan, right: LogicalPlan) -> Result<LogicalPlan> {
        let (left, right) = told_apart(without_mark(left), without_mark(right))?;
        let keys = self.keys(left.schema(), right.schema())?;
        if keys.is_empty() {
            return LogicalPlanBuilder::from(left).join_on(right, self.kind, [lit(true)])?.build();
        }
        let mut merged = Vec::new();
        let mut dropped = Vec::new();
        for (left, right) in &keys {
            let (column, drops) = self.merged(left, right);
            merged.push(column);
            dropped.extend(drops);
        }
        let rest = left.schema().columns().into_iter().chain(right.schema().columns());
        let is_key = |column: &Column| is_merged(column) && keys.iter().any(|(left, _)| left.name == column.name);
        let rest = rest.filter(|column| !dropped.contains(column) && !is_key(column)).map(Expr::Column);
        let columns: Vec<Expr> = merged.into_iter().chain(rest.collect::<Vec<_>>()).collect();
        let names: Vec<String> = keys.iter().map(|(left, _)| left.name.clone()).collect();
        let keys: (Vec<Column>, Vec<Column>) = keys.into_iter().unzip();
        let nulls = NullEquality::NullEqualsNothing;
        let joined = LogicalPlanBuilder::from(left).join_detailed(right, self.kind, keys, None, nulls)?;
        MergedKeys::above(joined.project(columns)?.build()?, &names)
    }

    /// The columns of both sides that must be equal.
    fn keys(&self, left: &DFSchema, right: &DFSchema) -> Result<Vec<(Column, Column)>> {
        let names = match &self.keys {
            Some(names) => names.clone(),
            None => {
                let mut names: Vec<(String, Option<Span>)> = Vec::new();
                for field in left.fields() {
                    let is_new = names.iter().all(|(name, _)| name != field.name());
                    if is_new && right.fields().iter().any(|other| other.name() == field.name()) {
                        names.push((field.name().clone(), None));
                    }
                }
                names
            }
        };
        let keys = names.iter().map(|(name, span)| Ok((the_one(left, name, *span)?, the_one(right, name, *span)?)));
        keys.collect()
    }

    /// The merged column of two, and which of them it leaves without use. It is one of them itself where no side's own is
    /// asked for.
    fn merged(&self, left: &Column, right: &Column) -> (Expr, Vec<Column>) {
        let both = vec![left.clone(), right.clone()];
        let is_asked = self.asked.iter().any(|(_, name)| name == ALL || *name == left.name);
        let column = if self.kind == JoinType::Right { right } else { left };
        if self.kind != JoinType::Full && !is_asked {
            return (Expr::Column(column.clone()), both);
        }
        let value = match self.kind {
            JoinType::Full => coalesce(vec![Expr::Column(left.clone()), Expr::Column(right.clone())]),
            _ => Expr::Column(column.clone()),
        };
        let unused = both.into_iter().filter(|column| !self.asks(column)).collect();
        (value.alias_qualified(Some(TableReference::bare(MERGED)), left.name.clone()), unused)
    }

    /// Whether a side's own column is asked for.
    fn asks(&self, column: &Column) -> bool {
        let Some(relation) = &column.relation else { return false };
        self.asked.iter().any(|(table, name)| table == relation.table() && (name == ALL || *name == column.name))
    }
}

fn idents(name: &ObjectName) -> Vec<&Ident> {
    name.0.iter().filter_map(ObjectNamePart::as_ident).collect()
}

fn is_merged(column: &Column) -> bool {
    column.relation.as_ref().is_some_and(|relation| relation.table() == MERGED)
}

/// The column that a bare name means.
fn the_one(schema: &DFSchema, name: &str, span: Option<Span>) -> Result<Column> {
    let columns = schema.columns_with_unqualified_name(name);
    let found = match columns.as_slice() {
        [column] => Some(column),
        columns => columns.iter().find(|column| is_merged(column)),
    };
    if let Some(column) = found {
        return Ok(column.clone());
    }
    let field = Box::new(Column::from_name(name));
    let error = match columns.len() {
        0 => SchemaError::FieldNotFound { field, valid_fields: schema.columns() },
        _ => SchemaError::AmbiguousReference { field },
    };
    let error = DataFusionError::SchemaError(Box::new(error), Box::new(None));
    Err(error.with_diagnostic(Diagnostic::new_error(format!("column '{name}' of USING"), span)))
}

/// The sides with qualifiers, where names alone would be the same: a query in parentheses need not have one.
fn told_apart(left: LogicalPlan, right: LogicalPlan) -> Result<(LogicalPlan, LogicalPlan)> {
    let bare = |plan: &LogicalPlan| plan.schema().columns().iter().all(|column| column.relation.is_none());
    let taken = |plan: &LogicalPlan, name: &TableReference| {
        plan.schema().columns().iter().any(|column| column.relation.as_ref() == Some(name))
    };
    let (bare_left, bare_right) = (bare(&left), bare(&right));
    let free = (1..).map(|number| TableReference::bare(format!(" side {number}")));
    let mut free = free.filter(|name| !taken(&left, name) && !taken(&right, name));
    let names = free.next().zip(free.next()).expect("there is no end of names");
    let aliased = |plan, name| LogicalPlanBuilder::from(plan).alias(name)?.build();
    Ok((
        if bare_left { aliased(left, names.0)? } else { left },
        if bare_right { aliased(right, names.1)? } else { right },
    ))
}

/// Says which columns of its input a bare name may mean, of which the first is taken. Its rows are its input's. The query
/// engine looks for joins of columns of one name in a plan; those that stand beside the input here have no rows.
#[derive(Clone)]
struct MergedKeys {
    input: LogicalPlan,
    joins: Vec<LogicalPlan>,
}

impl MergedKeys {
    /// Above `input`, if it has several columns of one of the names.
    fn above(input: LogicalPlan, names: &[String]) -> Result<LogicalPlan> {
        let schema = Arc::clone(input.schema());
        let several = names.iter().map(|name| schema.columns_with_unqualified_name(name));
        let joins: Vec<LogicalPlan> = several
            .filter(|columns| columns.len() > 1)
            .map(|columns| join_of(&schema, &columns))
            .collect::<Result<_>>()?;
        if joins.is_empty() {
            return Ok(input);
        }
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(MergedKeys { input, joins }) }))
    }
}

/// A join of nothing with nothing on all of the columns.
fn join_of(schema: &DFSchema, columns: &[Column]) -> Result<LogicalPlan> {
    let nothing = |columns: &[Column]| {
        let fields = columns.iter().map(|column| {
            let field = Arc::clone(schema.qualified_field_from_column(column)?.1);
            Ok((column.relation.clone(), field))
        });
        let schema = DFSchema::new_with_metadata(fields.collect::<Result<_>>()?, HashMap::new())?;
        let schema = Arc::new(schema);
        Ok::<_, DataFusionError>(Arc::new(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema })))
    };
    let (first, others) = columns.split_at(1);
    let pair = |other: &Column| (Expr::Column(first[0].clone()), Expr::Column(other.clone()));
    Ok(LogicalPlan::Join(Join::try_new(
        nothing(first)?,
        nothing(others)?,
        others.iter().map(pair).collect(),
        None,
        JoinType::Inner,
        JoinConstraint::Using,
        NullEquality::NullEqualsNothing,
        false,
    )?))
}

/// What a bare name meant below a join is settled by the join.
fn without_mark(plan: LogicalPlan) -> LogicalPlan {
    match &plan {
        LogicalPlan::Extension(Extension { node }) => match node.as_any().downcast_ref::<MergedKeys>() {
            Some(mark) => mark.input.clone(),
            None => plan,
        },
        _ => plan,
    }
}

impl fmt::Debug for MergedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_for_explain(f)
    }
}

impl PartialEq for MergedKeys {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.joins == other.joins
    }
}

impl Eq for MergedKeys {}

impl PartialOrd for MergedKeys {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl Hash for MergedKeys {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for MergedKeys {
    fn name(&self) -> &'static str {
        "MergedKeys"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        [&self.input].into_iter().chain(&self.joins).collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MergedKeys")
    }

    fn with_exprs_and_inputs(&self, _expressions: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let joins = inputs.split_off(1);
        let input = inputs.pop().expect("merged keys have an input");
        Ok(MergedKeys { input, joins })
    }
}

/// Once all names are settled, nothing is left of [`MergedKeys`].
#[derive(Debug)]
pub(super) struct MergedKeysResolved;

impl AnalyzerRule for MergedKeysResolved {
    fn name(&self) -> &'static str {
        "merged_keys_resolved"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let input = match &node {
                LogicalPlan::Extension(Extension { node }) => {
                    node.as_any().downcast_ref::<MergedKeys>().map(|keys| keys.input.clone())
                }
                _ => None,
            };
            Ok(input.map_or_else(|| Transformed::no(node), Transformed::yes))
        })
        .data()
    }
}
