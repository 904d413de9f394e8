//! A fault of the program, kept to the statement that meets it. Planning and running are other people's code as well as
//! ours, and a panic in it must not end a shell, a server or the program that calls the library: it becomes that
//! statement's error.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::Stream;

use crate::error::{Error, Result};

/// How many places of faults are remembered until somebody asks.
const PLACES_MAX: usize = 64;

/// Where panics happened that nobody has asked for yet, with their texts.
static PLACES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Has panics remembered with their places instead of printed; they are logged for those who look for a fault (`-v`).
pub fn remember() {
    std::panic::set_hook(Box::new(|panic| {
        let text = text_of(panic.payload());
        let place = panic.location().map_or_else(String::new, |place| {
            let file = place
                .file()
                .rsplit_once("/src/")
                .map_or(place.file(), |(begin, _)| &place.file()[begin.rfind('/').map_or(0, |slash| slash + 1)..]);
            format!("{file}:{}:{}", place.line(), place.column())
        });
        tracing::warn!(text, place, "a panic");
        tracing::debug!(trace = %std::backtrace::Backtrace::force_capture(), "its way");
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() == PLACES_MAX {
            places.remove(0);
        }
        places.push((text, place));
    }));
}

/// The error that a panic becomes.
pub fn of_panic(payload: &(dyn Any + Send)) -> Error {
    let text = text_of(payload);
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let place = places.iter().rposition(|(known, _)| *known == text).map(|index| places.remove(index).1);
    of_text(&match place.filter(|place| !place.is_empty()) {
        Some(place) => format!("{text} ({place})"),
        None => text,
    })
}

/// The error for a panic of which only the text is left.
pub(crate) fn of_text(text: &str) -> Error {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Error::Fault(text)
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_string();
    }
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "it says nothing".to_string())
}

/// Does work that may panic.
///
/// # Errors
/// What the work meets; [`Error::Fault`] when it panics.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(of_panic(panic.as_ref())))
}

/// A future that may panic.
pub(crate) fn kept<T, F: Future<Output = Result<T>>>(work: F) -> Kept<F> {
    Kept(Some(Box::pin(work)))
}

/// See [`kept`].
pub(crate) struct Kept<F>(Option<Pin<Box<F>>>);

impl<T, F: Future<Output = Result<T>>> Future for Kept<F> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Ready(Err(of_text("work goes on after its end"))) };
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        let panic = match polled {
            Ok(polled) => return polled,
            Err(panic) => panic,
        };
        // What is left of it is dropped here, where a second panic is caught as well.
        let rest = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(rest)));
        Poll::Ready(Err(of_panic(panic.as_ref())))
    }
}

/// Rows whose making may panic.
pub(crate) fn kept_rows(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    Box::pin(KeptRows { schema: rows.schema(), rows: Some(rows) })
}

struct KeptRows {
    schema: SchemaRef,
    /// `None` after a panic.
    rows: Option<SendableRecordBatchStream>,
}

impl Stream for KeptRows {
    type Item = datafusion::error::Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
        let polled = catch_unwind(AssertUnwindSafe(|| rows.as_mut().poll_next(context)));
        let panic = match polled {
            Ok(polled) => return polled,
            Err(panic) => panic,
        };
        let rest = self.rows.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(rest)));
        Poll::Ready(Some(Err(DataFusionError::External(Box::new(of_panic(panic.as_ref()))))))
    }
}

impl RecordBatchStream for KeptRows {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_works_own_error() {
        let failed: Result<()> = kept(async { panic!("the {} is empty", "barrel") }).await;
        let failed = failed.unwrap_err();
        assert!(matches!(failed, Error::Fault(_)), "{failed:?}");
        assert!(failed.to_string().contains("the barrel is empty"), "{failed}");
        assert_eq!(kept(async { Ok(7) }).await.unwrap(), 7);
        assert!(matches!(kept(async { Err::<(), _>(Error::Cancelled) }).await, Err(Error::Cancelled)));
    }
}
