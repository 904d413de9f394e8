//! Where the rows of a job go: to stdout or into one file of any location, in the wanted format. A reader that closes its
//! end of the pipe (`| head`) ends the printing, not the job; a file appears whole, under its name, when the job has ended
//! well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::memory::MemoryStream;
use engine::{Error, Result, ResultSink};
use futures::StreamExt;
use storage::{Location, Scheme, Stores};

use crate::args::Format;
use crate::config::Settings;
use crate::format::{Out, RowWriter, Style, is_closed_pipe, write_failed};
use crate::progress::Display;

const BUFFER_BYTES: usize = 1 << 16;

/// Prints results.
pub(crate) struct Printer {
    format: Format,
    style: Style,
    target: Target,
    display: Display,
    results: AtomicUsize,
    closed: AtomicBool,
}

enum Target {
    Stdout,
    /// The file's name, the hidden one it has until it is whole, and the open file.
    File {
        path: PathBuf,
        staged: PathBuf,
        file: File,
    },
    /// The object's place, and a file without a name that is sent there when it is whole.
    Object {
        location: Location,
        file: File,
    },
}

impl Printer {
    /// Prints to stdout, or into `output` where it is given. `terminal` is the width of the terminal that stdout is.
    ///
    /// # Errors
    /// An output whose format is not known, or that cannot be made; binary bytes for a terminal.
    pub(crate) fn new(
        settings: &Settings,
        output: Option<&str>,
        terminal: Option<usize>,
        display: Display,
    ) -> Result<Self> {
        let named = output.and_then(Format::of_name);
        let format = settings.format.or(named).unwrap_or(Format::Table);
        if let (Some(output), None, None) = (output, settings.format, named) {
            return Err(Error::Usage(format!("-o {output}: the name does not tell the format; add --format")));
        }
        if output.is_none() && terminal.is_some() && format.is_binary() {
            return Err(Error::Usage("binary output is not for a terminal; use -o FILE or a pipe".to_string()));
        }
        let target = output.map_or(Ok(Target::Stdout), staged)?;
        let style = Style {
            null: settings.null.clone(),
            header: settings.header,
            width: terminal,
            rows_max: terminal.and(settings.rows_max),
            to_file: output.is_some(),
        };
        Ok(Printer { format, style, target, display, results: AtomicUsize::new(0), closed: AtomicBool::new(false) })
    }

    /// The format of the results.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether the results go to a file.
    pub(crate) fn is_file(&self) -> bool {
        !matches!(self.target, Target::Stdout)
    }

    /// The file takes its name, if there was a result for it.
    ///
    /// # Errors
    /// The file system's, and the store's.
    pub(crate) async fn commit(self, stores: &Stores) -> Result<()> {
        let nothing = self.results.load(Ordering::SeqCst) == 0;
        let without = |place: String| self.display.line(&format!("no result to write to {place}"));
        match &self.target {
            Target::File { path, .. } if nothing => without(path.display().to_string()),
            Target::Object { location, .. } if nothing => without(location.to_string()),
            Target::File { path, staged, file } => {
                file.sync_all().and_then(|()| fs::rename(staged, path)).map_err(|error| cannot_write(path, &error))?;
            }
            Target::Object { location, file } => {
                let file = file.try_clone().map_err(write_failed)?;
                stores.put_file(location, file).await?;
            }
            Target::Stdout => {}
        }
        Ok(())
    }

    /// Writes a small table of texts, one list of cells a row.
    pub(crate) async fn print_strings(&self, names: &[&str], rows: &[Vec<Option<String>>]) -> Result<()> {
        let columns = names.iter().enumerate().map(|(column, name)| {
            let cells: StringArray = rows.iter().map(|row| row[column].as_deref()).collect();
            (*name, Arc::new(cells) as ArrayRef)
        });
        self.print_columns(columns).await
    }

    /// Writes a small table that is already in memory.
    pub(crate) async fn print_columns<'a>(&self, columns: impl Iterator<Item = (&'a str, ArrayRef)>) -> Result<()> {
        let columns = columns.map(|(name, cells)| (name, cells, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).map_err(|error| Error::Query(error.into()))?;
        let schema = batch.schema();
        self.accept(1, Box::pin(MemoryStream::try_new(vec![batch], schema, None)?)).await.map(|_| ())
    }

    async fn print(&self, rows: SendableRecordBatchStream) -> Result<u64> {
        let schema = rows.schema();
        let earlier = self.results.fetch_add(1, Ordering::SeqCst);
        if earlier > 0 && !self.format.repeats() {
            return Err(Error::Usage("this format holds one result, and this is the second one".to_string()));
        }
        let out: Out = match &self.target {
            Target::Stdout => Box::new(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())),
            Target::File { path, file, .. } => {
                let file = file.try_clone().map_err(|error| cannot_write(path, &error))?;
                Box::new(BufWriter::with_capacity(BUFFER_BYTES, Named { file, path: path.clone() }))
            }
            Target::Object { file, .. } => {
                let file = file.try_clone().map_err(write_failed)?;
                Box::new(BufWriter::with_capacity(BUFFER_BYTES, Named { file, path: std::env::temp_dir() }))
            }
        };
        // Rows begin to flow before anything is written, so that an error comes without half a table before it.
        let mut rows = rows.peekable();
        if let Some(Err(_)) = std::pin::Pin::new(&mut rows).peek().await {
            self.results.fetch_sub(1, Ordering::SeqCst);
        }
        let mut writer: Option<Box<dyn RowWriter>> = None;
        let mut out = Some(out);
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            count += batch.num_rows() as u64;
            if writer.is_none() {
                self.display.pause();
                writer = out.take().map(|out| self.format.writer(&schema, out, &self.style)).transpose()?;
            }
            if let Some(writer) = &mut writer {
                writer.batch(&batch)?;
            }
            // Rows that are always there already would leave nobody time to hear that the job is to stop.
            tokio::task::yield_now().await;
        }
        match (writer, out) {
            (Some(writer), _) => writer.finish()?,
            (None, Some(out)) if !schema.fields().is_empty() => {
                self.display.pause();
                self.format.writer(&schema, out, &self.style)?.finish()?;
            }
            _ => {}
        }
        Ok(count)
    }
}

#[async_trait]
impl ResultSink for Printer {
    async fn accept(&self, _number: usize, rows: SendableRecordBatchStream) -> Result<u64> {
        if self.closed.load(Ordering::SeqCst) {
            return Ok(0);
        }
        let printed = self.print(rows).await;
        self.display.resume();
        match printed {
            Err(error) if matches!(self.target, Target::Stdout) && is_closed_pipe(&error) => {
                self.closed.store(true, Ordering::SeqCst);
                Ok(0)
            }
            printed => printed,
        }
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        if let Target::File { staged, .. } = &self.target {
            // Gone already after a commit; else the job failed and leaves nothing behind.
            let _ = fs::remove_file(staged);
        }
    }
}

fn staged(output: &str) -> Result<Target> {
    let location = Location::parse(output)?;
    let Some(path) = location.local_path() else { return object(output, location) };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| cannot_write(&path, &error))?;
    let staged = directory.join(format!(".{name}.{}.tmp", std::process::id()));
    let file = File::create(&staged).map_err(|error| cannot_write(&path, &error))?;
    Ok(Target::File { path, staged, file })
}

/// A file behind a network. Until it is whole its bytes are in a file of this machine that has no name, so that a process
/// which is killed leaves nothing.
fn object(output: &str, location: Location) -> Result<Target> {
    let refused = |why: &str| Err(Error::Usage(format!("-o {output}: {why}")));
    if location.scheme() == Scheme::Memory {
        return refused("memory is gone when the program ends");
    }
    if location.scheme().is_web() {
        return refused("web servers are only read");
    }
    if location.is_directory_like() {
        return refused("is a directory; COPY (query) TO writes one");
    }
    Ok(Target::Object { location, file: nameless()? })
}

/// A new file of the directory for temporary ones that nobody else can open.
fn nameless() -> Result<File> {
    let mut number = 0;
    loop {
        let path = std::env::temp_dir().join(format!(".gristmill-{}-{number}.tmp", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return fs::remove_file(&path).map(|()| file).map_err(|error| cannot_write(&path, &error)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(cannot_write(&path, &error)),
        }
    }
}

/// A file whose errors name it.
struct Named {
    file: File,
    path: PathBuf,
}

impl Named {
    fn named<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|error| io::Error::new(error.kind(), format!("cannot write {}: {error}", self.path.display())))
    }
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.file.write(bytes);
        self.named(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.file.flush();
        self.named(done)
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Error {
    write_failed(io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())))
}

/// Writes text to stdout; a closed pipe is quiet.
pub(crate) fn print_text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(write_failed(error)),
        _ => Ok(()),
    }
}
