//! One result, every format.

use std::io;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use bytes_of::Shared;

use super::*;

mod bytes_of {
    use super::*;

    /// A byte sink that can be read after its writer has taken it.
    #[derive(Clone, Default)]
    pub(super) struct Shared(pub(super) Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

fn sample() -> RecordBatch {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let columns: [(&str, ArrayRef); 5] = [
        ("carrier", Arc::new(StringArray::from(vec![Some("UA"), None, Some("a|b,\"c\"\td")]))),
        ("flights", Arc::new(Int64Array::from(vec![Some(58_665), Some(7), None]))),
        ("delay", Arc::new(Float64Array::from(vec![Some(3.5), Some(-0.25), None]))),
        ("first", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_357_016_400_000_000), None, Some(1_500)]))),
        ("parts", Arc::new(lists)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn written(format: Format, batches: &[RecordBatch], style: &Style) -> Vec<u8> {
    let shared = Shared::default();
    let mut writer = format.writer(&batches[0].schema(), Box::new(shared.clone()), style).unwrap();
    batches.iter().for_each(|batch| writer.batch(batch).unwrap());
    writer.finish().unwrap();
    shared.0.lock().unwrap().clone()
}

fn text(format: Format, batches: &[RecordBatch], style: &Style) -> String {
    String::from_utf8(written(format, batches, style)).unwrap()
}

fn plain() -> Style {
    Style { header: true, ..Style::default() }
}

#[test]
fn text_formats() {
    let cases = [
        (
            Format::Csv,
            plain(),
            "carrier,flights,delay,first,parts\n\
             UA,58665,3.5,2013-01-01T05:00:00,\"[1,null]\"\n\
             ,7,-0.25,,\n\
             \"a|b,\"\"c\"\"\td\",,,1970-01-01T00:00:00.001500,[]\n",
        ),
        (
            Format::Tsv,
            Style { null: Some("NA".to_string()), header: false, ..Style::default() },
            "UA\t58665\t3.5\t2013-01-01T05:00:00\t[1,null]\n\
             NA\t7\t-0.25\tNA\tNA\n\
             \"a|b,\"\"c\"\"\td\"\tNA\tNA\t1970-01-01T00:00:00.001500\t[]\n",
        ),
        (
            Format::Jsonl,
            plain(),
            "{\"carrier\":\"UA\",\"flights\":58665,\"delay\":3.5,\"first\":\"2013-01-01T05:00:00\",\"parts\":[1,null]}\n\
             {\"carrier\":null,\"flights\":7,\"delay\":-0.25,\"first\":null,\"parts\":null}\n\
             {\"carrier\":\"a|b,\\\"c\\\"\\td\",\"flights\":null,\"delay\":null,\"first\":\"1970-01-01T00:00:00.001500\",\"parts\":[]}\n",
        ),
        (
            Format::Markdown,
            plain(),
            "| carrier | flights | delay | first | parts |\n| --- | ---: | ---: | --- | --- |\n\
             | UA | 58665 | 3.5 | 2013-01-01T05:00:00 | [1,null] |\n\
             | NULL | 7 | -0.25 | NULL | NULL |\n\
             | a\\|b,\"c\"\td | NULL | NULL | 1970-01-01T00:00:00.001500 | [] |\n",
        ),
        (
            Format::Table,
            plain(),
            "┌────────────┬─────────┬───────┬────────────────────────────┬───────────┐\n\
             │ carrier    │ flights │ delay │ first                      │ parts     │\n\
             ├────────────┼─────────┼───────┼────────────────────────────┼───────────┤\n\
             │ UA         │   58665 │   3.5 │ 2013-01-01 05:00:00        │ [1, NULL] │\n\
             │ NULL       │       7 │ -0.25 │ NULL                       │ NULL      │\n\
             │ a|b,\"c\"\\td │    NULL │  NULL │ 1970-01-01 00:00:00.001500 │ []        │\n\
             └────────────┴─────────┴───────┴────────────────────────────┴───────────┘\n\
             3 rows\n",
        ),
    ];
    for (format, style, expected) in cases {
        assert_eq!(text(format, &[sample()], &style), expected, "{format:?}");
    }
}

#[test]
fn json_is_one_array_even_of_nothing() {
    let rows: serde_json::Value = serde_json::from_str(&text(Format::Json, &[sample(), sample()], &plain())).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 6);
    assert_eq!(rows[1]["parts"], serde_json::Value::Null);
    assert_eq!(text(Format::Json, &[sample().slice(0, 0)], &plain()), "[]\n");
}

#[test]
fn a_result_without_rows_has_its_header() {
    let nothing = [sample().slice(0, 0)];
    assert_eq!(text(Format::Csv, &nothing, &plain()), "carrier,flights,delay,first,parts\n");
    assert!(text(Format::Markdown, &nothing, &plain()).starts_with("| carrier |"));
    assert!(text(Format::Table, &nothing, &plain()).ends_with("0 rows\n"));
}

#[test]
fn a_long_table_on_a_terminal_shows_its_first_rows_and_counts_the_rest() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let batches = vec![batch; 1234];
    let style = Style { rows_max: Some(40), ..plain() };
    let table = text(Format::Table, &batches, &style);
    assert!(table.ends_with("└────┘\n40 of 1,234,000 rows\n"), "{table}");
    assert_eq!(table.lines().count(), 40 + 4 + 1);
    let all = text(Format::Table, &batches[..25], &plain());
    assert!(all.ends_with("25,000 rows\n"), "{}", &all[all.len() - 200..]);
}

#[test]
fn a_wide_table_fits_the_terminal() {
    let column = || Arc::new(StringArray::from(vec!["some longer text 漢字 to be cut"])) as ArrayRef;
    let names: Vec<String> = (0..12).map(|n| format!("column_{n}")).collect();
    let batch = RecordBatch::try_from_iter(names.iter().map(|name| (name, column()))).unwrap();
    for width in [50, 80, 120] {
        let table = text(Format::Table, std::slice::from_ref(&batch), &Style { width: Some(width), ..plain() });
        for line in table.lines() {
            assert!(unicode_width::UnicodeWidthStr::width(line) <= width, "{width}: {line}");
        }
        assert!(table.contains("column_0") && table.contains("column_11"), "{table}");
        assert!(table.contains("of 12 columns"), "{table}");
    }
}

#[test]
fn binary_formats_come_back_as_they_were() {
    let batch = sample();
    let stream = written(Format::Arrow, &[batch.clone(), batch.clone()], &plain());
    let read: Vec<RecordBatch> =
        arrow::ipc::reader::StreamReader::try_new(&stream[..], None).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, [batch.clone(), batch.clone()]);
    let file = written(Format::Arrow, std::slice::from_ref(&batch), &Style { to_file: true, ..plain() });
    let read = arrow::ipc::reader::FileReader::try_new(io::Cursor::new(file), None).unwrap().next().unwrap().unwrap();
    assert_eq!(read, batch);
    let file = written(Format::Parquet, std::slice::from_ref(&batch), &plain());
    assert_eq!(&file[..4], b"PAR1");
    assert_eq!(&file[file.len() - 4..], b"PAR1");
}

#[test]
fn names_of_files_ask_for_formats() {
    for (name, format) in [
        ("a.csv", Some(Format::Csv)),
        ("s3://b/a.Parquet", Some(Format::Parquet)),
        ("a.b.jsonl", Some(Format::Jsonl)),
        ("a", None),
        ("a.xyz", None),
    ] {
        assert_eq!(Format::of_name(name), format, "{name}");
    }
}

#[test]
fn a_closed_pipe_is_told_from_a_full_disk() {
    struct Failing(io::ErrorKind);
    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }
    for format in
        [Format::Table, Format::Csv, Format::Json, Format::Jsonl, Format::Markdown, Format::Arrow, Format::Parquet]
    {
        for (kind, closed) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            let attempt = || {
                let mut writer = format.writer(&sample().schema(), Box::new(Failing(kind)), &plain())?;
                writer.batch(&sample())?;
                writer.finish()
            };
            let error = attempt().err().unwrap_or_else(|| panic!("{format:?} did not notice"));
            assert_eq!(is_closed_pipe(&error), closed, "{format:?}: {error:?}");
        }
    }
}
