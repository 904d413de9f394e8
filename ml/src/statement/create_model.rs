//! `CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name [TRANSFORM (...)] [OPTIONS (...)] AS query`.

use async_trait::async_trait;
use datafusion::sql::sqlparser::tokenizer::Token;
use engine::extension::{Finished, JobContext, Statement};
use engine::{Error, Result, Session};

use crate::name::check_name;
use crate::spec::{IfExists, ModelSpec, Written, WrittenOption};
use crate::statement::cursor::Cursor;
use crate::statement::value::parse_value;
use crate::training;

/// The statement, parsed.
#[derive(Debug, Clone)]
pub struct CreateModel {
    /// The model as written.
    pub spec: ModelSpec,
    /// The training query as written, parameters not yet in their places.
    pub query: String,
    /// Where the query begins in the statement.
    pub query_offset: usize,
}

pub(super) fn parse(cursor: &mut Cursor) -> Result<CreateModel> {
    cursor.expect_words(&["CREATE"])?;
    let replace = cursor.take_words(&["OR", "REPLACE"]);
    cursor.expect_words(&["MODEL"])?;
    let if_exists_at = cursor.offset();
    let keep = cursor.take_words(&["IF", "NOT", "EXISTS"]);
    let if_exists = match (replace, keep) {
        (true, true) => {
            return Err(Error::invalid("OR REPLACE and IF NOT EXISTS exclude each other").at_offset(if_exists_at));
        }
        (true, false) => IfExists::Replace,
        (false, true) => IfExists::Keep,
        (false, false) => IfExists::Error,
    };
    let name_at = cursor.offset();
    let name = cursor.name("a model's name")?;
    check_name(&name).map_err(|error| error.at_offset(name_at))?;
    let mut spec = ModelSpec { name, if_exists, ..ModelSpec::default() };
    let (mut has_options, mut clauses) = (false, "TRANSFORM, OPTIONS or AS");
    loop {
        let clause_at = cursor.offset();
        if cursor.take_words(&["TRANSFORM"]) {
            if spec.transform.is_some() {
                return Err(Error::invalid("TRANSFORM is given twice").at_offset(clause_at));
            }
            let (list, offset) = cursor.parenthesised()?;
            spec.transform = Some(Written { value: list.to_string(), offset: Some(offset) });
        } else if cursor.take_words(&["OPTIONS"]) {
            if has_options {
                return Err(Error::invalid("OPTIONS is given twice").at_offset(clause_at));
            }
            has_options = true;
            spec.options = parse_options(cursor)?;
            clauses = "TRANSFORM or AS";
        } else if cursor.take_words(&["AS"]) {
            break;
        } else {
            return Err(cursor.expected(clauses));
        }
    }
    let query_offset = cursor.offset();
    let query = cursor.rest().to_string();
    if query.is_empty() {
        return Err(Error::invalid("the training query is missing after AS").at_offset(query_offset));
    }
    Ok(CreateModel { spec, query, query_offset })
}

fn parse_options(cursor: &mut Cursor) -> Result<Vec<WrittenOption>> {
    let mut options = Vec::new();
    cursor.expect(&Token::LParen)?;
    // A comma may stand behind the last one.
    while !cursor.take(&Token::RParen) {
        let name_at = cursor.offset();
        let name = cursor.name("an option's name")?;
        cursor.expect(&Token::Eq)?;
        let value_at = cursor.offset();
        let value = parse_value(cursor)?;
        options.push(WrittenOption {
            name: Written { value: name, offset: Some(name_at) },
            value: Written { value, offset: Some(value_at) },
        });
        if !cursor.take(&Token::Comma) {
            cursor.expect(&Token::RParen).map_err(|_| cursor.expected("`,` or `)`"))?;
            break;
        }
    }
    Ok(options)
}

#[async_trait]
impl Statement for CreateModel {
    fn title(&self) -> String {
        format!("CREATE MODEL {}", self.spec.name)
    }

    async fn check(&self, session: &Session) -> Result<()> {
        let query = session.plan_query(&self.query).await.map_err(|error| error.shifted(self.query_offset))?;
        training::check(session, &self.spec, &query).await
    }

    async fn run(&self, session: &Session, job: &JobContext) -> Result<Finished> {
        training::create(session, self, job).await
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

    use super::*;
    use crate::materialize::SplitMethod;
    use crate::spec::{CheckedSpec, ClassWeights, Estimator, OptionValue};

    fn parse_text(text: &str) -> Result<CreateModel> {
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap();
        let tokens: Vec<_> = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
        parse(&mut Cursor::new(text, &tokens))
    }

    fn check_text(text: &str) -> Result<CheckedSpec> {
        let field = |name: &str, kind: DataType| Field::new(name, kind, true);
        let schema = Schema::new(vec![
            field("label", DataType::Boolean),
            field("x", DataType::Float64),
            field("held", DataType::Boolean),
        ]);
        parse_text(text)?.spec.check(&schema)
    }

    #[test]
    fn the_whole_statement() {
        let text = "CREATE OR REPLACE MODEL Late -- the model\n TRANSFORM (late, f(a, (b)) OVER () AS x)\n \
                    OPTIONS (model_type = 'dnn_classifier', hidden_units = [64, 64], learn_rate = 1e-3, \
                    class_weights = [STRUCT('a' AS label, 2 AS weight), ('b', -1.5)]) AS\n SELECT * FROM t -- all\n WHERE x;";
        let parsed = parse_text(text).unwrap();
        assert_eq!(parsed.spec.name, "late");
        assert_eq!(parsed.spec.if_exists, IfExists::Replace);
        assert_eq!(parsed.spec.transform.as_ref().unwrap().value, "late, f(a, (b)) OVER () AS x");
        assert_eq!(parsed.query, "SELECT * FROM t -- all\n WHERE x");
        assert_eq!(&text[parsed.query_offset..parsed.query_offset + 6], "SELECT");
        let values: Vec<String> = parsed.spec.options.iter().map(|o| o.value.value.to_string()).collect();
        assert_eq!(
            values,
            ["'dnn_classifier'", "[64, 64]", "0.001", "[STRUCT('a' AS label, 2 AS weight), STRUCT('b', -1.5)]"]
        );
        let offset = parsed.spec.options[1].name.offset.unwrap();
        assert_eq!(&text[offset..offset + 12], "hidden_units");
    }

    /// What is wrong, the text at which the error points, and the hint.
    #[test]
    fn mistakes_point_at_their_place() {
        let dnn = "CREATE MODEL m OPTIONS (model_type = 'dnn_classifier', hidden_units = [8], ";
        let cases: &[(&str, &str, &str, Option<&str>)] = &[
            ("CREATE MODEL AS SELECT 1", "expected TRANSFORM, OPTIONS or AS, got `SELECT`", "SELECT 1", None),
            ("CREATE MODEL m OPTIONS (a 1) AS SELECT 1", "expected `=`, got `1`", "1) AS", None),
            ("CREATE MODEL m OPTIONS (a = [1, ) AS SELECT 1", "expected a value", ") AS", None),
            ("CREATE MODEL m OPTIONS () ", "expected TRANSFORM or AS, got the end of the statement", "", None),
            ("CREATE MODEL m TRANSFORM (a AS SELECT 1", "this `(` is never closed", "(a", None),
            ("CREATE MODEL m AS", "the training query is missing after AS", "", None),
            (
                "CREATE MODEL m OPTIONS (model_type = 'dnn_clasifier') AS SELECT 1",
                "unknown model type 'dnn_clasifier'",
                "'dnn_clasifier'",
                Some("did you mean 'dnn_classifier'?"),
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'kmeans') AS SELECT 1",
                "model type 'kmeans' is not in this build yet",
                "'kmeans'",
                None,
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'linear_reg', hiden_units = [8]) AS SELECT 1",
                "unknown option hiden_units",
                "hiden_units",
                Some("did you mean hidden_units?"),
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'linear_reg', hidden_units = [8]) AS SELECT 1",
                "option hidden_units is none of linear_reg",
                "hidden_units",
                Some("it belongs to dnn_classifier, dnn_regressor"),
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'linear_reg', l2_reg = 1, L2_REG = 1) AS SELECT 1",
                "option l2_reg is given twice",
                "L2_REG",
                None,
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'dnn_classifier', hidden_units = [8], batch_size = 'big') AS SELECT 1",
                "option batch_size: expected a whole number from 1 to 16777216, got 'big'",
                "'big'",
                None,
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'dnn_classifier', hidden_units = [8], dropout = 1.5) AS SELECT 1",
                "option dropout: expected a number from 0 up to, not including, 1, got 1.5",
                "1.5",
                None,
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'dnn_classifier', hidden_units = [8], optimizer = 'ADAN') AS SELECT 1",
                "option optimizer: expected one of",
                "'ADAN'",
                Some("did you mean 'ADAM'?"),
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'dnn_classifier', hidden_units = [8], warm_start = TRUE) AS SELECT 1",
                "option warm_start is not in this build yet",
                "warm_start",
                None,
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'logistic_reg', num_shards = 12) AS SELECT 1",
                "option num_shards: expected a power of two, got 12",
                "12",
                None,
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'logistic_reg', input_label_cols = ['lable']) AS SELECT 1",
                "there is no label column lable in the training query",
                "['lable']",
                Some("did you mean label?"),
            ),
            (
                "CREATE MODEL m OPTIONS (model_type = 'logistic_reg', data_split_method = 'CUSTOM', data_split_col = 'x') AS SELECT 1",
                "DATA_SPLIT_COL `x` is of type Float64",
                "'x'",
                None,
            ),
        ];
        for (text, message, place, hint) in cases {
            match check_text(text).unwrap_err() {
                Error::Invalid { message: got, offset, hint: told } => {
                    assert!(got.starts_with(message), "{text}\n{got}");
                    assert!(
                        text[offset.unwrap()..].starts_with(place),
                        "{text}\npoints at {}",
                        &text[offset.unwrap()..]
                    );
                    if let Some(hint) = hint {
                        assert_eq!(told.as_deref(), Some(*hint), "{text}");
                    }
                }
                other => panic!("{other}"),
            }
        }
        for option in
            ["lr_schedule = 'COSINE'", "lr_schedule = STRUCT('STEP' AS kind, 2 AS every, 0.5 AS factor)", "seed = 7"]
        {
            check_text(&format!("{dnn}{option}) AS SELECT 1")).unwrap();
        }
    }

    #[test]
    fn options_become_typed() {
        let spec = check_text(
            "CREATE MODEL m OPTIONS (MODEL_TYPE = \"LOGISTIC_REG\", data_split_method = 'custom', data_split_col = 'HELD', \
             class_weights = ARRAY<STRUCT<STRING, FLOAT64>>[STRUCT<STRING, FLOAT64>('true', 2)], seed = 1e2) AS SELECT 1",
        )
        .unwrap();
        assert_eq!(spec.split, SplitMethod::Custom { column: "held".into() });
        assert_eq!(spec.class_weights, ClassWeights::Given(vec![("true".into(), 2.0)]));
        assert_eq!(spec.seed, 100);
        assert!(matches!(spec.estimator, Estimator::Linear(_)));
    }

    #[test]
    fn rust_programs_write_the_same_specification() {
        let sql = parse_text(
            "CREATE MODEL m OPTIONS (model_type = 'dnn_regressor', hidden_units = [8, 4], l2_reg = 0.5) AS x",
        )
        .unwrap()
        .spec;
        let rust = ModelSpec::new("m")
            .option("model_type", "dnn_regressor")
            .option("hidden_units", [8, 4])
            .option("l2_reg", 0.5);
        let plain = |spec: &ModelSpec| -> Vec<(String, OptionValue)> {
            spec.options.iter().map(|o| (o.name.value.clone(), o.value.value.clone())).collect()
        };
        assert_eq!(plain(&sql), plain(&rust));
    }
}
