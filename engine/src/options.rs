//! Everything that a session can be told, typed: the keys of the configuration file, of `--set` and of the `SET`
//! statement are these and no others. Text is parsed here, once; past this module there are no option strings, except
//! for the keys that the query engine (`datafusion.*`) and extensions own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use datafusion::config::{ConfigField, ConfigOptions};

use storage::{Location, StoreSettings};

use crate::cluster::ClusterAddress;
use crate::error::{Error, Result, near};

/// A session's options.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Threads that compute; also the number of partitions of a plan unless `target_partitions` says otherwise.
    pub threads: usize,
    /// Partitions of a plan.
    pub target_partitions: Option<usize>,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Bytes that queries may hold in memory before they spill; `None` is no limit.
    pub memory_limit: Option<usize>,
    /// Bytes that may be spilled to disk; `None` is the disk's own end.
    pub spill_limit: Option<u64>,
    /// Where the session's directory for spilled data is made; the system's temporary directory by default.
    pub temp_dir: Option<PathBuf>,
    /// Where models live.
    pub warehouse: String,
    /// What relative places are relative to, as an absolute path; `None` is the working directory.
    pub directory: Option<String>,
    /// The cluster on which plans are executed; `None` is this process.
    pub cluster: Option<ClusterAddress>,
    /// Bytes after which COPY begins another file.
    pub target_file_size: u64,
    /// Versions of a table that COPY keeps with their files, the new one included.
    pub keep_versions: u64,
    /// Compression of written files when the statement names none; the format's own default otherwise.
    pub compression: Option<String>,
    /// What stores are told: addresses, credentials, patience.
    pub stores: StoreSettings,
    /// Keys that the query engine and extensions own, as text.
    pub settings: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            target_partitions: None,
            batch_size: 8192,
            memory_limit: None,
            spill_limit: None,
            temp_dir: None,
            warehouse: "warehouse".to_string(),
            directory: None,
            cluster: None,
            target_file_size: 512 << 20,
            keep_versions: 1,
            compression: None,
            stores: StoreSettings::default(),
            settings: BTreeMap::new(),
        }
    }
}

/// A key that an option answers to.
#[derive(Debug, Clone, Copy)]
pub struct OptionKey {
    /// `section.key`.
    pub key: &'static str,
    /// What it does, in one sentence.
    pub description: &'static str,
    /// Whether `SET` in a script may change it; the others are fixed when the session begins.
    pub in_scripts: bool,
}

/// The engine's own keys.
pub const KEYS: &[OptionKey] = &[
    OptionKey { key: "engine.threads", description: "Threads that compute.", in_scripts: false },
    OptionKey {
        key: "engine.memory_limit",
        description: "Memory for queries, such as 512m; `none` lifts it.",
        in_scripts: true,
    },
    OptionKey {
        key: "engine.spill_limit",
        description: "Disk space for spilled data, such as 10g.",
        in_scripts: false,
    },
    OptionKey { key: "engine.temp_dir", description: "Where spilled data goes.", in_scripts: false },
    OptionKey { key: "engine.target_partitions", description: "Partitions of a plan.", in_scripts: true },
    OptionKey { key: "engine.batch_size", description: "Rows of a batch.", in_scripts: true },
    OptionKey { key: "engine.warehouse", description: "Where models live.", in_scripts: false },
    OptionKey {
        key: "engine.cluster",
        description: "Scheduler that executes plans, such as gristmill://host:50050; `none` is this process.",
        in_scripts: false,
    },
    OptionKey {
        key: "sink.target_file_size",
        description: "Size at which COPY begins another file.",
        in_scripts: true,
    },
    OptionKey {
        key: "sink.keep_versions",
        description: "Versions of a table that COPY keeps with their files; 1 keeps the new one only.",
        in_scripts: true,
    },
    OptionKey { key: "sink.compression", description: "Compression of files that COPY writes.", in_scripts: true },
];

impl Options {
    /// Sets an option from text. Keys that begin with `datafusion.` or with one of `sections` (those of extensions, such
    /// as `ml`) are kept as text for their owners to check.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown key (names the near one) or a value that is not of the key's type.
    pub fn set(&mut self, key: &str, value: &str, extension_keys: &[&str]) -> Result<()> {
        let key = canonical(key);
        let value = value.trim();
        match key.as_str() {
            "engine.threads" => self.threads = positive(&key, value)?,
            "engine.target_partitions" => self.target_partitions = Some(positive(&key, value)?),
            "engine.batch_size" => self.batch_size = positive(&key, value)?,
            "engine.memory_limit" => self.memory_limit = limit(&key, value)?.map(saturating_usize),
            "engine.spill_limit" => self.spill_limit = limit(&key, value)?,
            "engine.temp_dir" => self.temp_dir = Some(PathBuf::from(value)),
            "engine.warehouse" => self.warehouse = value.to_string(),
            "engine.cluster" => self.cluster = if value == "none" { None } else { Some(value.parse()?) },
            "sink.target_file_size" => self.target_file_size = parse_bytes(value).map_err(|e| wrong(&key, &e))?.max(1),
            "sink.keep_versions" => self.keep_versions = positive(&key, value)? as u64,
            "sink.compression" => self.compression = Some(value.to_lowercase()),
            _ if key.starts_with("storage.") => self.stores.set(&key, value).map_err(|reason| wrong(&key, &reason))?,
            _ if key.starts_with("datafusion.") => {
                // Tried on a fresh set of options, so that a mistake is found where it is written.
                ConfigOptions::new().set(&key, value).map_err(|error| unknown_engine_key(&key, &error.to_string()))?;
                self.settings.insert(key, value.to_string());
            }
            _ if extension_keys.iter().any(|known| *known == key) => {
                self.settings.insert(key, value.to_string());
            }
            _ => return Err(unknown_key(&key, extension_keys)),
        }
        Ok(())
    }

    /// The place that a text means.
    ///
    /// # Errors
    /// Text that is no place.
    pub fn place(&self, text: &str) -> Result<Location> {
        Ok(Location::parse_in(text, self.directory.as_deref())?)
    }

    /// Gives an option the value that it has in `initial`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown key.
    pub(crate) fn reset(&mut self, key: &str, initial: &Options, extension_keys: &[&str]) -> Result<()> {
        match key {
            "engine.target_partitions" => self.target_partitions = initial.target_partitions,
            "engine.batch_size" => self.batch_size = initial.batch_size,
            "engine.memory_limit" => self.memory_limit = initial.memory_limit,
            "sink.target_file_size" => self.target_file_size = initial.target_file_size,
            "sink.keep_versions" => self.keep_versions = initial.keep_versions,
            "sink.compression" => self.compression.clone_from(&initial.compression),
            _ if key.starts_with("datafusion.") || extension_keys.contains(&key) => {
                if key.starts_with("datafusion.") {
                    ConfigOptions::new().reset(key).map_err(|error| unknown_engine_key(key, &error.to_string()))?;
                }
                match initial.settings.get(key) {
                    Some(value) => self.settings.insert(key.to_string(), value.clone()),
                    None => self.settings.remove(key),
                };
            }
            _ => return Err(unknown_key(key, extension_keys)),
        }
        Ok(())
    }

    /// The value of a key as text, for `config show`; `None` for an unset or unknown key.
    pub fn get(&self, key: &str) -> Option<String> {
        match key {
            "engine.threads" => Some(self.threads.to_string()),
            "engine.target_partitions" => Some(self.partitions().to_string()),
            "engine.batch_size" => Some(self.batch_size.to_string()),
            "engine.memory_limit" => {
                Some(self.memory_limit.map_or("none".to_string(), |bytes| size_text(bytes as u64)))
            }
            "engine.spill_limit" => Some(self.spill_limit.map_or("none".to_string(), size_text)),
            "engine.temp_dir" => self.temp_dir.as_ref().map(|path| path.display().to_string()),
            "engine.warehouse" => Some(self.warehouse.clone()),
            "engine.cluster" => Some(self.cluster.as_ref().map_or("none".to_string(), ToString::to_string)),
            "sink.target_file_size" => Some(size_text(self.target_file_size)),
            "sink.keep_versions" => Some(self.keep_versions.to_string()),
            "sink.compression" => self.compression.clone(),
            _ if key.starts_with("storage.") => self.stores.shown(key),
            _ => self.settings.get(key).cloned(),
        }
    }

    /// How many partitions plans have.
    pub fn partitions(&self) -> usize {
        self.target_partitions.unwrap_or(self.threads)
    }
}

/// The key that is meant: lower case, and one of several names for the same thing.
pub(crate) fn canonical(key: &str) -> String {
    let key = key.trim().to_lowercase();
    match key.as_str() {
        "timezone" | "time.zone" => "datafusion.execution.time_zone".to_string(),
        "datafusion.runtime.memory_limit" => "engine.memory_limit".to_string(),
        _ => key,
    }
}

/// An error that names the key nearest to an unknown one.
fn unknown_key(key: &str, extension_keys: &[&str]) -> Error {
    let known: Vec<&str> = KEYS.iter().map(|option| option.key).chain(extension_keys.iter().copied()).collect();
    // `memory_limit` is meant to be `engine.memory_limit`: the last part decides when there is no section.
    let same_ending = known.iter().copied().find(|known| known.rsplit('.').next() == key.rsplit('.').next());
    let suggestion = same_ending.or_else(|| near(key, known.iter().copied()));
    Error::Usage(match suggestion {
        Some(suggestion) => format!("unknown option `{key}`; did you mean `{suggestion}`?"),
        None => format!("unknown option `{key}`; options are {} and datafusion.*", known.join(", ")),
    })
}

fn unknown_engine_key(key: &str, message: &str) -> Error {
    let defaults = ConfigOptions::new().entries();
    if defaults.iter().any(|entry| entry.key == key) {
        let cause = message.rsplit("caused by\n").next().unwrap_or(message);
        let cause = cause.strip_prefix("Invalid or Unsupported Configuration: ").unwrap_or(cause);
        return Error::Usage(format!("{key}: {}", cause.lines().next().unwrap_or(cause)));
    }
    match near(key, defaults.iter().map(|entry| entry.key.as_str())) {
        Some(suggestion) => Error::Usage(format!("unknown option `{key}`; did you mean `{suggestion}`?")),
        None => Error::Usage(format!("unknown option `{key}`")),
    }
}

fn wrong(key: &str, reason: &str) -> Error {
    Error::Usage(format!("{key}: {reason}"))
}

fn positive(key: &str, value: &str) -> Result<usize> {
    match value.parse::<usize>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(wrong(key, &format!("expected a whole number above 0, got `{value}`"))),
    }
}

fn limit(key: &str, value: &str) -> Result<Option<u64>> {
    if matches!(value.to_lowercase().as_str(), "none" | "unlimited") {
        return Ok(None);
    }
    match parse_bytes(value) {
        Ok(0) => Err(wrong(key, "a limit of 0 bytes leaves nothing to work with; `none` lifts the limit")),
        Ok(bytes) => Ok(Some(bytes)),
        Err(reason) => Err(wrong(key, &reason)),
    }
}

fn saturating_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Bytes from text such as `512m`, `1.5 GiB`, `64 KB` or `1048576`. Units are powers of 1024, whatever their spelling.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let complaint = || format!("expected a size such as 512m or 2g, got `{text}`");
    let number: f64 = number.replace('_', "").parse().map_err(|_| complaint())?;
    let shift = match unit.trim().to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(complaint()),
    };
    Ok((number * (1u64 << shift) as f64) as u64)
}

/// Bytes in the largest unit that needs no fraction, as [`parse_bytes`] reads them: `512m`.
fn size_text(bytes: u64) -> String {
    let exact =
        [("t", 40), ("g", 30), ("m", 20), ("k", 10)].into_iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    match exact {
        Some((unit, shift)) if bytes > 0 => format!("{}{unit}", bytes >> shift),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("1024", Some(1024)),
            ("512m", Some(512 << 20)),
            ("1.5 GiB", Some(3 << 29)),
            ("64KB", Some(64 << 10)),
            ("2T", Some(2 << 40)),
            ("", None),
            ("12 parsecs", None),
            ("m", None),
            ("-5m", None),
        ] {
            assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        }
        for (bytes, expected) in [(0, "0"), (1000, "1000"), (512 << 20, "512m"), (3 << 29, "1536m"), (1 << 42, "4t")] {
            assert_eq!(size_text(bytes), expected);
            assert_eq!(parse_bytes(expected), Ok(bytes));
        }
    }

    #[test]
    fn keys_are_typed_and_near_names_are_told() {
        let cases = [
            ("engine.threads", "4", Ok(())),
            ("engine.threads", "four", Err("engine.threads: expected a whole number above 0, got `four`")),
            ("engine.thread", "4", Err("unknown option `engine.thread`; did you mean `engine.threads`?")),
            ("memory_limit", "1g", Err("unknown option `memory_limit`; did you mean `engine.memory_limit`?")),
            ("engine.memory_limit", "1g", Ok(())),
            (
                "engine.memory_limit",
                "0",
                Err("engine.memory_limit: a limit of 0 bytes leaves nothing to work with; `none` lifts the limit"),
            ),
            ("ml.kernel", "native", Ok(())),
            ("ml.kernle", "native", Err("unknown option `ml.kernle`; did you mean `ml.kernel`?")),
            ("datafusion.execution.batch_size", "100", Ok(())),
            (
                "datafusion.execution.batchsize",
                "100",
                Err("unknown option `datafusion.execution.batchsize`; did you mean `datafusion.execution.batch_size`?"),
            ),
        ];
        for (key, value, expected) in cases {
            let got = Options::default().set(key, value, &["ml.kernel"]).map_err(|error| error.to_string());
            assert_eq!(got, expected.map_err(str::to_string), "{key} = {value}");
        }
    }
}
