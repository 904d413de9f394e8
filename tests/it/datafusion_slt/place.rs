//! Where the files of the suite are, and where a statement's paths lead. The tests name files from the directory of
//! their package (`test_files/scratch/x/`, `../core/tests/data/a.csv`); here they get a tree of their own.
//!
//! ```text
//! root/datafusion/sqllogictest/test_files/scratch/NAME/    what a file writes
//! root/datafusion/sqllogictest/test_files/tpch/data/       generated
//! root/datafusion/sqllogictest/data/, root/datafusion/datasource-arrow/, root/parquet-testing/    from packages
//! root/testing/, root/parquet-testing/, root/datafusion/core/tests/data/    only from a checkout of DataFusion
//! ```

use std::fs;
use std::path::{Component, Path, PathBuf};

use tempfile::TempDir;

use crate::upstream::package;

/// Names a checkout of DataFusion, with its submodules, whose test data are to be used too.
pub(super) const CHECKOUT: &str = "GRISTMILL_DATAFUSION_CHECKOUT";

/// A directory for what tests make, beside what cargo builds.
pub(crate) fn scratch_directory() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The tree.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Place { root: tempfile::tempdir_in(scratch_directory()).unwrap() };
        let suite = package("datafusion-sqllogictest");
        copy_tree(&suite.join("data"), &place.suite().join("data"));
        let arrow = package("datafusion-datasource-arrow").join("tests/data");
        copy_tree(&arrow, &place.root().join("datafusion/datasource-arrow/tests/data"));
        let parquet = place.root().join("parquet-testing/data");
        fs::create_dir_all(&parquet).unwrap();
        for file in ["alltypes_plain.parquet", "single_nan.parquet"] {
            fs::copy(package("ballista").join("testdata").join(file), parquet.join(file)).unwrap();
        }
        let tpch = place.suite().join("test_files/tpch/data");
        fs::create_dir_all(&tpch).unwrap();
        for table in fs::read_dir(crate::tpch::tables()).unwrap().flatten() {
            fs::hard_link(table.path(), tpch.join(table.file_name())).unwrap();
        }
        if let Some(checkout) = std::env::var_os(CHECKOUT).map(PathBuf::from) {
            for data in ["testing/data", "parquet-testing/data", "datafusion/core/tests/data"] {
                copy_tree(&checkout.join(data), &place.root().join(data));
            }
        }
        place
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// What stands for the directory of the package that holds the tests.
    pub(super) fn suite(&self) -> PathBuf {
        self.root().join("datafusion/sqllogictest")
    }

    /// The directory for what the file `name.slt` writes.
    pub(super) fn scratch(&self, file: &str) -> PathBuf {
        let name = Path::new(file).file_stem().unwrap();
        let scratch = self.suite().join("test_files/scratch").join(name);
        fs::create_dir_all(&scratch).unwrap();
        scratch
    }

    /// The statement with the paths in its literals (and quoted names) as they are here, and the first of them that
    /// leads to test data that are not there.
    pub(super) fn sql(&self, sql: &str) -> (String, Option<String>) {
        let mut here = String::with_capacity(sql.len());
        let mut missing = None;
        let mut rest = sql;
        while let Some(at) = rest.find(['\'', '"']) {
            let quote = char::from(rest.as_bytes()[at]);
            here.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            let path = &rest[..rest.find(quote).unwrap_or(rest.len())];
            if ["test_files/", "data/", "../"].iter().any(|beginning| path.starts_with(beginning)) {
                let real = resolve(&self.suite().join(path), path.ends_with('/'));
                let is_written = path.starts_with("test_files/scratch");
                if !is_written && !fixed_part(Path::new(&real)).exists() {
                    missing.get_or_insert(path.to_string());
                }
                here.push_str(&real);
                rest = &rest[path.len()..];
            }
            // A closing quote opens nothing: the text up to it has been looked at as if it were a literal, or is none.
        }
        here.push_str(rest);
        (here, missing)
    }

    /// A result's text with the tree's own place taken out of it.
    pub(super) fn placeless(&self, text: &str) -> String {
        let root = self.root().to_string_lossy();
        text.replace(root.trim_start_matches('/'), "WORKSPACE_ROOT")
    }
}

/// Takes `..` out of the path as text: what is not there cannot be asked.
fn resolve(path: &Path, is_directory: bool) -> String {
    let mut real = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            part => real.push(part),
        }
    }
    let slash = if is_directory { "/" } else { "" };
    format!("{}{slash}", real.display())
}

/// The path up to its first part with a wildcard.
fn fixed_part(path: &Path) -> PathBuf {
    let has_wildcard = |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
    path.components().take_while(|part| !has_wildcard(part)).collect()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
