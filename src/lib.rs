//! Gristmill
