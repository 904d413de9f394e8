//! Passes over a parsed statement: what the query engine's planner would misread is said in words that it understands, or
//! refused at its place.

pub(crate) mod using;
