//! Configuration, once and typed: flags over the environment (`GRISTMILL_SECTION__KEY`) over `./gristmill.toml` over the
//! user's own file over defaults. The layers are applied from the lowest to the highest, each value is checked where it
//! was written, and past this module there is no environment and no option text. Keys of sections `output`, `energy`
//! and `shell` are the command line's own and live here; all others belong to the engine and its extensions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use engine::extension::Setting;
use engine::options::{KEYS, Options};
use engine::{Error, Result};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::args::{CommonArgs, Format, OutputArgs};

/// The project's file, looked for in the working directory.
pub(crate) const PROJECT_FILE: &str = "gristmill.toml";
const ENVIRONMENT_PREFIX: &str = "GRISTMILL_";

/// What the command line itself is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Format of results; `None` is a table, or what the name of the output file says.
    pub(crate) format: Option<Format>,
    /// Text for NULL.
    pub(crate) null: Option<String>,
    /// Whether a header line is written.
    pub(crate) header: bool,
    /// Rows of a table on a terminal; `None` shows all.
    pub(crate) rows_max: Option<usize>,
    /// Colours in messages.
    pub(crate) color: When,
    /// Progress bars.
    pub(crate) progress: When,
    /// Watts that one busy core is taken to draw: a low, a middle and a high guess.
    pub(crate) watts_per_core: [f64; 3],
    /// Lines of history that the shell keeps.
    pub(crate) history_lines: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            format: None,
            null: None,
            header: true,
            rows_max: Some(40),
            color: When::Auto,
            progress: When::Auto,
            // A core of a many-core server at its base clock, of a laptop under load, of a desktop at full turbo.
            watts_per_core: [2.0, 5.0, 12.0],
            history_lines: 10_000,
        }
    }
}

/// A choice that follows the terminal unless it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

impl When {
    /// What it comes to, given whether the stream is a terminal.
    pub(crate) fn resolve(self, terminal: bool) -> bool {
        match self {
            When::Auto => terminal,
            When::Always => true,
            When::Never => false,
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One of the command line's own keys: its name, what it does, how it is set and shown.
struct Key {
    name: &'static str,
    description: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
    get: fn(&Settings) -> String,
}

const OWN_KEYS: &[Key] = &[
    Key {
        name: "output.format",
        description: "Format of results: auto, table, csv, tsv, json, jsonl, markdown, arrow, parquet.",
        set: |settings, text| {
            settings.format = match text {
                "auto" => None,
                text => Some(Format::from_str(text, true).map_err(|_| expected(&format_names(), text))?),
            };
            Ok(())
        },
        get: |settings| settings.format.map_or("auto".to_string(), format_name),
    },
    Key {
        name: "output.null",
        description: "Text for NULL; auto is NULL in tables and nothing in csv and tsv.",
        set: |settings, text| {
            settings.null = (text != "auto").then(|| text.to_string());
            Ok(())
        },
        get: |settings| settings.null.clone().unwrap_or_else(|| "auto".to_string()),
    },
    Key {
        name: "output.header",
        description: "Whether results begin with the names of their columns.",
        set: |settings, text| {
            settings.header = boolean(text)?;
            Ok(())
        },
        get: |settings| settings.header.to_string(),
    },
    Key {
        name: "output.max_rows",
        description: "Rows of a table on a terminal; all shows every row.",
        set: |settings, text| {
            settings.rows_max = if text == "all" { None } else { Some(positive(text)?) };
            Ok(())
        },
        get: |settings| settings.rows_max.map_or("all".to_string(), |rows| rows.to_string()),
    },
    Key {
        name: "output.color",
        description: "Colours in messages: auto, always, never.",
        set: |settings, text| {
            settings.color = when(text)?;
            Ok(())
        },
        get: |settings| when_name(settings.color),
    },
    Key {
        name: "output.progress",
        description: "Progress bars: auto, always, never.",
        set: |settings, text| {
            settings.progress = when(text)?;
            Ok(())
        },
        get: |settings| when_name(settings.progress),
    },
    Key {
        name: "energy.watts_per_core_low",
        description: "Watts of a busy core for the low estimate of a job's energy.",
        set: |settings, text| {
            settings.watts_per_core[0] = watts(text)?;
            Ok(())
        },
        get: |settings| settings.watts_per_core[0].to_string(),
    },
    Key {
        name: "energy.watts_per_core_mid",
        description: "Watts of a busy core for the middle estimate.",
        set: |settings, text| {
            settings.watts_per_core[1] = watts(text)?;
            Ok(())
        },
        get: |settings| settings.watts_per_core[1].to_string(),
    },
    Key {
        name: "energy.watts_per_core_high",
        description: "Watts of a busy core for the high estimate.",
        set: |settings, text| {
            settings.watts_per_core[2] = watts(text)?;
            Ok(())
        },
        get: |settings| settings.watts_per_core[2].to_string(),
    },
    Key {
        name: "shell.history_lines",
        description: "Lines of history that the shell keeps.",
        set: |settings, text| {
            settings.history_lines = positive(text)?;
            Ok(())
        },
        get: |settings| settings.history_lines.to_string(),
    },
];

/// The whole configuration of this run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The command line's own part.
    pub(crate) settings: Settings,
    /// The session's part.
    pub(crate) options: Options,
    /// Who types, as far as the environment tells.
    pub(crate) user: String,
    extension_settings: Vec<Setting>,
    origins: BTreeMap<String, Origin>,
}

/// A line of `config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) key: String,
    /// `None` when nothing is set and the default is to have nothing.
    pub(crate) value: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) description: String,
}

/// What lies under the flags: files from the lowest to the highest layer, then the environment.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Surroundings {
    /// This process's own: the user's file, the working directory's file, the environment.
    pub(crate) fn of_process() -> Self {
        let user = directories::BaseDirs::new().map(|dirs| dirs.config_dir().join("gristmill").join("config.toml"));
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| {
                name.starts_with(ENVIRONMENT_PREFIX)
                    || matches!(name.as_str(), "NO_COLOR" | "USER")
                    || storage::is_store_variable(name)
            })
            .collect();
        Surroundings { files: user.into_iter().chain([PathBuf::from(PROJECT_FILE)]).collect(), environment }
    }
}

impl Config {
    /// Applies all layers.
    ///
    /// # Errors
    /// [`Error::Usage`] with the place (file:line, variable, flag) of the first unknown key or wrong value.
    pub(crate) fn load(
        surroundings: &Surroundings,
        common: &CommonArgs,
        output: &OutputArgs,
        extension_settings: &[Setting],
    ) -> Result<Self> {
        let mut config = Config { extension_settings: extension_settings.to_vec(), ..Config::default() };
        for file in &surroundings.files {
            config.apply_file(file)?;
        }
        let options = &mut config.options;
        options.stores = std::mem::take(&mut options.stores).in_environment(surroundings.environment.iter().cloned());
        config.apply_environment(&surroundings.environment)?;
        config.apply_flags(common, output)?;
        Ok(config)
    }

    fn apply_file(&mut self, path: &Path) -> Result<()> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::Usage(format!("{}: cannot read it: {error}", path.display()))),
        };
        let place = |offset: usize| Origin::File { path: path.to_path_buf(), line: line_of(&text, offset) };
        let table = DeTable::parse(&text).map_err(|error| {
            let origin = place(error.span().map_or(0, |span| span.start));
            Error::Usage(format!("{origin}: {}", error.message()))
        })?;
        let mut values = Vec::new();
        flatten("", table.get_ref(), &mut values).map_err(|(offset, reason)| {
            let origin = place(offset);
            Error::Usage(format!("{origin}: {reason}"))
        })?;
        values.into_iter().try_for_each(|(key, value, offset)| self.apply(&key, &value, place(offset)))
    }

    fn apply_environment(&mut self, environment: &[(String, String)]) -> Result<()> {
        for (name, value) in environment {
            // https://no-color.org: present and not empty means no colours, unless something above says otherwise.
            if name == "NO_COLOR" && !value.is_empty() {
                self.apply("output.color", "never", Origin::Environment(name.clone()))?;
            }
            if name == "USER" {
                self.user.clone_from(value);
            }
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if rest.contains("__") {
                let key = rest.to_lowercase().replace("__", ".");
                self.apply(&key, value, Origin::Environment(name.clone()))?;
            } else if let Some(key) = self.keys().find(|key| key.replace('.', "_").eq_ignore_ascii_case(rest)) {
                let right = key.to_uppercase().replacen('.', "__", 1);
                return Err(Error::Usage(format!(
                    "environment {name}: two underscores part section and key; did you mean `{ENVIRONMENT_PREFIX}{right}`?"
                )));
            }
        }
        Ok(())
    }

    fn apply_flags(&mut self, common: &CommonArgs, output: &OutputArgs) -> Result<()> {
        let format = output.format.map(format_name);
        let flags = [
            ("engine.memory_limit", "--memory-limit", &common.memory_limit),
            ("engine.threads", "--threads", &common.threads),
            ("engine.warehouse", "--warehouse", &common.warehouse),
            ("engine.cluster", "--cluster", &common.cluster),
            ("ml.kernel", "--kernel", &common.kernel),
            ("output.progress", "--progress", &common.progress),
            ("output.color", "--color", &common.color),
            ("output.format", "--format", &format),
            ("output.null", "--null", &output.null),
        ];
        for (key, flag, value) in flags {
            if let Some(value) = value {
                self.apply(key, value, Origin::Flag(flag))?;
            }
        }
        if output.no_header {
            self.apply("output.header", "false", Origin::Flag("--no-header"))?;
        }
        for pair in &common.set {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Error::Usage(format!("--set {pair}: expected KEY=VALUE")));
            };
            self.apply(key.trim(), value.trim(), Origin::Flag("--set"))?;
        }
        Ok(())
    }

    fn apply(&mut self, key: &str, value: &str, origin: Origin) -> Result<()> {
        let key = key.to_lowercase();
        let result = match OWN_KEYS.iter().find(|own| own.name == key) {
            Some(own) => {
                (own.set)(&mut self.settings, value).map_err(|reason| Error::Usage(format!("{key}: {reason}")))
            }
            None => {
                let known: Vec<&str> = self
                    .extension_settings
                    .iter()
                    .map(|setting| setting.key)
                    .chain(OWN_KEYS.iter().map(|own| own.name))
                    .collect();
                self.options.set(&key, value, &known)
            }
        };
        result.map_err(|error| Error::Usage(format!("{origin}: {error}")))?;
        self.origins.insert(key, origin);
        Ok(())
    }

    fn keys(&self) -> impl Iterator<Item = &'static str> + '_ {
        KEYS.iter()
            .map(|option| option.key)
            .chain(storage::STORE_KEYS.iter().map(|key| key.key))
            .chain(self.extension_settings.iter().map(|setting| setting.key))
            .chain(OWN_KEYS.iter().map(|own| own.name))
    }

    /// What flags say to the session, for a session elsewhere; files and environment are that place's own.
    pub(crate) fn given_to_session(&self) -> Vec<(String, String)> {
        let by_flag = self.origins.iter().filter(|(key, origin)| {
            // Credentials stay where they were typed: a cluster's processes have their own.
            let secret = storage::STORE_KEYS.iter().any(|known| known.secret && known.key == key.as_str());
            let own = secret || OWN_KEYS.iter().any(|own| own.name == key.as_str());
            matches!(origin, Origin::Flag(_)) && !own && key.as_str() != "engine.cluster"
        });
        by_flag.filter_map(|(key, _)| Some((key.clone(), self.options.get(key)?))).collect()
    }

    /// Every key, its value and where the value came from; keys of the query engine only where they are set.
    pub(crate) fn show(&self) -> Vec<Shown> {
        let origin = |key: &str| self.origins.get(key).cloned().unwrap_or(Origin::Default);
        let engine = KEYS.iter().map(|option| Shown {
            key: option.key.to_string(),
            value: self.options.get(option.key),
            origin: origin(option.key),
            description: option.description.to_string(),
        });
        let extensions = self.extension_settings.iter().map(|setting| Shown {
            key: setting.key.to_string(),
            value: self.options.get(setting.key),
            origin: origin(setting.key),
            description: setting.description.to_string(),
        });
        let stores = storage::STORE_KEYS.iter().map(|known| Shown {
            key: known.key.to_string(),
            value: self.options.get(known.key),
            origin: origin(known.key),
            description: known.description.to_string(),
        });
        let own = OWN_KEYS.iter().map(|own| Shown {
            key: own.name.to_string(),
            value: Some((own.get)(&self.settings)),
            origin: origin(own.name),
            description: own.description.to_string(),
        });
        let query_engine =
            self.origins.iter().filter(|(key, _)| key.starts_with("datafusion.")).map(|(key, origin)| {
                let description = String::new();
                Shown { key: key.clone(), value: self.options.get(key), origin: origin.clone(), description }
            });
        engine.chain(stores).chain(extensions).chain(own).chain(query_engine).collect()
    }
}

/// A TOML table as dotted keys with their values as text, each with its place; an error has a place, too.
fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    values: &mut Vec<(String, String, usize)>,
) -> Result<(), (usize, String)> {
    // The table keeps its keys in alphabetical order; the first mistake to tell is the first one in the file.
    let mut entries: Vec<(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let offset = key.span().start;
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let text = match value.get_ref() {
            DeValue::Table(inner) => {
                flatten(&name, inner, values)?;
                continue;
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_string(),
            DeValue::Float(number) => number.as_str().to_string(),
            DeValue::Boolean(yes) => yes.to_string(),
            other => {
                return Err((
                    offset,
                    format!("{name}: expected text, a number or a boolean, got {}", other.type_str()),
                ));
            }
        };
        values.push((name, text, offset));
    }
    Ok(())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn expected(what: &str, got: &str) -> String {
    format!("expected {what}, got `{got}`")
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(expected("true or false", text)),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(expected("a whole number above 0", text)),
    }
}

fn watts(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(expected("a number of watts above 0", text)),
    }
}

fn when(text: &str) -> Result<When, String> {
    match text.to_lowercase().as_str() {
        "auto" => Ok(When::Auto),
        "always" => Ok(When::Always),
        "never" => Ok(When::Never),
        _ => Err(expected("auto, always or never", text)),
    }
}

fn when_name(when: When) -> String {
    match when {
        When::Auto => "auto",
        When::Always => "always",
        When::Never => "never",
    }
    .to_string()
}

fn format_name(format: Format) -> String {
    format.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
}

fn format_names() -> String {
    let names: Vec<String> = Format::value_variants().iter().copied().map(format_name).collect();
    names.join(", ")
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
