//! What ends other programs: files that are damaged in bad places, expressions of thousands of terms. Each is one message, or
//! an answer, and the program lives on.

use std::fs;
use std::process::Command;

use crate::cluster_process::shared;
use crate::program::{Place, REPOSITORY, finish};

/// Parquet whose footer is said to be longer than the file, and whose Arrow schema has other bytes here and there.
fn damaged(place: &Place) -> Vec<String> {
    let whole = fs::read(format!("{REPOSITORY}/examples/data/nycflights13/airlines.parquet")).unwrap();
    let mut names = Vec::new();
    let mut longer = whole.clone();
    let at = longer.len() - 8;
    longer[at..at + 4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    place.write("longer.parquet", &longer);
    names.push("longer.parquet".to_string());
    let footer = whole.len() - 8 - u32::from_le_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
    for number in 0..24_usize {
        let mut other = whole.clone();
        let place_of_damage = footer + (number * 97) % (whole.len() - 8 - footer);
        other[place_of_damage] ^= 0x44;
        let name = format!("other{number}.parquet");
        place.write(&name, &other);
        names.push(name);
    }
    let mut head = b"PAR1".to_vec();
    head.extend([0; 46]);
    head.extend(0xffff_fff0_u32.to_le_bytes());
    head.extend(b"PAR1");
    place.write("junk.parquet", &head);
    names.push("junk.parquet".to_string());
    names
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let place = Place::new();
    for name in damaged(&place) {
        let ended = place.run(&["-q", "-c", &format!("SELECT * FROM '{name}'")]);
        let told = &ended.stderr;
        assert!(matches!(ended.code, 0 | 1), "{name}: {} {told}", ended.code);
        assert!(!told.contains("panicked") && !told.contains("backtrace"), "{name}: {told}");
        assert!(ended.code == 0 || told.contains(&name), "{name}: {told}");
    }
}

#[test]
fn an_arrow_file_without_its_end_is_no_stream() {
    let place = Place::new();
    place.ok(&["-c", "COPY (SELECT value AS i FROM generate_series(1, 1000)) TO 'whole.arrow' STORED AS ARROW"]);
    let whole = fs::read(place.path("whole.arrow")).unwrap();
    place.write("cut.arrow", &whole[..whole.len() - 4]);
    let ended = place.run(&["-m", "64m", "-q", "-c", "SELECT count(*) FROM 'cut.arrow'"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("cut.arrow") && ended.stderr.contains("the end of the file is missing"),
        "{}",
        ended.stderr
    );
}

/// In one process and on executors; what would take the stack of a thread takes none of them along.
#[test]
fn long_expressions_are_answered() {
    let place = Place::new();
    place.write("t.csv", "k\n1\n2\n3\n");
    let long = |term: &str, between: &str, count: usize| vec![term; count].join(between);
    let values = (0..20_000).map(|k| k.to_string()).collect::<Vec<_>>().join(",");
    let different = (0..3_000).map(|k| format!("k = {k}")).collect::<Vec<_>>().join(" OR ");
    for (query, expected) in [
        (format!("SELECT sum({}) AS s FROM 't.csv'", long("k", " + ", 1_000)), "6000\n"),
        (format!("SELECT count(*) FROM 't.csv' WHERE {different}"), "3\n"),
        (format!("SELECT count(*) FROM 't.csv' WHERE {}", long("k > 1", " AND ", 3_000)), "2\n"),
        (format!("SELECT count(*) FROM 't.csv' WHERE k IN ({values})"), "3\n"),
        (format!("SELECT max(length({})) FROM 't.csv'", long("'ab'", " || ", 2_000)), "4000\n"),
    ] {
        place.write("long.sql", query);
        assert_eq!(place.ok(&["-q", "--format", "csv", "--no-header", "-f", "long.sql"]).stdout, expected);
        let address = shared().address().to_string();
        let arguments = ["-q", "--format", "csv", "--no-header", "--cluster", &address, "-f", "long.sql"];
        assert_eq!(place.ok(&arguments).stdout, expected);
    }
    let deep = format!("SELECT {} FROM 't.csv'", long("k", " + ", 4_500));
    place.write("deep.sql", deep);
    let ended = place.run(&["-q", "-f", "deep.sql"]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("levels, one within the other"), "{}", ended.stderr);
    // The executors have lived through all of it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command.args(["-q", "--format", "csv", "--no-header", "--cluster", &shared().address().to_string()]);
    command.args(["-c", "SELECT sum(k) FROM 't.csv'"]).current_dir(place.path(""));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_eq!(finish(&mut command).stdout, "6\n");
}
