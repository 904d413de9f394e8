//! Passes over the parsed statement: what the query engine would read wrongly, or not at all, is put right or refused here.

mod long;

pub(crate) use long::balance;
