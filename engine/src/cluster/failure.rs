//! Why a task failed, told so that the driver can tell the user. Upstream an error becomes text on its way to the driver,
//! with the names of Rust types in it; this text carries its kind and its nouns through that, and the driver makes the
//! same error of it again.

use std::fmt;
use std::io;

use arrow::error::ArrowError;
use ballista_core::error::BallistaError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};

use crate::error::Error;

const BEGIN: &str = "<<gristmill failure ";
const END: &str = " failure ends>>";
/// How the status of a call between processes begins when it is printed.
const CALL_FAILED: &str = "code: '";
/// What upstream says of a call that ends before its first rows.
const ENDED_EARLY: &str = "Premature end of the stream";

/// What the driver must know to make the error again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    /// Our own, for the user.
    Invalid,
    ResourcesExhausted,
    DivideByZero,
    Overflow,
    /// A value that cannot be read or converted.
    Value,
    Parquet,
    Store,
    /// A panic.
    Fault,
    /// A table that was replaced while it was read.
    Replaced,
    Other,
}

/// A failure that prints, also as Debug text, what [`read`] finds.
struct Told(String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Told {}

/// Makes an error ready for its way: of the kind that is tried again when trying again may help.
pub(super) fn write(error: DataFusionError) -> DataFusionError {
    if is_upstreams_own(&error) {
        return error;
    }
    let written = describe(&error);
    // Plain text and an enum: serializing them does not fail.
    let text = serde_json::to_string(&written).unwrap_or_else(|_| written.message.clone());
    let told = Told(format!("{BEGIN}{text}{END}"));
    if is_transient(&error) {
        DataFusionError::IoError(io::Error::other(told))
    } else {
        DataFusionError::External(Box::new(told))
    }
}

/// Lost shuffle files and cancelled tasks are told apart by their types.
fn is_upstreams_own(error: &DataFusionError) -> bool {
    let is_own = |source: &(dyn std::error::Error + Send + Sync + 'static)| match source.downcast_ref::<BallistaError>()
    {
        Some(BallistaError::DataFusionError(inner)) => is_upstreams_own(inner),
        Some(BallistaError::ArrowError(_)) | None => false,
        Some(_) => true,
    };
    match error.find_root() {
        DataFusionError::External(source) => is_own(source.as_ref()),
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::ExternalError(source) => is_own(source.as_ref()),
            _ => false,
        },
        _ => false,
    }
}

/// Whether the same task may succeed in a while, or elsewhere.
fn is_transient(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::IoError(error) => is_transient_io(error),
        DataFusionError::ObjectStore(error) => is_transient_store(error),
        DataFusionError::ArrowError(error, _) => is_broken_fetch(error),
        DataFusionError::External(source) => {
            if let Some(error) = source.downcast_ref::<object_store::Error>() {
                return is_transient_store(error);
            }
            match source.downcast_ref::<BallistaError>() {
                Some(BallistaError::ArrowError(error)) => is_broken_fetch(error),
                Some(BallistaError::DataFusionError(inner)) => is_transient(inner),
                _ => source.downcast_ref::<io::Error>().is_some_and(is_transient_io),
            }
        }
        _ => false,
    }
}

/// Whether rows that another executor was sending have broken off, as they do when it dies. Upstream makes a text of that,
/// and takes only a connection that was never made for a loss (Ballista 55).
fn is_broken_fetch(error: &ArrowError) -> bool {
    match error {
        ArrowError::IpcError(message) => [CALL_FAILED, ENDED_EARLY].iter().any(|sign| message.contains(sign)),
        ArrowError::ExternalError(source) => source.downcast_ref::<DataFusionError>().is_some_and(is_transient),
        _ => false,
    }
}

fn is_transient_io(error: &io::Error) -> bool {
    use io::ErrorKind;
    !matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::StorageFull
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::IsADirectory
            | ErrorKind::Unsupported
    )
}

fn is_transient_store(error: &object_store::Error) -> bool {
    if let object_store::Error::Generic { source, .. } = error
        && let Some(own) = source.downcast_ref::<storage::Error>()
    {
        // Wrong keys, a damaged table, a place that is none: the same wherever it is tried.
        return matches!(own, storage::Error::Refused { .. } | storage::Error::Store { .. });
    }
    matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
}

fn describe(error: &DataFusionError) -> Written {
    let root = error.find_root();
    let plain = |kind, message: String| Written { kind, message, hint: None };
    if let Some(Error::Replaced(message)) = Error::of_storage(error) {
        return plain(Kind::Replaced, message);
    }
    match root {
        DataFusionError::ResourcesExhausted(message) => plain(Kind::ResourcesExhausted, message.clone()),
        DataFusionError::ArrowError(error, _) => describe_arrow(error),
        DataFusionError::ParquetError(error) => plain(Kind::Parquet, error.to_string()),
        DataFusionError::ObjectStore(error) => plain(
            Kind::Store,
            storage::Error::inside(error.as_ref()).map_or_else(|| error.to_string(), ToString::to_string),
        ),
        DataFusionError::External(source) => match source.downcast_ref::<Error>() {
            Some(Error::Invalid { message, hint, .. }) => {
                Written { kind: Kind::Invalid, message: message.clone(), hint: hint.clone() }
            }
            Some(Error::Query(inner)) => describe(inner),
            Some(Error::Fault(text)) => plain(Kind::Fault, text.clone()),
            Some(own) => plain(Kind::Invalid, own.to_string()),
            None => match source.downcast_ref::<BallistaError>() {
                Some(BallistaError::DataFusionError(inner)) => describe(inner),
                Some(BallistaError::ArrowError(error)) => describe_arrow(error),
                _ if source.is::<ParquetError>() => plain(Kind::Parquet, source.to_string()),
                _ => match source.downcast_ref::<ArrowError>() {
                    Some(error) => describe_arrow(error),
                    None => plain(Kind::Other, source.to_string()),
                },
            },
        },
        DataFusionError::ExecutionJoin(error) if error.is_panic() => plain(Kind::Fault, error.to_string()),
        root => plain(Kind::Other, root.strip_backtrace()),
    }
}

fn describe_arrow(error: &ArrowError) -> Written {
    let plain = |kind, message: String| Written { kind, message, hint: None };
    match error {
        ArrowError::DivideByZero => plain(Kind::DivideByZero, error.to_string()),
        ArrowError::ArithmeticOverflow(message) => plain(Kind::Overflow, message.clone()),
        ArrowError::ExternalError(source) => match source.downcast_ref::<DataFusionError>() {
            Some(inner) => describe(inner),
            None => plain(Kind::Value, source.to_string()),
        },
        error => plain(Kind::Value, error.to_string()),
    }
}

/// Makes the error again from what the scheduler says about a failed job.
pub(super) fn read(text: &str) -> DataFusionError {
    let Some(written) = find(text) else { return DataFusionError::Execution(without_types(text)) };
    let Written { kind, message, hint } = written;
    match kind {
        Kind::ResourcesExhausted => DataFusionError::ResourcesExhausted(message),
        Kind::DivideByZero => DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None),
        Kind::Overflow => DataFusionError::ArrowError(Box::new(ArrowError::ArithmeticOverflow(message)), None),
        Kind::Value => DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(message.into())), None),
        Kind::Parquet => DataFusionError::ParquetError(Box::new(ParquetError::General(message))),
        Kind::Invalid | Kind::Store => {
            let error = Error::invalid(message);
            DataFusionError::External(Box::new(hint.into_iter().fold(error, |error, hint| error.with_hint(hint))))
        }
        Kind::Fault => DataFusionError::External(Box::new(Error::Fault(message))),
        Kind::Replaced => DataFusionError::External(Box::new(Error::Replaced(message))),
        Kind::Other => DataFusionError::Execution(message),
    }
}

fn find(text: &str) -> Option<Written> {
    let begin = text.find(BEGIN)? + BEGIN.len();
    let end = begin + text[begin..].find(END)?;
    let inner = &text[begin..end];
    // Where an error was printed as the Debug form of a string, its quotes are escaped.
    serde_json::from_str(inner)
        .or_else(|_| {
            serde_json::from_str::<String>(&format!("\"{inner}\"")).and_then(|text| serde_json::from_str(&text))
        })
        .ok()
}

/// Takes `DataFusionError(Execution("...` and the like off the front of what upstream says itself.
fn without_types(text: &str) -> String {
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        let word = trimmed.find(|c: char| !c.is_alphanumeric()).unwrap_or(0);
        match trimmed[word..].strip_prefix('(') {
            Some(inner) if word > 0 && trimmed.starts_with(char::is_uppercase) => rest = inner,
            _ => return trimmed.trim_matches(|c| matches!(c, '"' | ')')).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it looks when it has come through the scheduler.
    fn through_the_scheduler(error: DataFusionError) -> DataFusionError {
        let error = BallistaError::from(write(error));
        let failed = ballista_core::serde::protobuf::FailedTask::from(error);
        read(&format!("Job 7 failed: Job failed due to stage 1 failed: {}", failed.error))
    }

    fn replaced() -> storage::Error {
        storage::Error::Replaced { location: "/t/a.parquet".to_string() }
    }

    #[test]
    fn errors_keep_kind_message_and_hint() {
        let arrow = |error| DataFusionError::ArrowError(Box::new(error), None);
        for (error, expected) in [
            (DataFusionError::ResourcesExhausted("out of \"memory\": sort".into()), "out of \"memory\": sort"),
            (arrow(ArrowError::DivideByZero), "Divide by zero error"),
            (DataFusionError::Shared(std::sync::Arc::new(arrow(ArrowError::DivideByZero))), "Divide by zero error"),
            (arrow(ArrowError::CastError("`x` is no\nnumber".into())), "`x` is no\nnumber"),
            (DataFusionError::Execution("too few".into()), "too few"),
            (DataFusionError::ParquetError(Box::new(ParquetError::General("bad footer".into()))), "bad footer"),
            (DataFusionError::External(Box::new(Error::invalid("column `x` is infinite"))), "column `x` is infinite"),
            (DataFusionError::External(Box::new(replaced())), "/t/a.parquet: was replaced"),
        ] {
            let kind = std::mem::discriminant(error.find_root());
            let got = through_the_scheduler(error);
            assert_eq!(std::mem::discriminant(&got), kind, "{got:?}");
            assert!(got.to_string().contains(expected), "{got}");
            assert!(!got.to_string().contains("gristmill failure"), "{got}");
        }
        match through_the_scheduler(DataFusionError::External(Box::new(replaced()))) {
            DataFusionError::External(source) => {
                assert!(matches!(*source.downcast::<Error>().unwrap(), Error::Replaced(_)));
            }
            other => panic!("{other}"),
        }
        let hinted = Error::invalid("no column `a`").with_hint("did you mean `b`?");
        match through_the_scheduler(DataFusionError::External(Box::new(hinted))) {
            DataFusionError::External(source) => match *source.downcast::<Error>().unwrap() {
                Error::Invalid { hint, .. } => assert_eq!(hint.as_deref(), Some("did you mean `b`?")),
                other => panic!("{other}"),
            },
            other => panic!("{other}"),
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let io = |kind| DataFusionError::IoError(io::Error::new(kind, "x"));
        let store = |message: &'static str| {
            DataFusionError::ObjectStore(Box::new(object_store::Error::Generic { store: "s3", source: message.into() }))
        };
        // As upstream wraps what has happened to a connection, and what is wrong with a file.
        let fetch = |message: String| {
            let error = ArrowError::IpcError(format!("Arrow error: Ipc error: {message}"));
            DataFusionError::External(Box::new(BallistaError::ArrowError(Box::new(error))))
        };
        let broken = tonic::Status::unknown("h2 protocol error: error reading a body from connection").to_string();
        let arrow = |message: &str| DataFusionError::ArrowError(Box::new(ArrowError::IpcError(message.into())), None);
        for (error, retryable) in [
            (fetch(broken.clone()), true),
            (arrow(&broken), true),
            (arrow("Premature end of the stream while decoding schema"), true),
            (arrow("Not expecting a schema when messages are read"), false),
            (io(io::ErrorKind::ConnectionReset), true),
            (store("503 SlowDown"), true),
            (io(io::ErrorKind::StorageFull), false),
            (io(io::ErrorKind::NotFound), false),
            (DataFusionError::Execution("division".into()), false),
            (DataFusionError::ResourcesExhausted("memory".into()), false),
        ] {
            let text = error.to_string();
            let failed = ballista_core::serde::protobuf::FailedTask::from(BallistaError::from(write(error)));
            assert_eq!(failed.retryable, retryable, "{text}");
        }
    }

    #[test]
    fn what_upstream_says_itself_loses_its_types() {
        for (text, expected) in [
            ("DataFusionError(Execution(\"no executors\"))", "no executors"),
            ("Internal(\"x\")", "x"),
            ("Job 1 cancelled", "Job 1 cancelled"),
        ] {
            assert_eq!(without_types(text), expected);
        }
    }
}
