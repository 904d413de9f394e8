//! Joins with USING, and natural ones, prepared for [`crate::analysis`], which plans them: each such join becomes a relation
//! of its own, in parentheses, with what it must know of the rest of the statement: which of its columns are asked for by
//! the name of one side (`a.k`, `a.*`). All others have one column for both sides, whose name alone is enough.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};

/// Stands first in the list of USING of a join that is prepared; and what stands there when the join is a natural one.
pub(crate) const PREPARED: &str = " prepared";
pub(crate) const NATURAL: &str = " natural";
/// The qualifier of merged columns where columns of one side are asked for, too: no user writes it, and it comes before all
/// others, which decides which of several columns `*` keeps.
pub(crate) const MERGED: &str = " using";
/// What stands for all columns of a relation.
pub(crate) const ALL: &str = "*";

/// Prepares the joins of the statement.
pub(crate) fn prepare(statement: &mut SqlStatement) {
    match statement {
        SqlStatement::Statement(statement) => prepare_in(statement.as_mut()),
        SqlStatement::Explain(explain) => prepare(&mut explain.statement),
        _ => {}
    }
}

fn prepare_in(node: &mut (impl Visit + VisitMut)) {
    let mut asked = Asked::default();
    let _ = Visit::visit(node, &mut asked);
    if asked.has_joins {
        let _ = VisitMut::visit(node, &mut Prepare { asked: asked.columns });
    }
}

/// Columns that are asked for by the name of their relation, and whether there are joins that are affected.
#[derive(Default)]
struct Asked {
    columns: BTreeSet<(Ident, Ident)>,
    has_joins: bool,
}

impl Asked {
    fn note(&mut self, names: &[Ident]) {
        let pairs = names.windows(2).map(|pair| (plain(&pair[0]), plain(&pair[1])));
        self.columns.extend(pairs);
    }

    fn note_joins(&mut self, tables: &TableWithJoins) {
        self.has_joins |= tables.joins.iter().any(|join| merged(join).is_some());
    }
}

/// The name as it is compared: two places of a text do not make it two names.
fn plain(name: &Ident) -> Ident {
    Ident { value: name.value.clone(), quote_style: name.quote_style, span: sqlparser_span() }
}

fn sqlparser_span() -> datafusion::sql::sqlparser::tokenizer::Span {
    datafusion::sql::sqlparser::tokenizer::Span::empty()
}

fn idents(name: &ObjectName) -> Vec<Ident> {
    name.0.iter().filter_map(ObjectNamePart::as_ident).cloned().collect()
}

impl Visitor for Asked {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        select.from.iter().for_each(|tables| self.note_joins(tables));
        for item in &select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item {
                let names: Vec<Ident> = idents(name).into_iter().chain([Ident::new(ALL)]).collect();
                self.note(&names);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            self.note_joins(table_with_joins);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::CompoundIdentifier(names) => self.note(names),
            Expr::QualifiedWildcard(name, _) => {
                let names: Vec<Ident> = idents(name).into_iter().chain([Ident::new(ALL)]).collect();
                self.note(&names);
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                let mut names = match root.as_ref() {
                    Expr::Identifier(name) => vec![name.clone()],
                    Expr::CompoundIdentifier(names) => names.clone(),
                    _ => Vec::new(),
                };
                names.extend(access_chain.iter().map_while(|access| match access {
                    AccessExpr::Dot(Expr::Identifier(name)) => Some(name.clone()),
                    _ => None,
                }));
                self.note(&names);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

struct Prepare {
    asked: BTreeSet<(Ident, Ident)>,
}

impl VisitorMut for Prepare {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let keys = self.keys_beside_others(select);
        if let Some(condition) = &mut select.selection {
            let _ = VisitMut::visit(condition, &mut Qualify { keys, depth: 0 });
        }
        select.from.iter_mut().for_each(|tables| self.prepare(tables));
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            self.prepare(table_with_joins);
        }
        ControlFlow::Continue(())
    }
}

impl Prepare {
    /// Keys of the join above all others of a query, beside which columns of one side are asked for: in WHERE the query
    /// engine would not know which of them a bare name means.
    fn keys_beside_others(&self, select: &Select) -> Vec<Ident> {
        let [tables] = select.from.as_slice() else { return Vec::new() };
        match tables.joins.last().and_then(merged) {
            Some(JoinConstraint::Using(keys)) => {
                let keys = keys.iter().flat_map(idents);
                keys.filter(|key| self.asked.iter().any(|(_, column)| is_asked_as(key, column))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// `a JOIN b ON ... JOIN c USING (k) JOIN d ON ...` becomes `((a JOIN b ON ...) JOIN c USING (k)) JOIN d ON ...`.
    fn prepare(&self, tables: &mut TableWithJoins) {
        for join in std::mem::take(&mut tables.joins) {
            let Some(constraint) = merged(&join).map(|constraint| self.with_columns(constraint)) else {
                tables.joins.push(join);
                continue;
            };
            let mut join = join;
            *constraint_of(&mut join.join_operator).expect("the join has a constraint, as asked above") = constraint;
            let left = std::mem::replace(&mut tables.relation, nested(nothing(), Vec::new()));
            let joins = std::mem::take(&mut tables.joins);
            let left = if joins.is_empty() { left } else { nested(left, joins) };
            tables.relation = nested(left, vec![join]);
        }
    }

    fn with_columns(&self, constraint: &JoinConstraint) -> JoinConstraint {
        let mark = |mark: &str| ObjectName::from(vec![Ident::with_quote('"', mark)]);
        let (mark, keys) = match constraint {
            JoinConstraint::Using(keys) => (mark(PREPARED), keys.as_slice()),
            _ => (mark(NATURAL), [].as_slice()),
        };
        let is_asked =
            |column: &Ident| keys.is_empty() || keys.iter().flat_map(idents).any(|key| is_asked_as(&key, column));
        let asked = self.asked.iter().filter(|(_, column)| is_asked(column));
        let asked = asked.map(|(relation, column)| ObjectName::from(vec![relation.clone(), column.clone()]));
        JoinConstraint::Using([mark].into_iter().chain(keys.iter().cloned()).chain(asked).collect())
    }
}

/// Whether the names may mean the same column; one too many costs nothing but a column that nobody asks for.
fn is_asked_as(key: &Ident, column: &Ident) -> bool {
    column.value == ALL || key.value.eq_ignore_ascii_case(&column.value)
}

/// Gives the bare names of keys the qualifier of merged columns; in queries inside they may mean something else.
struct Qualify {
    keys: Vec<Ident>,
    depth: usize,
}

impl VisitorMut for Qualify {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Identifier(name) = expr else { return ControlFlow::Continue(()) };
        let same = |key: &Ident| match (key.quote_style, name.quote_style) {
            (None, None) => key.value.eq_ignore_ascii_case(&name.value),
            _ => key.value == name.value,
        };
        if self.depth == 0 && self.keys.iter().any(same) {
            let qualifier = Ident { value: MERGED.to_string(), quote_style: Some('"'), span: name.span };
            *expr = Expr::CompoundIdentifier(vec![qualifier, name.clone()]);
        }
        ControlFlow::Continue(())
    }
}

/// The constraint of a join that has one column for both sides.
fn merged(join: &Join) -> Option<&JoinConstraint> {
    let constraint = match &join.join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => constraint,
        _ => return None,
    };
    let is_lateral = matches!(
        join.relation,
        TableFactor::Derived { lateral: true, .. }
            | TableFactor::Function { lateral: true, .. }
            | TableFactor::UNNEST { .. }
    );
    let is_merged = match constraint {
        JoinConstraint::Natural => true,
        JoinConstraint::Using(keys) => !keys.is_empty() && keys.iter().all(|key| key.0.len() == 1 && !is_mark(key)),
        _ => false,
    };
    (is_merged && !is_lateral).then_some(constraint)
}

fn is_mark(name: &ObjectName) -> bool {
    idents(name).first().is_some_and(|first| first.value == PREPARED || first.value == NATURAL)
}

fn constraint_of(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

fn nested(relation: TableFactor, joins: Vec<Join>) -> TableFactor {
    TableFactor::NestedJoin { table_with_joins: Box::new(TableWithJoins { relation, joins }), alias: None }
}

/// Stands for a relation that is being moved.
fn nothing() -> TableFactor {
    TableFactor::UNNEST {
        alias: None,
        array_exprs: Vec::new(),
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}
