//! Text and what it means.

use super::*;

#[test]
fn text_becomes_canonical() {
    let cwd = std::env::current_dir().unwrap().to_str().unwrap().to_string();
    let cases = [
        ("/a/b.csv", "/a/b.csv".to_string(), "file:///a/b.csv".to_string()),
        ("/a//b/./../c/", "/a/c/".into(), "file:///a/c/".into()),
        ("file:///a/b%20c.csv", "/a/b c.csv".into(), "file:///a/b%20c.csv".into()),
        ("file://localhost/a", "/a".into(), "file:///a".into()),
        ("file:/a", "/a".into(), "file:///a".into()),
        ("/a/b%20c", "/a/b%20c".into(), "file:///a/b%2520c".into()),
        ("/data/x-?.csv", "/data/x-?.csv".into(), "file:///data/x-%3F.csv".into()),
        ("memory://m/t/x", "memory://m/t/x".into(), "memory://m/t/x".into()),
        ("memory:///t/x/", "memory:///t/x/".into(), "memory:///t/x/".into()),
        ("memory://", "memory:///".into(), "memory:///".into()),
        ("/", "/".into(), "file:///".into()),
        ("FILE:///a", "/a".into(), "file:///a".into()),
        (
            "s3a://lake/raw/2013-*/part-?.parquet",
            "s3://lake/raw/2013-*/part-?.parquet".into(),
            "s3://lake/raw/2013-*/part-%3F.parquet".into(),
        ),
        ("S3://Lake", "s3://Lake/".into(), "s3://Lake/".into()),
        ("gcs://b/a b/", "gs://b/a%20b/".into(), "gs://b/a%20b/".into()),
        ("azure://c/x", "az://c/x".into(), "az://c/x".into()),
        (
            "abfs://c@Acc.dfs.core.windows.net/x",
            "abfss://c@acc.dfs.core.windows.net/x".into(),
            "abfss://c@acc.dfs.core.windows.net/x".into(),
        ),
        (
            "wasbs://c@acc.blob.core.windows.net/x",
            "abfss://c@acc.dfs.core.windows.net/x".into(),
            "abfss://c@acc.dfs.core.windows.net/x".into(),
        ),
        ("HTTPS://Host:443/a.csv", "https://host/a.csv".into(), "https://host/a.csv".into()),
        ("http://127.0.0.1:8000/a.csv", "http://127.0.0.1:8000/a.csv".into(), "http://127.0.0.1:8000/a.csv".into()),
        ("hdfs://nn:8020/lake/", "hdfs://nn:8020/lake/".into(), "hdfs://nn:8020/lake/".into()),
        ("hdfs:///lake", "hdfs:///lake".into(), "hdfs:///lake".into()),
        ("viewfs://cluster/data", "viewfs://cluster/data".into(), "viewfs://cluster/data".into()),
        ("a b/c.csv", format!("{cwd}/a b/c.csv"), format!("file://{cwd}/a%20b/c.csv")),
        ("odd:name.csv", format!("{cwd}/odd:name.csv"), format!("file://{cwd}/odd:name.csv")),
    ];
    for (text, display, url) in cases {
        let location = Location::parse(text).unwrap();
        assert_eq!(location.to_string(), display, "{text}");
        assert_eq!(location.url().as_str(), url, "{text}");
        assert_eq!(Location::parse(&location.to_string()).unwrap(), location, "{text}: display parses back");
        assert_eq!(Location::parse(location.url().as_str()).unwrap(), location, "{text}: URL parses back");
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let cases = [
        ("webhdfs://n/x", "webhdfs:// (Hadoop file systems over HTTP; hdfs:// is read) is not in this build yet"),
        ("hf://datasets/x", "Hugging Face"),
        ("s3:///x", "names no bucket: s3://bucket/path"),
        ("az://", "names no container"),
        ("s3://127.0.0.1:9000/b/x", "127.0.0.1:9000 is no bucket's name; the address of a store is its endpoint"),
        ("s3://b*/x", "a glob begins after the first name"),
        ("s3://gs://b/x", "has two schemes, s3:// and gs://"),
        ("/data/s3://b/x", "has s3:// in the middle of a path"),
        ("az://account.blob.core.windows.net/c/x", "is no container's name: az://container@account"),
        ("https://h/x.csv?sig=secret", "https://h/x.csv?...: web servers are read by path"),
        ("https://user:secret@h/x.csv", "https://...@h: keys and passwords do not belong in a location"),
        ("s3://AKIA:secret@b/x", "s3://...@b: keys and passwords do not belong in a location"),
        ("abfss://key:secret@a.dfs.core.windows.net/x", "abfss://...@a.dfs.core.windows.net: write abfss://container@"),
        ("memry://x", "unknown scheme memry://, did you mean memory://?"),
        ("fil:///x", "did you mean file://?"),
        ("quux://x", "unknown scheme quux://: known are s3"),
        ("file://a/b", "three slashes (file:///a/b)"),
        ("", "empty text"),
        ("a\tb", "control characters"),
    ];
    for (text, expected) in cases {
        let message = Location::parse(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!message.contains("secret"), "{text}: {message}");
    }
}

#[test]
fn parts() {
    let table = Location::parse("memory://m/warehouse/flights/").unwrap();
    assert!(table.is_directory_like() && !table.is_glob());
    let file = table.join("month=1/part 0%.parquet");
    assert_eq!(file.to_string(), "memory://m/warehouse/flights/month=1/part%200%25.parquet");
    assert_eq!(file.file_name(), Some("part 0%.parquet"));
    assert_eq!(file.extension(), Some("parquet"));
    assert_eq!(file.local_path(), None);
    assert_eq!(file.parent().unwrap(), table.join("month=1/"));
    assert_eq!(file.store_url().as_str(), "memory://m/");
    assert_eq!(table.join("a\nb").file_name(), Some("a%0Ab"));
    let local = Location::parse("/x/*.csv").unwrap();
    assert!(local.is_glob());
    assert_eq!(local.local_path().unwrap(), PathBuf::from("/x/*.csv"));
    assert_eq!(Location::parse("/").unwrap().parent(), None);
    assert_eq!(Location::parse("/x").unwrap().as_directory().to_string(), "/x/");
}
