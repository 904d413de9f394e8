//! Where a model comes from: script, parameters, input files with size and hash, versions. Enough to train it again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use engine::extension::JobContext;
use engine::{Result, Session};
use serde::{Deserialize, Serialize};
use storage::Location;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// Wall time of the statement until the model was measured, in milliseconds; not known of older models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(skip)]
    begun: Option<Instant>,
    /// The whole script, as written; empty when a program trained the model.
    pub script: String,
    /// The CREATE MODEL statement, as written.
    pub statement: String,
    /// Names and values of the script's parameters.
    pub parameters: Vec<(String, String)>,
    /// Where relative paths began.
    pub working_directory: String,
    /// The files that the training query read.
    pub inputs: Vec<InputFile>,
    /// Of gristmill and of what its results depend on.
    pub versions: BTreeMap<String, String>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputFile {
    /// As users write it.
    pub location: String,
    /// Size.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl Lineage {
    /// Of a model that is about to be trained.
    pub(crate) async fn new(session: &Session, query: &DataFrame, job: &JobContext) -> Result<Lineage> {
        Ok(Lineage {
            created: rfc3339(now()),
            duration_ms: None,
            begun: Some(Instant::now()),
            script: job.script_text.to_string(),
            statement: job.statement_text.clone(),
            parameters: job.parameters.as_ref().clone(),
            working_directory: working_directory(session),
            inputs: input_files(session, query).await?,
            versions: versions(),
        })
    }
}

/// What relative places of the script are relative to.
fn working_directory(session: &Session) -> String {
    let own = || std::env::current_dir().map(|directory| directory.display().to_string()).unwrap_or_default();
    session.options().directory.clone().unwrap_or_else(own)
}

impl Lineage {
    /// The model has been made.
    pub(crate) fn finished(self) -> Lineage {
        let duration_ms = self.begun.map(|begun| begun.elapsed().as_millis() as u64);
        Lineage { duration_ms, ..self }
    }
}

fn versions() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("gristmill".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("datafusion".to_string(), datafusion::DATAFUSION_VERSION.to_string()),
        ("target".to_string(), format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)),
    ])
}

/// The files that the query reads, sorted, with size and hash.
///
/// # Errors
/// A file that cannot be read.
pub(crate) async fn input_files(session: &Session, query: &DataFrame) -> Result<Vec<InputFile>> {
    let plan = query.clone().create_physical_plan().await?;
    let mut scanned: Vec<Scanned> = Vec::new();
    plan.apply(|node: &Arc<dyn ExecutionPlan>| {
        scanned.extend(files_of(node));
        Ok(TreeNodeRecursion::Continue)
    })?;
    scanned.sort();
    scanned.dedup();
    let mut files = Vec::with_capacity(scanned.len());
    for file in scanned {
        let location = Location::parse(&file.url)?;
        let sha256 = hash(session, &location, &file).await?;
        files.push(InputFile { location: location.to_string(), bytes: file.bytes, sha256 });
    }
    Ok(files)
}

/// A file as a scan names it; its time of change tells whether a hash that was taken before still holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Scanned {
    url: String,
    bytes: u64,
    modified: i64,
}

fn files_of(node: &Arc<dyn ExecutionPlan>) -> Vec<Scanned> {
    let Some(source) = node.downcast_ref::<DataSourceExec>() else { return Vec::new() };
    let Some(config) = source.data_source().downcast_ref::<FileScanConfig>() else { return Vec::new() };
    let store = config.object_store_url.as_str().trim_end_matches('/');
    let files = config.file_groups.iter().flat_map(|group| group.iter());
    files
        .map(|file| Scanned {
            url: format!("{store}/{}", file.object_meta.location),
            bytes: file.object_meta.size,
            modified: file.object_meta.last_modified.timestamp_micros(),
        })
        .collect()
}

/// Hashes of this process; two models of one script read the same files.
static HASHES: OnceLock<Mutex<HashMap<Scanned, String>>> = OnceLock::new();

async fn hash(session: &Session, location: &Location, file: &Scanned) -> Result<String> {
    let hashes = HASHES.get_or_init(Mutex::default);
    if let Some(known) = hashes.lock().unwrap_or_else(PoisonError::into_inner).get(file) {
        return Ok(known.clone());
    }
    let sha256 = session.stores().sha256(location).await?;
    hashes.lock().unwrap_or_else(PoisonError::into_inner).insert(file.clone(), sha256.clone());
    Ok(sha256)
}

#[allow(clippy::disallowed_methods, reason = "a model says when it was made")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// `2013-01-01T00:00:00Z`, after Howard Hinnant's days_from_civil read backwards.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = ((seconds / 86_400) as i64, seconds % 86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_people_read_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_356_998_400, "2013-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
