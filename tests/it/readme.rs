//! README.md is true: its commands run, and the lines it quotes are printed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::program::{Place, REPOSITORY, finish};

fn readme() -> String {
    fs::read_to_string(Path::new(REPOSITORY).join("README.md")).unwrap()
}

/// The lines of the first code block after `heading`.
fn block_after<'t>(text: &'t str, heading: &str) -> Vec<&'t str> {
    let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("README.md has no {heading:?}"));
    rest.lines()
        .skip_while(|line| !line.starts_with("```"))
        .skip(1)
        .take_while(|line| !line.starts_with("```"))
        .collect()
}

/// A line without its numbers: digits, with the points and commas between them, become one `9`.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    let letters: Vec<char> = line.trim().chars().collect();
    for (index, letter) in letters.iter().enumerate() {
        let between_digits = |letter: char| {
            ".,".contains(letter) && shape.ends_with('9') && letters.get(index + 1).is_some_and(char::is_ascii_digit)
        };
        match *letter {
            digit if digit.is_ascii_digit() && shape.ends_with('9') => {}
            digit if digit.is_ascii_digit() => shape.push('9'),
            point if between_digits(point) => {}
            other => shape.push(other),
        }
    }
    shape
}

#[test]
fn what_it_says_can_be_typed_and_what_it_quotes_is_printed() {
    let readme = readme();
    let place = Place::new();
    symlink(Path::new(REPOSITORY).join("examples"), place.path("examples")).unwrap();
    let mut said = String::new();
    let commands = block_after(&readme, "## What you can type");
    assert!(commands.len() >= 7, "{commands:?}");
    for command in commands {
        if command.starts_with("gristmill predict") {
            new_flights(&place);
        }
        let ended = finish(&mut place.command_of("sh", ["-c", command]));
        assert_eq!(ended.code, 0, "{command}\n{}{}", ended.stdout, ended.stderr);
        said.push_str(&ended.stderr);
    }
    assert!(place.path("scored.parquet").exists());
    // Which of the two kernels is faster is the machine's affair.
    let shapes: Vec<String> =
        said.lines().map(|line| shape(line).replace("kernel      blas", "kernel      native")).collect();
    let quoted = block_after(&readme, "From its output:");
    assert!(quoted.len() > 10, "{quoted:?}");
    for line in quoted.into_iter().filter(|line| line.trim() != "...") {
        assert!(shapes.contains(&shape(line)), "no line looks like {line:?} in\n{said}");
    }
}

/// The file that the README predicts: flights as the model's training query has them.
fn new_flights(place: &Place) {
    let job = fs::read_to_string(Path::new(REPOSITORY).join("examples/jobs/late_flights.sql")).unwrap();
    let (tables, _) = job.split_once("-- 3.").expect("the job has a third part");
    let script = format!("{tables}\nCOPY (SELECT * FROM trips WHERE month = 12 AND day = 24) TO 'new_flights.csv';");
    place.write("new_flights.sql", script);
    place.ok(&["-q", "-f", "new_flights.sql"]);
}

#[test]
fn shapes_forget_numbers() {
    for (line, expected) in [
        ("  epoch 1/5: 1,029 steps, loss 0.2787", "epoch 9/9: 9 steps, loss 9"),
        ("done CREATE MODEL m (1.35 s, 261,696 rows)", "done CREATE MODEL m (9 s, 9 rows)"),
        ("  ok    (0)", "ok    (9)"),
    ] {
        assert_eq!(shape(line), expected);
    }
}
