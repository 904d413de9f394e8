//! Passes over a statement before it is planned: over its tokens, where the parser would refuse or misread them, and over
//! the parsed statement, where the planner would drop or misread a part of it. What comes out is planned as it is written,
//! or it was refused with its place.

pub(crate) mod bigquery;
pub(crate) mod branches;
pub(crate) mod casts;
pub(crate) mod clauses;
mod escapes;
pub(crate) mod from_first;
mod long;
mod numbers;
mod precedence;
mod row_pairs;
pub(crate) mod row_values;
pub(crate) mod sample;
mod similar;
pub(crate) mod spelling;
pub(crate) mod units;
pub(crate) mod using;
pub(crate) mod versions;
mod windows;

pub(crate) use long::{balance, measure};
