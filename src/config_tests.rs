//! What is written in each layer, and what comes out.

use super::*;

struct Written<'a> {
    user: &'a str,
    project: &'a str,
    environment: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
}

const NOTHING: Written<'static> = Written { user: "", project: "", environment: &[], flags: &[] };

/// The configuration, and the text of the directory that its files were in.
fn load(written: &Written<'_>) -> (Result<Config>, String) {
    let directory = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = ["user.toml", "gristmill.toml"].iter().map(|name| directory.path().join(name)).collect();
    for (file, text) in files.iter().zip([written.user, written.project]) {
        std::fs::write(file, text).unwrap();
    }
    let environment = written.environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let words = ["gristmill"].iter().chain(written.flags);
    let args = <crate::args::Args as clap::Parser>::try_parse_from(words).unwrap();
    let settings = ["ml.kernel", "ml.seed"].map(|key| Setting { key, description: "An extension's." });
    let loaded = Config::load(&Surroundings { files, environment }, &args.common, &args.output, &settings);
    (loaded, directory.path().display().to_string())
}

fn shown(config: &Config, key: &str) -> (Option<String>, String) {
    let shown =
        config.show().into_iter().find(|shown| shown.key == key).unwrap_or_else(|| panic!("{key} is not shown"));
    (shown.value, shown.origin.to_string())
}

#[test]
fn a_higher_layer_wins_and_the_origin_is_told() {
    let all = Written {
        user: "[output]\nmax_rows = 7\nnull = 'NA'\n[engine]\nthreads = 3\n",
        project: "# ours\n[engine]\nthreads = 5\nmemory_limit = \"512m\"\n[ml]\nseed = 9\n",
        environment: &[("GRISTMILL_ENGINE__MEMORY_LIMIT", "1g"), ("GRISTMILL_CRASH_AT", "rename"), ("NO_COLOR", "1")],
        flags: &["-j", "2", "--set", "datafusion.execution.batch_size=100", "--kernel", "native"],
    };
    let (config, directory) = load(&all);
    let config = config.unwrap();
    for (key, value, origin) in [
        ("engine.threads", "2", "flag --threads".to_string()),
        ("engine.memory_limit", "1g", "environment GRISTMILL_ENGINE__MEMORY_LIMIT".to_string()),
        ("output.max_rows", "7", format!("{directory}/user.toml:2")),
        ("output.null", "NA", format!("{directory}/user.toml:3")),
        ("ml.seed", "9", format!("{directory}/gristmill.toml:6")),
        ("ml.kernel", "native", "flag --kernel".to_string()),
        ("output.color", "never", "environment NO_COLOR".to_string()),
        ("output.format", "auto", "default".to_string()),
        ("datafusion.execution.batch_size", "100", "flag --set".to_string()),
    ] {
        assert_eq!(shown(&config, key), (Some(value.to_string()), origin), "{key}");
    }
    assert_eq!(config.options.threads, 2);
    assert_eq!(config.options.memory_limit, Some(1 << 30));
    assert_eq!(config.settings.rows_max, Some(7));
}

#[test]
fn nothing_written_is_the_defaults() {
    let config = load(&NOTHING).0.unwrap();
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.options, Options::default());
    assert!(config.show().iter().all(|shown| shown.origin == Origin::Default));
}

#[test]
fn mistakes_are_told_with_their_place() {
    let file = |project| Written { project, ..NOTHING };
    let cases = [
        (
            file("[engine]\n\nthread = 4\n"),
            "DIR/gristmill.toml:3: unknown option `engine.thread`; did you mean `engine.threads`?",
        ),
        (
            file("[output]\nfromat = 'csv'\n"),
            "DIR/gristmill.toml:2: unknown option `output.fromat`; did you mean `output.format`?",
        ),
        (
            file("[output]\nformat = 'xml'\n"),
            "DIR/gristmill.toml:2: output.format: expected table, csv, tsv, json, jsonl, markdown, arrow, parquet, got `xml`",
        ),
        (
            file("[engine]\nthreads = 'four'\n"),
            "DIR/gristmill.toml:2: engine.threads: expected a whole number above 0, got `four`",
        ),
        (
            file("[engine]\nthreads = [1]\n"),
            "DIR/gristmill.toml:2: engine.threads: expected text, a number or a boolean, got array",
        ),
        (
            file("[energy]\nwatts_per_core_low = 0\n"),
            "DIR/gristmill.toml:2: energy.watts_per_core_low: expected a number of watts above 0, got `0`",
        ),
        (
            Written { environment: &[("GRISTMILL_OUTPUT__MAX_ROWS", "many")], ..NOTHING },
            "environment GRISTMILL_OUTPUT__MAX_ROWS: output.max_rows: expected a whole number above 0, got `many`",
        ),
        (
            Written { environment: &[("GRISTMILL_ENGINE_MEMORY_LIMIT", "1g")], ..NOTHING },
            "environment GRISTMILL_ENGINE_MEMORY_LIMIT: two underscores part section and key; did you mean `GRISTMILL_ENGINE__MEMORY_LIMIT`?",
        ),
        (
            Written { flags: &["--set", "ml.seeed=1"], ..NOTHING },
            "flag --set: unknown option `ml.seeed`; did you mean `ml.seed`?",
        ),
        (Written { flags: &["--set", "ml.seed"], ..NOTHING }, "--set ml.seed: expected KEY=VALUE"),
        (
            Written { flags: &["--progress", "often"], ..NOTHING },
            "flag --progress: output.progress: expected auto, always or never, got `often`",
        ),
    ];
    for (written, expected) in cases {
        let (loaded, directory) = load(&written);
        assert_eq!(loaded.unwrap_err().to_string().replace(&directory, "DIR"), expected);
    }
}

#[test]
fn toml_that_does_not_parse_names_the_line() {
    let (loaded, directory) = load(&Written { project: "[engine]\nthreads = \n", ..NOTHING });
    let message = loaded.unwrap_err().to_string();
    assert!(message.starts_with(&format!("{directory}/gristmill.toml:2: ")), "{message}");
}
