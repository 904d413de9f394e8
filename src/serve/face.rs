//! How a job on the scheduler reads: the lines that `run` would have printed.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use engine::cluster::JobFace;
use engine::cluster::api::LogStream;
use engine::events::Event;
use engine::{Error, Result};
use futures::StreamExt;

use crate::args::Format;
use crate::color::Paint;
use crate::diagnostic::{Exit, render};
use crate::format::Style;
use crate::progress::plain_line;

/// Rows of a result that are kept in the log.
const ROWS_MAX: usize = 1000;

/// See the module.
pub(super) struct PlainFace;

#[async_trait]
impl JobFace for PlainFace {
    fn event(&self, event: &Event) -> Option<(LogStream, String)> {
        let stream = if matches!(event, Event::Warning(_)) { LogStream::Warning } else { LogStream::Progress };
        plain_line(event).map(|text| (stream, text))
    }

    async fn rows(&self, mut rows: SendableRecordBatchStream) -> Result<(String, u64)> {
        let out = Shared::default();
        let style = Style { header: true, rows_max: Some(ROWS_MAX), ..Style::default() };
        let mut writer = Format::Table.writer(&rows.schema(), Box::new(out.clone()), &style)?;
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            count += batch.num_rows() as u64;
            writer.batch(&batch)?;
        }
        writer.finish()?;
        Ok((out.text(), count))
    }

    fn failure(&self, error: &Error) -> (String, u8) {
        (render(error, Paint::new(false)), Exit::of(error) as u8)
    }
}

/// Text that a writer owns and that is read afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).trim_end().to_string()
    }
}

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
