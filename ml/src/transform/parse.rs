//! Reads the select list of a TRANSFORM clause.
//!
//! Expressions are walked from the inside out: each analytic `ML.*` call becomes a step to be fitted and is replaced by
//! the column it makes; what is left around it is a stateless expression. So `ML.STANDARD_SCALER(ln(1 + ML.IMPUTER(x,
//! 'mean') OVER ())) OVER ()` is three steps.

use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, SelectItem, Value,
    VisitMut, VisitorMut, WildcardAdditionalOptions, WindowType,
};
use engine::expression::{self, Listed};
use engine::{Error, Result};

use super::automatic::{CATEGORIES_MAX, CategoryEncoding};
use super::planning;
use super::spec::{FeatureKind, LabelColumn, TransformSpec};
use super::steps::{Defaults, Steps};
use crate::function::{self, Kind, constants};

/// What a select list of TRANSFORM is read against.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Columns of the training query.
    pub columns: &'a Schema,
    /// The table that a column comes from, by which it may be called: one for each column, or none at all.
    pub tables: &'a [Option<TableReference>],
    /// The column that decides the split: no feature, but for what is made of it under another name.
    pub split_column: Option<&'a str>,
    /// Categories of a column that get an input of their own where nothing is said, at most.
    pub categories_max: usize,
    /// Whether numbers that no function has scaled are standardised.
    pub standardise: bool,
}

impl TransformSpec {
    /// Reads `select_list`, the text between the parentheses of TRANSFORM, against the training query's `schema`.
    ///
    /// # Errors
    /// As [`TransformSpec::of_list`], and text that is no select list.
    pub fn parse(select_list: &str, schema: &Schema, labels: &[String]) -> Result<TransformSpec> {
        let list = expression::select_list(select_list).map_err(of_the_clause)?;
        TransformSpec::of_list(
            &list,
            Source {
                columns: schema,
                tables: &[],
                split_column: None,
                categories_max: CATEGORIES_MAX,
                standardise: false,
            },
            labels,
        )
    }

    /// Reads the select list of TRANSFORM.
    ///
    /// An item named as one of `labels` is that label; every label must be there. All other items are features: numbers
    /// are taken as they are (NULL becomes the mean of the training rows), or, with `standardise`, in units of their standard
    /// deviation where no function has scaled them; strings and booleans are one-hot encoded,
    /// dates and timestamps expanded, the result of `ML.HASH_BUCKETIZE` is a category.
    ///
    /// # Errors
    /// Whatever is wrong with an item, at its place and with the near name: unknown columns and functions, wrong arguments,
    /// an analytic function without its `OVER ()`, two items of one name, a label that is missing or depends on fitted
    /// statistics.
    pub fn of_list(list: &[Listed], source: Source<'_>, labels: &[String]) -> Result<TransformSpec> {
        let steps = Steps::new(source.columns);
        let mut reading =
            Reading { source, labels, steps, label_columns: Vec::new(), label_places: Vec::new(), place: 0 };
        for Listed { item, offset } in list {
            reading.place = *offset;
            reading.item(item.clone()).map_err(|error| invalid(error).at_offset(*offset))?;
        }
        let Reading { steps, label_columns, label_places, .. } = reading;
        if let Some(missing) = labels.iter().find(|label| label_columns.iter().all(|known| known.name != **label)) {
            return Err(Error::invalid(format!("TRANSFORM: the label `{missing}` is not in the list"))
                .with_hint(format!("the label stays in the select list: TRANSFORM ({}, ...)", missing)));
        }
        let spec = steps.finish(label_columns)?;
        for (label, place) in spec.labels.iter().zip(label_places) {
            spec.label(&label.name).map_err(|error| error.at_offset(place))?;
        }
        Ok(spec)
    }
}

/// What is wrong with the list as a whole.
pub(crate) fn of_the_clause(error: Error) -> Error {
    match error {
        Error::Invalid { message, offset, hint } => {
            Error::Invalid { message: format!("TRANSFORM: {message}"), offset, hint }
        }
        other => other,
    }
}

/// An error of planning is the user's, who can be shown the place.
fn invalid(error: Error) -> Error {
    match error {
        Error::Query(error) => Error::invalid(format!("TRANSFORM: {}", planning::plain(&error))),
        other => other,
    }
}

/// A list that is being read.
struct Reading<'a> {
    source: Source<'a>,
    labels: &'a [String],
    steps: Steps,
    label_columns: Vec<LabelColumn>,
    /// Where the items of the labels begin.
    label_places: Vec<usize>,
    /// Where the item that is being read begins.
    place: usize,
}

impl Reading<'_> {
    fn item(&mut self, item: SelectItem) -> Result<()> {
        match item {
            SelectItem::ExprWithAlias { expr, alias } => {
                let expr = self.named(expr);
                self.add(folded(&alias), expr)
            }
            SelectItem::UnnamedExpr(expr) => {
                let expr = self.named(expr);
                self.add(name_of(&expr), expr)
            }
            SelectItem::Wildcard(options) => {
                let left_out = left_out(&options, self.source.columns)?;
                for field in self.source.columns.fields().iter().filter(|field| !left_out.contains(field.name())) {
                    self.add(field.name().clone(), own_column(field.name()))?;
                }
                Ok(())
            }
            other => Err(Error::invalid(format!("TRANSFORM: `{other}` is not understood here"))),
        }
    }

    /// The expression with every column under its own name.
    fn named(&self, mut expr: Expr) -> Expr {
        let _ = VisitMut::visit(&mut expr, &mut OwnNames(self.source));
        expr
    }

    fn add(&mut self, name: String, expr: Expr) -> Result<()> {
        if self.source.split_column == Some(name.as_str()) {
            if matches!(&expr, Expr::Identifier(ident) if folded(ident) == name) {
                return Ok(());
            }
            return Err(Error::invalid(format!("TRANSFORM: `{name}` is DATA_SPLIT_COL, which is no feature"))
                .with_hint("give what is made of it another name with AS"));
        }
        let label = self.labels.iter().find(|label| label.eq_ignore_ascii_case(&name));
        let buckets = hash_buckets(&expr)?;
        let column = column_of(expr, &mut self.steps)?;
        if let Some(name) = label {
            if self.label_columns.iter().any(|label| label.name == *name) {
                return Err(Error::invalid(format!("TRANSFORM: the label `{name}` is listed twice")));
            }
            self.label_places.push(self.place);
            self.label_columns.push(LabelColumn { name: name.clone(), column });
            return Ok(());
        }
        match buckets {
            Some(width) => self.steps.add_feature(&name, &column, FeatureKind::Buckets { width }),
            None => {
                // In a TRANSFORM clause numbers stay as they are written.
                let categories_max = self.source.categories_max;
                let defaults = Defaults {
                    standardise: self.source.standardise,
                    categories: CategoryEncoding::OneHot,
                    categories_max,
                };
                self.steps.feature(&name, &column, defaults)
            }
        }
    }
}

/// Finds columns by their tables' names and whatever the case of their letters, as a SELECT does.
struct OwnNames<'a>(Source<'a>);

impl VisitorMut for OwnNames<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => {
                if let Some(name) = self.column(ident) {
                    *expr = own_column(name);
                }
            }
            Expr::CompoundIdentifier(parts) => {
                let Some((at, name)) = (1..parts.len()).find_map(|at| Some((at, self.of_table(parts, at)?))) else {
                    return ControlFlow::Continue(());
                };
                parts.drain(..at);
                parts[0] = Ident::with_quote('"', name);
                if parts.len() == 1 {
                    *expr = own_column(name);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl<'a> OwnNames<'a> {
    /// The column's own name, where it is not what SQL makes of the word.
    fn column(&self, ident: &Ident) -> Option<&'a str> {
        let (name, columns) = (folded(ident), self.0.columns);
        if ident.quote_style.is_some() || columns.index_of(&name).is_ok() {
            return None;
        }
        let mut alike = columns.fields().iter().filter(|field| field.name().to_lowercase() == name);
        alike.next().filter(|_| alike.next().is_none()).map(|field| field.name().as_str())
    }

    /// The column that `parts[at]` is, when the parts before it are its table's name.
    fn of_table(&self, parts: &[Ident], at: usize) -> Option<&'a str> {
        let table: Vec<String> = parts[..at].iter().map(folded).collect();
        let wanted = self.column(&parts[at]).map_or_else(|| folded(&parts[at]), str::to_owned);
        let columns = self.0.columns.fields().iter().zip(self.0.tables);
        let of_it = |of: &Option<TableReference>| of.as_ref().is_some_and(|of| of.to_vec().ends_with(&table));
        columns
            .into_iter()
            .find(|(field, of)| *field.name() == wanted && of_it(of))
            .map(|(field, _)| field.name().as_str())
    }
}

fn own_column(name: &str) -> Expr {
    Expr::Identifier(Ident::with_quote('"', name))
}

fn left_out(options: &WildcardAdditionalOptions, schema: &Schema) -> Result<Vec<String>> {
    use datafusion::sql::sqlparser::ast::ExcludeSelectItem;
    if options.opt_ilike.is_some() || options.opt_replace.is_some() || options.opt_rename.is_some() {
        return Err(Error::invalid("TRANSFORM: of the forms of `*` only `*` and `* EXCEPT (columns)` are understood"));
    }
    let mut names = Vec::new();
    if let Some(except) = &options.opt_except {
        names.push(folded(&except.first_element));
        names.extend(except.additional_elements.iter().map(folded));
    }
    let excluded = |name: &ObjectName| name.0.last().and_then(ObjectNamePart::as_ident).map(folded);
    match &options.opt_exclude {
        Some(ExcludeSelectItem::Single(name)) => names.extend(excluded(name)),
        Some(ExcludeSelectItem::Multiple(list)) => names.extend(list.iter().filter_map(excluded)),
        None => {}
    }
    for name in &names {
        if schema.index_of(name).is_err() {
            return Err(planning::unknown_column(name, schema));
        }
    }
    Ok(names)
}

/// An identifier as SQL reads it: lower case without quotes.
fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The name of an item without AS: a column's own, else its text.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => folded(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded).unwrap_or_default(),
        Expr::Nested(inner) => name_of(inner),
        other => other.to_string(),
    }
}

/// The column that holds the value of `expr`, after adding the steps that make it.
fn column_of(mut expr: Expr, steps: &mut Steps) -> Result<String> {
    let mut visitor = Visitor { steps };
    if let ControlFlow::Break(error) = VisitMut::visit(&mut expr, &mut visitor) {
        return Err(*error);
    }
    sql_column(&expr, steps)
}

fn sql_column(expr: &Expr, steps: &mut Steps) -> Result<String> {
    if let Expr::Identifier(ident) = expr {
        let name = folded(ident);
        steps.type_of(&name)?;
        return Ok(name);
    }
    if let Expr::Nested(inner) = expr {
        return sql_column(inner, steps);
    }
    steps.sql(&expr.to_string())
}

struct Visitor<'a> {
    steps: &'a mut Steps,
}

impl VisitorMut for Visitor<'_> {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut datafusion::sql::sqlparser::ast::Query) -> ControlFlow<Self::Break> {
        ControlFlow::Break(Box::new(
            Error::invalid(format!("TRANSFORM: a feature must depend on its row alone, not on a query: `{query}`"))
                .with_hint("join in the training query instead"),
        ))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match self.rewrite(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

impl Visitor<'_> {
    fn rewrite(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::CompoundFieldAccess { .. } => {
                engine::script::field_access::resolve(expr);
                Ok(())
            }
            // STRUCT(a, b): fields are named as their columns, as BigQuery does.
            Expr::Struct { values, fields } if fields.is_empty() => {
                for value in values.iter_mut() {
                    if let Expr::Identifier(ident) = value {
                        let name = Ident::with_quote('"', self.steps.describe(&folded(ident)));
                        *value = Expr::Named { expr: Box::new(value.clone()), name };
                    }
                }
                if values.iter().any(|value| matches!(value, Expr::Named { .. })) {
                    for (i, value) in values.iter_mut().enumerate() {
                        if !matches!(value, Expr::Named { .. }) {
                            let name = Ident::with_quote('"', format!("c{i}"));
                            *value = Expr::Named { expr: Box::new(value.clone()), name };
                        }
                    }
                }
                Ok(())
            }
            Expr::Function(call) => {
                let Some(name) = ml_name(&call.name) else {
                    return match &call.over {
                        Some(_) => {
                            Err(Error::invalid(format!("TRANSFORM: {}(...) OVER is not understood here", call.name))
                                .with_hint(
                                    "statistics over the training rows come from ML.* functions with an empty OVER ()",
                                ))
                        }
                        None => Ok(()),
                    };
                };
                let usage = function::named(&name)?;
                match usage.kind {
                    Kind::Scalar => {
                        if call.over.is_some() {
                            return Err(Error::invalid(format!(
                                "{} is computed row by row: remove OVER ()",
                                usage.name
                            )));
                        }
                        literals(usage, &mut call.args)?;
                        // The planner looks functions up by the text of their name.
                        call.name = ObjectName(vec![
                            ObjectNamePart::Identifier(Ident::new("ML")),
                            ObjectNamePart::Identifier(Ident::new(name)),
                        ]);
                        Ok(())
                    }
                    Kind::Analytic => {
                        check_over(usage, call.over.as_ref())?;
                        let mut arguments = arguments(usage, &call.args)?.into_iter();
                        let Some(input) = arguments.next() else { return Err(usage.wrong("it needs an argument")) };
                        let constants = arguments.map(constants::value).collect::<Result<Vec<_>>>()?;
                        let function = usage.fit_function(&constants)?;
                        let input = sql_column(input, self.steps)?;
                        let column = self.steps.fit(function, &input)?;
                        *expr = Expr::Identifier(Ident::with_quote('"', column));
                        Ok(())
                    }
                    Kind::Relation => {
                        Err(Error::invalid(format!("{} gives a table: it stands after FROM", usage.name)))
                    }
                }
            }
            _ => Ok(()),
        }
    }
}

/// The name after `ML.`, upper case.
fn ml_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ml, function] => {
            let (ml, function) = (ml.as_ident()?, function.as_ident()?);
            ml.value.eq_ignore_ascii_case("ml").then(|| function.value.to_uppercase())
        }
        _ => None,
    }
}

fn check_over(usage: &function::Usage, over: Option<&WindowType>) -> Result<()> {
    match over {
        Some(WindowType::WindowSpec(spec))
            if spec.partition_by.is_empty()
                && spec.order_by.is_empty()
                && spec.window_frame.is_none()
                && spec.window_name.is_none() =>
        {
            Ok(())
        }
        Some(_) => Err(usage.wrong("its OVER () must be empty: the statistics are those of all training rows")),
        None => Err(usage.wrong("OVER () is missing: its statistics are fitted on the training rows")),
    }
}

fn arguments<'a>(usage: &function::Usage, arguments: &'a FunctionArguments) -> Result<Vec<&'a Expr>> {
    let FunctionArguments::List(list) = arguments else { return Err(usage.wrong("it needs an argument")) };
    let mut exprs = Vec::new();
    for argument in &list.args {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => exprs.push(expr),
            other => return Err(usage.wrong(&format!("`{other}` is not understood as an argument"))),
        }
    }
    Ok(exprs)
}

/// Checks that all arguments but the first are constants, and writes plain numbers as such: a bound parameter comes as
/// a CAST, from which the planner could not tell the type of the result.
fn literals(usage: &function::Usage, arguments: &mut FunctionArguments) -> Result<()> {
    let FunctionArguments::List(list) = arguments else { return Err(usage.wrong("it needs an argument")) };
    for argument in list.args.iter_mut().skip(1) {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument
            && let Some(number) = constants::integer(&constants::value(expr)?)
        {
            *expr = Expr::value(Value::Number(number.to_string(), false));
        }
    }
    Ok(())
}

/// The number of buckets when the whole item is a call of ML.HASH_BUCKETIZE.
fn hash_buckets(expr: &Expr) -> Result<Option<u32>> {
    let Expr::Function(call) = expr else { return Ok(None) };
    if ml_name(&call.name).as_deref() != Some("HASH_BUCKETIZE") {
        return Ok(None);
    }
    let usage = function::named("HASH_BUCKETIZE")?;
    let arguments = arguments(usage, &call.args)?;
    let [_, size] = arguments.as_slice() else { return Err(usage.wrong("expected 2 arguments")) };
    match constants::integer(&constants::value(size)?) {
        Some(size @ 1..=1_000_000) => Ok(Some(size as u32)),
        _ => {
            Err(usage
                .wrong(&format!("as a feature the number of buckets is a constant from 1 to 1,000,000, got {size}")))
        }
    }
}
