//! What is refused, and where; what is rewritten, and into what.

use datafusion::sql::parser::{DFParser, DFParserBuilder};
use datafusion::sql::sqlparser::dialect::dialect_from_str;

use super::settle;

/// The statement as the planner gets it, or the message with the text from its place on.
fn settled(text: &str) -> Result<String, String> {
    for dialect in ["generic", "mysql", "clickhouse", "databricks", "mssql", "snowflake", "hive", "bigquery"] {
        let dialect = dialect_from_str(dialect).unwrap();
        let Ok(parser) = DFParserBuilder::new(text).with_dialect(dialect.as_ref()).build() else { continue };
        let mut parser = parser;
        let Ok(mut statements) = parser.parse_statements() else { continue };
        let mut statement = statements.remove(0).unwrap();
        let is_scalar = |name: &str| matches!(name, "upper" | "abs");
        return match settle(&mut statement, text, &is_scalar) {
            Ok(()) => Ok(statement.to_string()),
            Err(error) => {
                let place = &text[error.offset().unwrap()..];
                Err(format!("{error} @ {}", place.chars().take(12).collect::<String>()))
            }
        };
    }
    panic!("no dialect reads {text}");
}

#[test]
fn what_nothing_reads_is_refused_at_its_place() {
    for (text, expected) in [
        ("SELECT a FROM t START WITH a = 1 CONNECT BY a = 1", "START WITH is not supported @ START WITH a"),
        ("SELECT a FROM t SETTINGS max_threads = 1", "SETTINGS is not supported @ SETTINGS max"),
        ("SELECT a FROM t FORMAT JSON", "FORMAT is not supported @ FORMAT JSON"),
        ("SELECT a FROM t FOR UPDATE", "FOR UPDATE is not supported @ FOR UPDATE"),
        ("SELECT * FROM t WITH (delimiter = ';')", "WITH is not supported @ WITH (delimi"),
        ("SELECT * FROM (SELECT a INTO b FROM t)", "INTO is not supported @ INTO b FROM "),
        ("SELECT upper(DISTINCT a) FROM t", "upper is no aggregate function and takes no DISTINCT @ upper(DISTIN"),
        ("SELECT abs(a) FILTER (WHERE b) FROM t", "abs is no aggregate function and takes no FILTER @ abs(a) FILTE"),
        ("SELECT abs(a) OVER () FROM t", "abs is no aggregate function and takes no OVER @ abs(a) OVER "),
        ("SELECT count(DISTINCT *) FROM t", "count(DISTINCT *) is not supported @ count(DISTIN"),
        ("SELECT sum(a) OVER w FROM t", "there is no window `w` @ w FROM t"),
        ("SELECT * FROM a JOIN b", "JOIN needs ON or USING @ b"),
        ("SELECT * FROM a POSITIONAL JOIN b", "POSITIONAL JOIN is not supported @ POSITIONAL J"),
        ("SELECT * FROM f(x => 1)", "f: arguments have no names here, and `x` is one @ f(x => 1)"),
        ("CREATE TABLE t (a INT CHECK (a > 1))", "CHECK of column `a` is not supported @ a INT CHECK "),
        (
            "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a * 2))",
            "GENERATED of column `b` is not supported @ b INT GENERA",
        ),
        ("CREATE TABLE t (a INT) WITH (x = 1)", "WITH is not supported @ WITH (x = 1)"),
        ("SELECT a FROM t ORDER BY a WITH FILL", "WITH FILL is not supported @ WITH FILL"),
        ("SELECT INTERVAL 3", "INTERVAL 3 has no unit that is known @ 3"),
        ("PREPARE p AS SELECT DISTINCT ON (a) b FROM t", "DISTINCT ON is not supported @ DISTINCT ON "),
        (
            "SELECT date_format(d, 'yyyy/MM/dd') FROM t",
            "date_format: 'yyyy/MM/dd' has no field that is known @ 'yyyy/MM/dd'",
        ),
        (
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r LIMIT 5) SELECT * FROM r",
            "LIMIT in the recursive query `r` is not supported @ r AS (SELECT",
        ),
        (
            "SELECT a FROM t VERSION AS OF 3",
            "VERSION AS OF: `t` is no Delta table, and other tables have no versions @ VERSION AS O",
        ),
        (
            "CREATE EXTERNAL TABLE t (a INT PRIMARY KEY) STORED AS CSV LOCATION 'x'",
            "PRIMARY KEY of an external table is not supported @ PRIMARY KEY)",
        ),
        ("SELECT CAST('[1]' AS INT[])", "a text cannot be cast to a list, a map or a struct @ '[1]' AS INT"),
    ] {
        assert_eq!(settled(text), Err(expected.to_string()), "{text}");
    }
}

#[test]
fn what_the_planner_reads_otherwise_is_rewritten() {
    for (text, expected) in [
        ("SELECT a FROM t PREWHERE a = 1 OR b WHERE c", "SELECT a FROM t WHERE (a = 1 OR b) AND (c)"),
        ("SELECT a, sum(b) FROM t GROUP BY a WITH ROLLUP", "SELECT a, sum(b) FROM t GROUP BY ROLLUP (a)"),
        ("SELECT a, b FROM t GROUP BY 2, a WITH ROLLUP", "SELECT a, b FROM t GROUP BY ROLLUP (b, a)"),
        ("SELECT a, b FROM t GROUP BY GROUPING SETS ((1), ())", "SELECT a, b FROM t GROUP BY GROUPING SETS ((a), ())"),
        ("SELECT a, b FROM t GROUP BY a, b WITH CUBE", "SELECT a, b FROM t GROUP BY CUBE (a, b)"),
        ("SELECT a, b FROM t GROUP BY a, b WITH TOTALS", "SELECT a, b FROM t GROUP BY GROUPING SETS ((a, b), ())"),
        (
            "SELECT sum(a) OVER (w ROWS 1 PRECEDING) FROM t WINDOW w AS (PARTITION BY b ORDER BY c)",
            "SELECT sum(a) OVER (PARTITION BY b ORDER BY c ROWS 1 PRECEDING) FROM t",
        ),
        (
            "SELECT a FROM t WINDOW w AS (PARTITION BY b), x AS (w ORDER BY c) ORDER BY rank() OVER x",
            "SELECT a FROM t ORDER BY rank() OVER (PARTITION BY b ORDER BY c)",
        ),
        ("SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "SELECT a FROM t LIMIT 3"),
        ("SELECT TOP 3 a FROM t", "SELECT a FROM t LIMIT 3"),
        ("SELECT a, b FROM t ORDER BY ALL DESC", "SELECT a, b FROM t ORDER BY 1 DESC, 2 DESC"),
        ("SELECT 4 = ANY([1, 2, NULL])", "SELECT 4 IN (1, 2, NULL)"),
        ("SELECT a > ANY(b) FROM t", "SELECT NOT (a <= ALL(b)) FROM t"),
        ("SELECT a SIMILAR TO 'x_' FROM t", "SELECT a ~ '^(?:x(?s:.))$' FROM t"),
        ("SELECT a NOT SIMILAR TO b FROM t", "SELECT a !~ gm_similar_to_regex(b, '\\') FROM t"),
        (
            "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 2 LIMIT 1) SELECT * FROM r",
            "WITH RECURSIVE r AS ((SELECT 1 UNION ALL SELECT 2 LIMIT 1)) SELECT * FROM r",
        ),
        ("SELECT * FROM a SEMI JOIN b ON a.x = b.x", "SELECT * FROM a LEFT SEMI JOIN b ON a.x = b.x"),
    ] {
        assert_eq!(settled(text), Ok(expected.to_string()), "{text}");
    }
}

#[test]
fn long_expressions_do_not_overflow_the_stack() {
    for (operator, operand) in [("OR", "a = 1"), ("+", "a"), ("AND", "a")] {
        let text = format!("SELECT {}{operand} FROM t", format!("{operand} {operator} ").repeat(5_000));
        let mut statement = DFParser::parse_sql(&text).unwrap().remove(0).unwrap();
        settle(&mut statement, &text, &|_| false).unwrap();
    }
}
