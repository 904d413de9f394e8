//! Values and the keys that order them, batch by batch, each with the group of its row. Nothing is moved before groups are
//! asked for; then rows are dealt out by one pass that counts and one that places, and each group's are sorted by its keys.
//! Rows that are equal stay in the order in which they came.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, LargeStringBuilder, ListArray, StructArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, and, cast, concat, filter, is_not_null, take};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::row::{RowConverter, SortField};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

/// What becomes of a group's values.
#[derive(Debug, Clone)]
pub(super) enum Form {
    Array,
    /// One text, with this between two of them.
    Text(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gathered {
    value: DataType,
    /// As they are laid out for who goes on with them.
    keys: Fields,
    converter: RowConverter,
    ignore_nulls: bool,
    /// Arguments of the function, behind which the keys come.
    arguments: usize,
    form: Form,
    values: Vec<ArrayRef>,
    /// For each key its batches.
    orders: Vec<Vec<ArrayRef>>,
    /// The group of each row.
    groups: Vec<u32>,
    groups_count: usize,
    bytes: usize,
}

/// Rows of the first groups, dealt out.
struct Dealt {
    values: ArrayRef,
    orders: Vec<ArrayRef>,
    /// Rows by group.
    rows: Vec<u32>,
    /// Where each group begins in `rows`; one more than there are groups.
    begins: Vec<u32>,
}

impl Gathered {
    pub(super) fn new(
        value: DataType,
        keys: Vec<(DataType, SortOptions)>,
        names: Vec<String>,
        ignore_nulls: bool,
        arguments: usize,
        form: Form,
    ) -> Result<Self> {
        let fields = names.into_iter().zip(&keys).map(|(name, (kind, _))| Field::new(name, kind.clone(), true));
        let sorts = keys.iter().map(|(kind, options)| SortField::new_with_options(kind.clone(), *options)).collect();
        Ok(Gathered {
            value,
            keys: fields.collect(),
            converter: RowConverter::new(sorts)?,
            ignore_nulls,
            arguments,
            form,
            values: Vec::new(),
            orders: vec![Vec::new(); keys.len()],
            groups: Vec::new(),
            groups_count: 0,
            bytes: 0,
        })
    }

    /// There are so many groups, even if they have no rows.
    pub(super) fn at_least_groups(&mut self, count: usize) {
        self.groups_count = self.groups_count.max(count);
    }

    fn push(&mut self, values: ArrayRef, orders: Vec<ArrayRef>, groups: impl Iterator<Item = usize>) -> Result<()> {
        if self.groups.len() + values.len() > u32::MAX as usize {
            return Err(DataFusionError::Execution(
                "an ordered aggregate gathers more than 4,294,967,295 values".to_string(),
            ));
        }
        let arrays = orders.iter().chain([&values]);
        self.bytes += arrays.map(|array| array.to_data().get_slice_memory_size().unwrap_or(0)).sum::<usize>();
        self.groups.extend(groups.map(|group| u32::try_from(group).unwrap_or(u32::MAX)));
        self.values.push(values);
        self.orders.iter_mut().zip(orders).for_each(|(batches, batch)| batches.push(batch));
        Ok(())
    }

    /// Takes the rows of the first groups out, dealt out to their groups.
    fn deal(&mut self, emit: EmitTo) -> Result<Dealt> {
        let all = concatenated(&std::mem::take(&mut self.values), &self.value)?;
        let kinds: Vec<DataType> = self.keys.iter().map(|key| key.data_type().clone()).collect();
        let batches = self.orders.iter_mut().map(std::mem::take);
        let orders: Vec<ArrayRef> =
            batches.zip(&kinds).map(|(batches, kind)| concatenated(&batches, kind)).collect::<Result<_>>()?;
        let groups = std::mem::take(&mut self.groups);
        self.bytes = 0;
        let count = match emit {
            EmitTo::All => self.groups_count,
            EmitTo::First(count) => count.min(self.groups_count),
        };
        let (rows, begins) = dealt(&groups, count);
        self.groups_count -= count;
        let first = u32::try_from(count).unwrap_or(u32::MAX);
        if rows.len() < groups.len() {
            let later: Vec<u32> =
                (0u32..).zip(&groups).filter(|(_, group)| **group >= first).map(|(row, _)| row).collect();
            let later_groups: Vec<usize> = later.iter().map(|row| (groups[*row as usize] - first) as usize).collect();
            let later = UInt32Array::from(later);
            let kept = orders.iter().map(|order| take(order, &later, None)).collect::<std::result::Result<_, _>>()?;
            self.push(take(&all, &later, None)?, kept, later_groups.into_iter())?;
        }
        Ok(Dealt { values: all, orders, rows, begins })
    }

    /// The rows of each group by their keys.
    fn sort(&self, dealt: &mut Dealt) -> Result<()> {
        let keys = self.converter.convert_columns(&dealt.orders)?;
        for bounds in dealt.begins.windows(2) {
            let rows = &mut dealt.rows[bounds[0] as usize..bounds[1] as usize];
            rows.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
        }
        Ok(())
    }
}

/// Rows by group, each group's in their order, and where each group begins; of rows of later groups there is nothing.
fn dealt(groups: &[u32], count: usize) -> (Vec<u32>, Vec<u32>) {
    let mut begins = vec![0u32; count + 1];
    for group in groups {
        if let Some(next) = begins.get_mut(*group as usize + 1) {
            *next += 1;
        }
    }
    for group in 0..count {
        begins[group + 1] += begins[group];
    }
    let mut next = begins.clone();
    let mut rows = vec![0u32; begins[count] as usize];
    for (row, group) in (0u32..).zip(groups) {
        let group = *group as usize;
        if group < count {
            rows[next[group] as usize] = row;
            next[group] += 1;
        }
    }
    (rows, begins)
}

fn concatenated(batches: &[ArrayRef], kind: &DataType) -> Result<ArrayRef> {
    let batches: Vec<&dyn Array> = batches.iter().map(AsRef::as_ref).collect();
    match batches.as_slice() {
        [] => Ok(arrow::array::new_empty_array(kind)),
        batches => Ok(concat(batches)?),
    }
}

/// Lists of the groups' rows.
fn lists(values: &ArrayRef, dealt: &Dealt, empty_is_null: bool, nullable_item: bool) -> Result<ListArray> {
    let rows = UInt32Array::from(dealt.rows.clone());
    let values = take(values, &rows, None)?;
    let begins = dealt.begins.iter().map(|begin| i32::try_from(*begin));
    let begins: Vec<i32> = begins.collect::<std::result::Result<_, _>>().map_err(|_| {
        DataFusionError::Execution("arrays of one batch have more than 2,147,483,647 values".to_string())
    })?;
    let nulls = NullBuffer::from_iter(dealt.begins.windows(2).map(|bounds| bounds[0] < bounds[1]));
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), nullable_item));
    let nulls = empty_is_null.then_some(nulls).filter(|nulls| nulls.null_count() > 0);
    Ok(ListArray::try_new(item, OffsetBuffer::new(begins.into()), values, nulls)?)
}

/// One text for each group; NULL when it has none.
fn texts(values: &ArrayRef, dealt: &Dealt, delimiter: &str) -> Result<ArrayRef> {
    let values = cast(values, &DataType::LargeUtf8)?;
    let values = values.as_string::<i64>();
    let mut texts = LargeStringBuilder::new();
    let mut text = String::new();
    for bounds in dealt.begins.windows(2) {
        text.clear();
        let rows = &dealt.rows[bounds[0] as usize..bounds[1] as usize];
        let mut found = rows.iter().map(|row| *row as usize).filter(|row| values.is_valid(*row)).peekable();
        if found.peek().is_none() {
            texts.append_null();
            continue;
        }
        for (place, row) in found.enumerate() {
            if place > 0 {
                text.push_str(delimiter);
            }
            text.push_str(values.value(row));
        }
        texts.append_value(&text);
    }
    Ok(Arc::new(texts.finish()))
}

/// The rows that take part.
fn taking_part(values: &ArrayRef, ignore_nulls: bool, wanted: Option<&BooleanArray>) -> Result<Option<BooleanArray>> {
    let wanted = match wanted {
        // A condition that is NULL is not met.
        Some(wanted) if wanted.null_count() > 0 => Some(and(&is_not_null(wanted)?, &without_nulls(wanted))?),
        Some(wanted) => Some(wanted.clone()),
        None => None,
    };
    if !ignore_nulls || values.null_count() == 0 {
        return Ok(wanted);
    }
    let valid = is_not_null(values)?;
    Ok(Some(match wanted {
        Some(wanted) => and(&wanted, &valid)?,
        None => valid,
    }))
}

fn without_nulls(wanted: &BooleanArray) -> BooleanArray {
    BooleanArray::new(wanted.values().clone(), None)
}

impl GroupsAccumulator for Gathered {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups_count = self.groups_count.max(total_num_groups);
        let (value, orders) = (&values[0], &values[self.arguments..]);
        match taking_part(value, self.ignore_nulls, opt_filter)? {
            None => self.push(Arc::clone(value), orders.to_vec(), group_indices.iter().copied()),
            Some(wanted) => {
                let orders =
                    orders.iter().map(|order| filter(order, &wanted)).collect::<std::result::Result<_, _>>()?;
                let groups = group_indices.iter().zip(wanted.values()).filter(|(_, wanted)| *wanted);
                self.push(filter(value, &wanted)?, orders, groups.map(|(group, _)| *group))
            }
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups_count = self.groups_count.max(total_num_groups);
        let (values, orders) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        let begin = values.value_offsets()[0] as usize;
        let end = values.value_offsets()[values.len()] as usize;
        let order_begin = orders.value_offsets()[0] as usize;
        let keys = orders.values().slice(order_begin, end - begin);
        let keys = keys.as_struct().columns().to_vec();
        let lengths = values.value_offsets().windows(2).map(|bounds| (bounds[1] - bounds[0]) as usize);
        let groups: Vec<usize> =
            group_indices.iter().zip(lengths).flat_map(|(group, length)| std::iter::repeat_n(*group, length)).collect();
        self.push(values.values().slice(begin, end - begin), keys, groups.into_iter())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut dealt = self.deal(emit_to)?;
        self.sort(&mut dealt)?;
        match &self.form {
            Form::Array => Ok(Arc::new(lists(&dealt.values, &dealt, true, true)?)),
            Form::Text(delimiter) => texts(&dealt.values, &dealt, delimiter),
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let dealt = self.deal(emit_to)?;
        let keys = StructArray::try_new(self.keys.clone(), dealt.orders.clone(), None)?;
        let keys: ArrayRef = Arc::new(keys);
        Ok(vec![Arc::new(lists(&dealt.values, &dealt, false, true)?), Arc::new(lists(&keys, &dealt, false, true)?)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let (value, orders) = (&values[0], &values[self.arguments..]);
        let wanted = taking_part(value, self.ignore_nulls, opt_filter)?;
        let takes_part = |row: usize| wanted.as_ref().is_none_or(|wanted| wanted.value(row));
        let mut begins = vec![0u32];
        let mut rows = Vec::new();
        for (number, row) in (0u32..).zip(0..value.len()) {
            if takes_part(row) {
                rows.push(number);
            }
            begins.push(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        }
        let keys: ArrayRef = Arc::new(StructArray::try_new(self.keys.clone(), orders.to_vec(), None)?);
        let dealt = Dealt { values: Arc::clone(value), orders: Vec::new(), rows, begins };
        Ok(vec![Arc::new(lists(value, &dealt, false, true)?), Arc::new(lists(&keys, &dealt, false, true)?)])
    }

    fn size(&self) -> usize {
        self.bytes + self.groups.capacity() * size_of::<u32>() + self.converter.size()
    }
}
