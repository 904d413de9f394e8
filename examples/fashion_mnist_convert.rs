//! Converts Fashion-MNIST from its idx.gz files to Parquet with one `FixedSizeList<Float32, 784>` column of pixels.
//!
//! ```text
//! sudo apt-get install dataset-fashion-mnist
//! cargo run --release --example fashion_mnist_convert [SOURCE_DIR] [TARGET_DIR]
//! ```
//!
//! Writes `train.parquet` (60,000 rows) and `test.parquet` (10,000 rows) with columns `label` (BIGINT, 0 to 9) and
//! `pixels` (row by row from the top left, 0 = black to 1 = white).

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use flate2::read::GzDecoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

const DEFAULT_SOURCE: &str = "/usr/share/datasets/fashion-mnist";
const DEFAULT_TARGET: &str = "out/fashion_mnist";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let source = arguments.next().unwrap_or_else(|| DEFAULT_SOURCE.into());
    let target = arguments.next().unwrap_or_else(|| DEFAULT_TARGET.into());
    fs::create_dir_all(&target)?;
    for (from, to) in [("train", "train.parquet"), ("t10k", "test.parquet")] {
        let images = Idx::read(&source.join(format!("{from}-images-idx3-ubyte.gz")), 3)?;
        let labels = Idx::read(&source.join(format!("{from}-labels-idx1-ubyte.gz")), 1)?;
        let path = target.join(to);
        write(&path, &images, &labels)?;
        println!("{}: {} images", path.display(), labels.bytes.len());
    }
    Ok(())
}

/// An idx file: `shape[0]` items, the bytes of the last dimension side by side.
struct Idx {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Idx {
    /// Reads a gzipped idx file of unsigned bytes: magic `00 00 08 dimensions`, one big-endian u32 per dimension, then
    /// the data.
    fn read(path: &Path, dimensions: usize) -> Result<Self, Box<dyn Error>> {
        let file = File::open(path).map_err(|error| {
            format!("{}: {error}\nhint: apt-get install dataset-fashion-mnist, or name its folder", path.display())
        })?;
        let mut content = Vec::new();
        GzDecoder::new(file).read_to_end(&mut content)?;
        let header = 4 + 4 * dimensions;
        if content.len() < header || content[..4] != [0, 0, 8, dimensions as u8] {
            return Err(format!("{}: not an idx file of bytes with {dimensions} dimensions", path.display()).into());
        }
        let shape: Vec<usize> = content[4..header]
            .chunks_exact(4)
            .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as usize)
            .collect();
        let expected: usize = shape.iter().product();
        if content.len() != header + expected {
            return Err(
                format!("{}: {} bytes of data, expected {expected}", path.display(), content.len() - header).into()
            );
        }
        Ok(Idx { shape, bytes: content.split_off(header) })
    }
}

fn write(path: &Path, images: &Idx, labels: &Idx) -> Result<(), Box<dyn Error>> {
    let pixels_per_image: usize = images.shape[1..].iter().product();
    if images.shape[0] != labels.shape[0] {
        return Err(format!("{} images but {} labels", images.shape[0], labels.shape[0]).into());
    }
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let pixels: Float32Array = images.bytes.iter().map(|byte| f32::from(*byte) / 255.0).collect::<Vec<_>>().into();
    let pixels = FixedSizeListArray::try_new(item, i32::try_from(pixels_per_image)?, Arc::new(pixels), None)?;
    let label: Int64Array = labels.bytes.iter().map(|byte| i64::from(*byte)).collect::<Vec<_>>().into();
    let schema = Arc::new(Schema::new(vec![
        Field::new("label", DataType::Int64, false),
        Field::new("pixels", pixels.data_type().clone(), false),
    ]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(label) as ArrayRef, Arc::new(pixels)])?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(10_000))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}
