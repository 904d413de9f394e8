//! Stores behind a network, as a program and as the storage crate see them, on servers that nobody here wrote.

mod integration;
mod job;
mod mistakes;
mod reading;
mod results;
mod suite;
mod weather;
mod writers;
