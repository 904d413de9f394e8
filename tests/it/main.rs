//! Gristmill's integration tests: one binary, its modules in the order of the story. First the tree (who may know whom),
//! then SQL, then models, then whole jobs through the real binary, then everything that can go wrong, then the cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the environment says how much is tested, and tests look at the clock")]
#![allow(clippy::print_stderr, reason = "who watches a test is told what it measured")]

mod cluster_process;
mod hosts;
mod model_files;
mod model_versions;
mod program;
mod servers;
mod upstream;

mod layering;
mod slt;

mod datafusion_slt;
mod fuzz;
mod metamorphic;
mod tpch;

mod job;
mod predict;
mod programs;
mod readme;
mod shell;

mod bad_input;
mod bad_places;
mod determinism;
mod doubts;
mod faults;
mod larger_than_memory;
mod robust;

mod cluster;
mod cluster_jobs;
mod cluster_life;
mod cluster_plans;
mod copy_kills;
mod delta;
mod deploy;
mod gang;
mod instructions;
mod stores;
mod training;
