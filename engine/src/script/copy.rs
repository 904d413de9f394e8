//! `COPY (query | table) TO 'place' [STORED AS format] [PARTITIONED BY (columns)] [MODE APPEND | OVERWRITE | OVERWRITE
//! PARTITIONS | ERROR] [OPTIONS (...)]`: rows become files, all of them or none. The clauses may come in any order. The
//! default mode is ERROR: nothing that is there is touched unless the script says so.

use std::collections::HashMap;

use datafusion::dataframe::DataFrame;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use storage::{CommitMode, Location};

use super::run::Job;
use super::store::{Target, store};
use super::tokens::{
    after_parenthesis, begins_with, describe, identifier, is_word, offset_at, string_literal, token_at,
};
use crate::delta;
use crate::error::{Error, Result, near};
use crate::extension::Finished;
use crate::session::Session;
use crate::sink;
use crate::sink::encoding::{Encoding, FileOptions};
use crate::source::for_stores;
use crate::source::format::{Compression, Format};

/// A parsed COPY.
#[derive(Debug)]
pub(crate) struct Copy {
    /// A query, or `SELECT * FROM table`.
    query: Vec<TokenWithSpan>,
    pub(crate) target: String,
    target_offset: usize,
    format: Option<Format>,
    /// Into a Delta table, whose files are Parquet.
    delta: bool,
    pub(crate) partition_by: Vec<String>,
    partition_offset: usize,
    mode: Option<CommitMode>,
    pub(crate) options: HashMap<String, String>,
    options_offset: usize,
}

impl Copy {
    pub(crate) fn parse(text: &str, words: &[TokenWithSpan]) -> Result<Self> {
        Parser { text, words, at: 1 }.copy()
    }

    /// What a program asks for: clauses without a text, and so without a query and places.
    pub(crate) fn of_program(
        target: String,
        format: Option<Format>,
        delta: bool,
        mode: CommitMode,
        partition_by: Vec<String>,
        options: HashMap<String, String>,
    ) -> Self {
        let (query, mode) = (Vec::new(), Some(mode));
        let (target_offset, partition_offset, options_offset) = (0, 0, 0);
        Copy {
            query,
            target,
            target_offset,
            format,
            delta,
            partition_by,
            partition_offset,
            mode,
            options,
            options_offset,
        }
    }

    pub(crate) fn title(&self) -> String {
        format!("COPY TO {}", self.target)
    }

    /// Where it writes.
    pub(crate) fn location(&self, session: &Session) -> Result<Location> {
        let place = session.options().place(&self.target);
        place.map_err(|error| Error::invalid(error.to_string()).at_offset(self.target_offset))
    }

    pub(crate) fn mode(&self) -> CommitMode {
        self.mode.unwrap_or(CommitMode::ErrorIfExists)
    }

    /// As said, or as the target's name tells.
    pub(crate) fn format(&self) -> Result<Format> {
        if self.delta {
            return Ok(Format::Parquet);
        }
        let (stem, _) = Compression::strip(&self.target);
        self.format.or_else(|| Format::of_name(stem)).ok_or_else(|| {
            Error::invalid(format!("COPY TO '{}': the format cannot be told from the name", self.target))
                .at_offset(self.target_offset)
                .with_hint("add STORED AS PARQUET, CSV, JSON, ARROW or DELTA")
        })
    }

    /// Plans the rows to write and checks all clauses against them.
    pub(crate) async fn plan(&self, session: &Session, text: &str) -> Result<DataFrame> {
        let frame = session.plan_tokens(text, self.query.clone()).await?;
        self.check_partitions(&frame)?;
        Ok(frame)
    }

    fn check_partitions(&self, frame: &DataFrame) -> Result<()> {
        let names: Vec<&str> = frame.schema().fields().iter().map(|field| field.name().as_str()).collect();
        for column in &self.partition_by {
            if !names.contains(&column.as_str()) {
                let error = Error::invalid(format!("PARTITIONED BY: there is no column `{column}` in what is copied"))
                    .at_offset(self.partition_offset);
                return Err(match near(column, names.iter().copied()) {
                    Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                    None => error.with_hint(format!("columns are {}", names.join(", "))),
                });
            }
        }
        if !self.partition_by.is_empty() && self.partition_by.len() == names.len() {
            return Err(Error::invalid("PARTITIONED BY names every column: nothing would be left to write")
                .at_offset(self.partition_offset));
        }
        Ok(())
    }

    /// Plans it and checks every clause; nothing is read or written.
    pub(crate) async fn check(&self, session: &Session, text: &str) -> Result<()> {
        let frame = self.plan(session, text).await?;
        self.file_options(session, frame.schema().as_arrow())?;
        let columns = if self.delta {
            delta::columns_of_query(frame.schema()).map_err(|error| error.at_offset(0))?
        } else {
            sink::partition::read_schema(frame.schema().inner(), &self.partition_by)
        };
        session.planned().expect(&self.location(session)?, columns);
        Ok(())
    }

    /// Writes the rows and publishes the files; on an error, or when the job is cancelled, nothing is left.
    pub(crate) async fn run(&self, job: &Job<'_>, text: &str) -> Result<Finished> {
        let frame = job.session.plan_tokens(text, self.query.clone()).await?;
        self.write(job, frame, text).await
    }

    /// Writes the rows of a frame.
    pub(crate) async fn write(&self, job: &Job<'_>, frame: DataFrame, text: &str) -> Result<Finished> {
        self.check_partitions(&frame)?;
        let options = self.file_options(job.session, frame.schema().as_arrow())?;
        let location = self.location(job.session)?;
        let (of_stores, _) = for_stores(self.options.clone()).map_err(|error| self.at_options(error))?;
        job.session
            .stores()
            .configure(&location, of_stores.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
        let (mode, partition_by) = (self.mode(), self.partition_by.clone());
        let target = Target { location, delta: self.delta, mode, options, partition_by, not_null: None };
        let (_, plan) = frame.into_parts();
        let stored = store(job, plan.clone(), target).await.map_err(|error| self.at_target(job.session, error));
        job.explained(stored, &plan, text).await.map(|(finished, _)| finished)
    }

    /// Puts an error about the place that is written to where the statement names it.
    fn at_target(&self, session: &Session, error: Error) -> Error {
        let place = self.location(session).map(|location| location.to_string()).unwrap_or_default();
        match error {
            Error::Storage(error) if error.to_string().starts_with(&place) => {
                Error::invalid(error.to_string()).at_offset(self.target_offset)
            }
            other => other,
        }
    }

    fn file_options(&self, session: &Session, schema: &arrow::datatypes::Schema) -> Result<FileOptions> {
        let state = session.context().state();
        let by_name = Compression::strip(&self.target).1;
        let (_, of_files) = for_stores(self.options.clone()).map_err(|error| self.at_options(error))?;
        let options =
            FileOptions::parse(&state.default_table_options(), &session.options(), self.format()?, &of_files, by_name)
                .map_err(|error| self.at_options(error))?;
        options.encoding.accepts(schema).map_err(|error| match &options.encoding {
            Encoding::Parquet(_) => self.at_options(error),
            _ => error.at_offset(0),
        })?;
        Ok(options)
    }

    /// Puts an error about OPTIONS where they are.
    pub(crate) fn at_options(&self, error: Error) -> Error {
        error.at_offset(self.options_offset)
    }
}

struct Parser<'a> {
    text: &'a str,
    words: &'a [TokenWithSpan],
    at: usize,
}

impl Parser<'_> {
    fn copy(mut self) -> Result<Copy> {
        let query = self.source()?;
        let mut copy = Copy {
            query,
            target: String::new(),
            target_offset: 0,
            format: None,
            delta: false,
            partition_by: Vec::new(),
            partition_offset: 0,
            mode: None,
            options: HashMap::new(),
            options_offset: 0,
        };
        let mut seen: Vec<&str> = Vec::new();
        while self.at < self.words.len() {
            let start = self.offset();
            let clause = self.clause()?;
            if seen.contains(&clause) {
                return Err(Error::invalid(format!("{clause} is given twice")).at_offset(start));
            }
            seen.push(clause);
            match clause {
                "TO" => {
                    copy.target_offset = self.offset();
                    copy.target = self.string("a place in quotes, such as 'out/'")?;
                }
                "STORED AS" => {
                    let offset = self.offset();
                    let name = self.name("a format")?;
                    if delta::is_named(&name) {
                        copy.delta = true;
                    } else {
                        copy.format = Some(Format::parse(&name).map_err(|error| error.at_offset(offset))?);
                    }
                }
                "PARTITIONED BY" => {
                    copy.partition_offset = self.offset();
                    copy.partition_by = self.columns()?;
                }
                "MODE" => copy.mode = Some(self.mode()?),
                _ => {
                    copy.options_offset = self.offset();
                    copy.options = self.options()?;
                }
            }
        }
        if copy.target.is_empty() {
            return Err(Error::invalid("COPY needs TO 'place'").at_offset(self.text.len()));
        }
        Ok(copy)
    }

    fn offset(&self) -> usize {
        offset_at(self.text, self.words, self.at)
    }

    fn expected(&self, what: &str) -> Error {
        Error::invalid(format!("expected {what}, found {}", describe(self.words, self.at))).at_offset(self.offset())
    }

    fn source(&mut self) -> Result<Vec<TokenWithSpan>> {
        let Some(first) = self.words.get(self.at) else {
            return Err(self.expected("a query in parentheses or a table"));
        };
        if first.token == Token::LParen {
            let end = after_parenthesis(self.words, self.at)
                .ok_or_else(|| Error::invalid("this parenthesis is never closed").at_offset(self.offset()))?;
            let query = self.words[self.at + 1..end - 1].to_vec();
            self.at = end;
            return Ok(query);
        }
        let mut query: Vec<TokenWithSpan> = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")]
            .map(|token| token_at(first, token))
            .to_vec();
        while let Some(token) = self.words.get(self.at).filter(|token| !is_word(token, "TO")) {
            query.push(token.clone());
            self.at += 1;
        }
        if query.len() == 3 {
            return Err(self.expected("a query in parentheses or a table"));
        }
        Ok(query)
    }

    fn clause(&mut self) -> Result<&'static str> {
        const CLAUSES: &[(&str, &[&str])] = &[
            ("TO", &["TO"]),
            ("STORED AS", &["STORED", "AS"]),
            ("PARTITIONED BY", &["PARTITIONED", "BY"]),
            ("MODE", &["MODE"]),
            ("OPTIONS", &["OPTIONS"]),
        ];
        for (clause, words) in CLAUSES {
            if begins_with(&self.words[self.at..], words) {
                self.at += words.len();
                return Ok(clause);
            }
        }
        let error = self.expected("TO, STORED AS, PARTITIONED BY, MODE or OPTIONS");
        let word = self.words[self.at].token.to_string().to_uppercase();
        Err(match near(&word, CLAUSES.iter().map(|(_, words)| words[0])) {
            Some(known) => error.with_hint(format!("did you mean {known}?")),
            None => error,
        })
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let found = self.words.get(self.at).and_then(string_literal).map(str::to_string);
        let found = found.ok_or_else(|| self.expected(what))?;
        self.at += 1;
        Ok(found)
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let found = self.words.get(self.at).and_then(identifier).ok_or_else(|| self.expected(what))?;
        self.at += 1;
        Ok(found)
    }

    fn token(&mut self, token: &Token, what: &str) -> Result<()> {
        if self.words.get(self.at).is_some_and(|found| found.token == *token) {
            self.at += 1;
            return Ok(());
        }
        Err(self.expected(what))
    }

    fn columns(&mut self) -> Result<Vec<String>> {
        self.token(&Token::LParen, "columns in parentheses")?;
        let mut columns = vec![self.name("a column")?];
        while self.words.get(self.at).is_some_and(|token| token.token == Token::Comma) {
            self.at += 1;
            columns.push(self.name("a column")?);
        }
        self.token(&Token::RParen, "`,` or `)`")?;
        Ok(columns)
    }

    fn mode(&mut self) -> Result<CommitMode> {
        const MODES: &[(&[&str], CommitMode)] = &[
            (&["APPEND"], CommitMode::Append),
            (&["OVERWRITE", "PARTITIONS"], CommitMode::OverwritePartitions),
            (&["OVERWRITE"], CommitMode::Overwrite),
            (&["ERROR"], CommitMode::ErrorIfExists),
        ];
        for (words, mode) in MODES {
            if begins_with(&self.words[self.at..], words) {
                self.at += words.len();
                return Ok(*mode);
            }
        }
        Err(self.expected("APPEND, OVERWRITE, OVERWRITE PARTITIONS or ERROR"))
    }

    fn options(&mut self) -> Result<HashMap<String, String>> {
        self.token(&Token::LParen, "options in parentheses")?;
        let mut options = HashMap::new();
        loop {
            let offset = self.offset();
            let key = self.option_key()?;
            if self.words.get(self.at).is_some_and(|token| token.token == Token::Eq) {
                self.at += 1;
            }
            let value = self.option_value()?;
            if options.insert(key.clone(), value).is_some() {
                return Err(Error::invalid(format!("option `{key}` is given twice")).at_offset(offset));
            }
            if self.words.get(self.at).is_some_and(|token| token.token == Token::Comma) {
                self.at += 1;
            } else {
                self.token(&Token::RParen, "`,` or `)`")?;
                return Ok(options);
            }
        }
    }

    fn option_key(&mut self) -> Result<String> {
        if let Some(key) = self.words.get(self.at).and_then(string_literal) {
            self.at += 1;
            return Ok(key.to_lowercase());
        }
        let mut key = self.name("an option")?;
        while self.words.get(self.at).is_some_and(|token| token.token == Token::Period) {
            self.at += 1;
            key = format!("{key}.{}", self.name("an option")?);
        }
        Ok(key.to_lowercase())
    }

    fn option_value(&mut self) -> Result<String> {
        let value = self.words.get(self.at).and_then(|token| match &token.token {
            Token::Number(number, _) => Some(number.clone()),
            Token::Word(word) => Some(word.value.clone()),
            _ => string_literal(token).map(str::to_string),
        });
        let value = value.ok_or_else(|| self.expected("the option's value"))?;
        self.at += 1;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tokens::{significant, tokenize};

    fn parse(text: &str) -> Result<Copy> {
        Copy::parse(text, &significant(&tokenize(text)?))
    }

    #[test]
    fn clauses_in_any_order() {
        let copy = parse(
            "COPY (SELECT ')', a FROM t) TO 'out/' OPTIONS (format.compression 'zstd', header = false, 'n' 3) \
             MODE OVERWRITE PARTITIONS PARTITIONED BY (A, \"B c\") STORED AS csv",
        )
        .unwrap();
        assert_eq!((copy.target.as_str(), copy.format().unwrap()), ("out/", Format::Csv));
        assert_eq!(copy.partition_by, ["a", "B c"]);
        assert_eq!(copy.mode(), CommitMode::OverwritePartitions);
        let mut options: Vec<_> = copy.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        options.sort_unstable();
        assert_eq!(options, [("format.compression", "zstd"), ("header", "false"), ("n", "3")]);
        let query: Vec<String> = copy.query.iter().map(|token| token.token.to_string()).collect();
        assert_eq!(query.join(" "), "SELECT ')' , a FROM t");
    }

    #[test]
    fn tables_and_defaults() {
        let copy = parse("COPY s.t TO 'x.parquet'").unwrap();
        let query: Vec<String> = copy.query.iter().map(|token| token.token.to_string()).collect();
        assert_eq!(query.join(" "), "SELECT * FROM s . t");
        assert_eq!((copy.mode(), copy.format().unwrap()), (CommitMode::ErrorIfExists, Format::Parquet));
    }

    #[test]
    fn mistakes_have_places() {
        for (text, message, offset) in [
            ("COPY", "expected a query in parentheses or a table, found the end of the statement", 4),
            ("COPY t", "COPY needs TO 'place'", 6),
            ("COPY t TO out", "expected a place in quotes, such as 'out/', found `out`", 10),
            ("COPY (SELECT 1 TO 'x'", "this parenthesis is never closed", 5),
            ("COPY t TO 'x' STORED AS parket", "unknown file format `parket`", 24),
            (
                "COPY t TO 'x' MODE REPLACE",
                "expected APPEND, OVERWRITE, OVERWRITE PARTITIONS or ERROR, found `REPLACE`",
                19,
            ),
            ("COPY t TO 'x' TO 'y'", "TO is given twice", 14),
            (
                "COPY t TO 'x' PARTITION BY (a)",
                "expected TO, STORED AS, PARTITIONED BY, MODE or OPTIONS, found `PARTITION`",
                14,
            ),
        ] {
            match parse(text).unwrap_err() {
                Error::Invalid { message: got, offset: at, .. } => {
                    assert_eq!((got.as_str(), at), (message, Some(offset)), "{text}");
                }
                other => panic!("{other}"),
            }
        }
    }
}
