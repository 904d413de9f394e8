//! Expressions. What the planner does not know is refused here in the user's words; what it reads as something else is
//! rewritten into what it reads rightly.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Array, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DateTimeField, DictionaryField,
    Expr, Interval, JsonPath, JsonPathElem, LambdaFunction, Map, MapEntry, MemberOf, Subscript, TypedString,
    UnaryOperator, Value, ValueWithSpan,
};

use super::Clauses;
use crate::error::Result;
use crate::syntax::{escapes, numbers, precedence, similar};

impl Clauses<'_> {
    pub(super) fn expression(&mut self, expr: &mut Expr) -> Result<()> {
        let around = self.in_boolean;
        if precedence::is_boolean(expr) {
            if !around {
                precedence::settle(expr);
            }
            self.in_boolean = precedence::is_boolean(expr);
        } else {
            self.in_boolean = false;
        }
        let walked = self.deeper(|walk| walk.parts(expr));
        self.in_boolean = around;
        walked
    }

    /// Sums and conditions of thousands of terms grow to the left: they are walked in a loop.
    fn parts(&mut self, expr: &mut Expr) -> Result<()> {
        let mut expr = expr;
        let mut rights = Vec::new();
        while let Expr::BinaryOp { left, op: _, right } = expr {
            rights.push(right);
            expr = left;
            if matches!(expr, Expr::BinaryOp { .. }) {
                continue;
            }
            self.expression(expr)?;
            while let Some(right) = rights.pop() {
                self.expression(right)?;
            }
            return Ok(());
        }
        self.part(expr)
    }

    fn part(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Identifier(ident) => {
                self.seen_ident(ident);
                Ok(())
            }
            Expr::CompoundIdentifier(idents) => {
                idents.first().into_iter().for_each(|ident| self.seen_ident(ident));
                Ok(())
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expression(root)?;
                access_chain.iter_mut().try_for_each(|access| self.access(access))
            }
            Expr::JsonAccess { value, path: JsonPath { path } } => {
                self.expression(value)?;
                path.iter_mut().try_for_each(|element| match element {
                    JsonPathElem::Dot { key: _, quoted: _ } => Ok(()),
                    JsonPathElem::Bracket { key } | JsonPathElem::ColonBracket { key } => self.expression(key),
                })
            }
            Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::Nested(inner)
            | Expr::Named { expr: inner, name: _ } => self.expression(inner),
            Expr::UnaryOp { op: _, expr: inner } => self.expression(inner),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => self.pair(left, right),
            Expr::BinaryOp { left, op: _, right } => self.pair(left, right),
            Expr::InList { expr: inner, list, negated: _ } => {
                self.expression(inner)?;
                self.expressions(list)
            }
            Expr::InSubquery { expr: inner, subquery, negated: _ } => {
                self.expression(inner)?;
                self.query(subquery)
            }
            Expr::Exists { subquery, negated: _ } | Expr::Subquery(subquery) => self.query(subquery),
            Expr::Between { expr: inner, negated: _, low, high } => {
                self.expression(inner)?;
                self.pair(low, high)
            }
            Expr::Like { negated: _, any, expr: inner, pattern, escape_char }
            | Expr::ILike { negated: _, any, expr: inner, pattern, escape_char } => {
                self.pair(inner, pattern)?;
                escapes::settle(pattern, escape_char).map_err(|error| self.placed(error))?;
                if *any { Err(self.refuse_here("LIKE ANY").with_hint("join the patterns with OR")) } else { Ok(()) }
            }
            Expr::SimilarTo { negated: _, expr: inner, pattern, escape_char: _ } => {
                self.pair(inner, pattern)?;
                similar::rewrite(expr).map_err(|error| self.placed(error))
            }
            Expr::RLike { negated, expr: inner, pattern, regexp: _ } => {
                self.pair(inner, pattern)?;
                let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
                *expr = Expr::BinaryOp { left: taken(inner), op, right: taken(pattern) };
                Ok(())
            }
            Expr::AnyOp { left, compare_op, right, is_some: _ } => {
                self.pair(left, right)?;
                if let Some(rewritten) = any_of(left, compare_op, right) {
                    *expr = rewritten;
                }
                Ok(())
            }
            Expr::AllOp { left, compare_op: _, right } => self.pair(left, right),
            Expr::Cast { kind, expr: inner, data_type, array, format } => {
                self.expression(inner)?;
                if let (Expr::Value(value), DataType::Array(_) | DataType::Map(_, _) | DataType::Struct(_, _)) =
                    (inner.as_ref(), data_type)
                    && matches!(value.value, Value::SingleQuotedString(_))
                {
                    self.seen(value.span);
                    let error = self.wrong("a text cannot be cast to a list, a map or a struct");
                    return Err(error.with_hint("[a, b] makes a list, string_to_array('a,b', ',') cuts a text"));
                }
                match kind {
                    CastKind::Cast | CastKind::TryCast | CastKind::SafeCast | CastKind::DoubleColon => {}
                }
                self.not("ARRAY", *array)?;
                self.none("FORMAT", format)
            }
            Expr::AtTimeZone { timestamp, time_zone } => self.pair(timestamp, time_zone),
            Expr::Extract { field: _, syntax: _, expr: inner } => self.expression(inner),
            Expr::Ceil { expr: inner, field } | Expr::Floor { expr: inner, field } => {
                self.expression(inner)?;
                match field {
                    CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => Ok(()),
                    CeilFloorKind::DateTimeField(_) => {
                        Err(self.refuse_here("ceil and floor TO a unit of time").with_hint("use date_trunc"))
                    }
                    CeilFloorKind::Scale(_) => {
                        Err(self.refuse_here("ceil and floor to a number of digits").with_hint("use round"))
                    }
                }
            }
            Expr::Position { expr: inner, r#in } => self.pair(inner, r#in),
            Expr::Substring { expr: inner, substring_from, substring_for, special: _, shorthand: _ } => {
                self.expression(inner)?;
                self.each([substring_from, substring_for])
            }
            Expr::Trim { trim_where: _, trim_what, expr: inner, trim_characters } => {
                self.expression(inner)?;
                self.each([trim_what])?;
                trim_characters.as_mut().map_or(Ok(()), |characters| self.expressions(characters))
            }
            Expr::Overlay { expr: inner, overlay_what, overlay_from, overlay_for } => {
                self.expression(inner)?;
                self.pair(overlay_what, overlay_from)?;
                self.each([overlay_for])
            }
            Expr::Value(value) => {
                self.seen(value.span);
                if let Some(double) = numbers::double(value) {
                    *expr = double;
                }
                Ok(())
            }
            Expr::TypedString(TypedString { data_type: _, value, uses_odbc_syntax: _ }) => {
                self.seen(value.span);
                Ok(())
            }
            Expr::Function(function) => self.function(function),
            Expr::Case { case_token, end_token: _, operand, conditions, else_result } => {
                self.seen(case_token.0.span);
                self.each([operand])?;
                for CaseWhen { condition, result } in conditions {
                    self.expression(condition)?;
                    self.expression(result)?;
                }
                self.each([else_result])
            }
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                sets.iter_mut().try_for_each(|set| self.expressions(set))
            }
            Expr::Tuple(values) => self.expressions(values),
            Expr::Struct { values, fields } => {
                self.expressions(values)?;
                if fields.is_empty() {
                    Ok(())
                } else {
                    Err(self.refuse_here("STRUCT<...>(...)").with_hint("STRUCT(value AS name, ...)"))
                }
            }
            Expr::Dictionary(fields) => {
                fields.iter_mut().try_for_each(|DictionaryField { key: _, value }| self.expression(value))
            }
            Expr::Map(Map { entries }) => {
                entries.iter_mut().try_for_each(|MapEntry { key, value }| self.pair(key, value))
            }
            Expr::Array(Array { elem, named: _ }) => self.expressions(elem),
            Expr::Interval(interval) => self.interval(interval),
            Expr::Lambda(LambdaFunction { params: _, body, syntax: _ }) => self.expression(body),
            Expr::Wildcard(token) | Expr::QualifiedWildcard(_, token) => {
                self.seen(token.0.span);
                Ok(())
            }
            Expr::InUnnest { expr: inner, array_expr, negated } => {
                self.pair(inner, array_expr)?;
                let op = if *negated { BinaryOperator::NotEq } else { BinaryOperator::Eq };
                *expr = match negated {
                    true => Expr::AllOp { left: taken(inner), compare_op: op, right: taken(array_expr) },
                    false => not_all(taken(inner), BinaryOperator::NotEq, taken(array_expr)),
                };
                Ok(())
            }
            Expr::IsNormalized { expr: _, form: _, negated: _ } => Err(self.refuse("IS NORMALIZED")),
            Expr::Convert { is_try: _, expr: _, data_type: _, charset: _, target_before_value: _, styles: _ } => {
                Err(self.refuse("CONVERT").with_hint("use CAST(value AS type)"))
            }
            Expr::Collate { expr: _, collation: _ } => Err(self.refuse("COLLATE")),
            Expr::Prefixed { prefix, value: _ } => {
                self.seen_ident(prefix);
                Err(self.refuse_here(&format!("a literal with the prefix {prefix}")))
            }
            Expr::MatchAgainst { columns: _, match_value: _, opt_search_modifier: _ } => Err(self.refuse("MATCH")),
            Expr::OuterJoin(_) => Err(self.refuse_here("(+) for an outer join").with_hint("use LEFT JOIN")),
            Expr::Prior(_) => Err(self.refuse("PRIOR").with_hint("WITH RECURSIVE does this")),
            Expr::MemberOf(MemberOf { value: _, array: _ }) => {
                Err(self.refuse("MEMBER OF").with_hint("use = ANY(array)"))
            }
        }
    }

    fn pair(&mut self, left: &mut Expr, right: &mut Expr) -> Result<()> {
        self.expression(left)?;
        self.expression(right)
    }

    fn each<const N: usize>(&mut self, exprs: [&mut Option<Box<Expr>>; N]) -> Result<()> {
        exprs.into_iter().flatten().try_for_each(|expr| self.expression(expr))
    }

    fn access(&mut self, access: &mut AccessExpr) -> Result<()> {
        match access {
            AccessExpr::Dot(field) => self.expression(field),
            AccessExpr::Subscript(Subscript::Index { index }) => self.expression(index),
            AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) => {
                [lower_bound, upper_bound, stride].into_iter().flatten().try_for_each(|bound| self.expression(bound))
            }
        }
    }

    fn interval(&mut self, interval: &mut Interval) -> Result<()> {
        let Interval { value, leading_field, leading_precision, last_field, fractional_seconds_precision } = interval;
        self.expression(value)?;
        if leading_precision.is_some() || fractional_seconds_precision.is_some() {
            return Err(self.refuse_here("a precision behind the unit of an INTERVAL"));
        }
        if last_field.is_some() {
            return Err(self
                .refuse_here("INTERVAL ... TO ...")
                .with_hint("INTERVAL '1 day 2 hours' has several units"));
        }
        if leading_field.is_none()
            && matches!(value.as_ref(), Expr::Value(ValueWithSpan { value: Value::Number(..), .. }))
        {
            return Err(self
                .wrong(format!("INTERVAL {value} has no unit that is known"))
                .with_hint("as in INTERVAL 3 DAY or INTERVAL '3 decades'"));
        }
        Ok(())
    }
}

/// `a = ANY(b)` is `NOT a <> ALL(b)`, whose NULLs the planner knows: an array with a NULL that does not hold `a` gives NULL.
fn any_of(left: &mut Box<Expr>, op: &BinaryOperator, right: &mut Box<Expr>) -> Option<Expr> {
    let mut inner = right.as_mut();
    while let Expr::Nested(nested) = inner {
        inner = nested.as_mut();
    }
    if matches!(inner, Expr::Subquery(_)) {
        return None;
    }
    if let (BinaryOperator::Eq, Expr::Array(Array { elem, named: _ })) = (op, &mut *inner)
        && !elem.is_empty()
    {
        return Some(Expr::InList { expr: taken(left), list: std::mem::take(elem), negated: false });
    }
    let opposite = match op {
        BinaryOperator::Eq => BinaryOperator::NotEq,
        BinaryOperator::NotEq => BinaryOperator::Eq,
        BinaryOperator::Gt => BinaryOperator::LtEq,
        BinaryOperator::Lt => BinaryOperator::GtEq,
        BinaryOperator::GtEq => BinaryOperator::Lt,
        BinaryOperator::LtEq => BinaryOperator::Gt,
        _ => return None,
    };
    Some(not_all(taken(left), opposite, taken(right)))
}

fn not_all(left: Box<Expr>, compare_op: BinaryOperator, right: Box<Expr>) -> Expr {
    let all = Expr::Nested(Box::new(Expr::AllOp { left, compare_op, right }));
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(all) }
}

fn taken(expr: &mut Box<Expr>) -> Box<Expr> {
    std::mem::replace(expr, Box::new(Expr::value(Value::Null)))
}
