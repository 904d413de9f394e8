//! What a store's refusal means, in the user's nouns, and what to do about it.
//!
//! Vendors answer with a status, a code and a sentence in XML. The request's own text, which may hold a signature, is
//! never shown.

use std::error::Error as StdError;

use crate::backend::Facts;
use crate::credentials::tag;
use crate::error::Error;
use crate::location::Location;

/// What Azure says of a shared access signature that has expired, or is for later; three times follow.
const OUT_OF_TIME: &str = "Signature not valid in the specified time frame:";

/// The parts of an answer that say something.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    /// Azure's reason for refusing a signature.
    pub(crate) detail: String,
}

impl Answer {
    /// Found in the chain of an error's sources.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if let Some((_, rest)) = text.split_once("status code: ") {
                let status = rest.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
                let code = tag(rest, "Code").unwrap_or_default();
                // Azure's sentence ends with lines about the request.
                let message = tag(rest, "Message").unwrap_or_default();
                let message = message.lines().next().unwrap_or_default().to_string();
                let detail = tag(rest, "AuthenticationErrorDetail").unwrap_or_default();
                return Some(Self { status, code, message, detail });
            }
            if text.contains("Received redirect without LOCATION") {
                return Some(Self { status: 301, code: "PermanentRedirect".into(), ..Self::default() });
            }
            next = error.source();
        }
        None
    }

    fn shown(&self) -> String {
        let parts = [self.status.to_string(), self.code.clone()];
        let head = parts.into_iter().filter(|part| !part.is_empty() && part != "0").collect::<Vec<_>>().join(" ");
        if self.message.is_empty() { head } else { format!("{head}: {}", self.message.trim_end_matches('.')) }
    }
}

/// The same error with the place, and with what can be done. Kinds that callers decide by keep their kind.
pub(crate) fn explained(error: object_store::Error, at: &Location, facts: &Facts) -> object_store::Error {
    use object_store::Error as Store;
    if is_ours(&error)
        || matches!(
            error,
            Store::AlreadyExists { .. }
                | Store::Precondition { .. }
                | Store::NotModified { .. }
                | Store::NotImplemented { .. }
                | Store::NotSupported { .. }
        )
    {
        return error;
    }
    let answer = Answer::of(&error);
    let path = at.path().to_string();
    if let Some(answer) = &answer
        && (matches!(answer.code.as_str(), "NoSuchBucket" | "ContainerNotFound")
            || answer.message.contains("specified bucket does not exist"))
    {
        let what = if answer.code == "ContainerNotFound" { "container" } else { "bucket" };
        let reason = format!("there is no {what} {} at {}", at.authority(), facts.endpoint);
        return Store::NotFound { path, source: Box::new(Error::not_found(at.root(), reason)) };
    }
    if matches!(error, Store::NotFound { .. }) {
        return error;
    }
    let reason = match &answer {
        Some(Answer { status: 405 | 501, .. }) if at.scheme().is_web() => {
            Some("this web server lists nothing (it does not speak WebDAV): name each file".to_string())
        }
        Some(answer) => refusal(answer, facts),
        None => match &error {
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
                Some(format!("access is denied; credentials: {}", facts.credentials))
            }
            _ => of_hadoop(&error, facts).or_else(|| unreachable_store(&error, facts)),
        },
    };
    match reason {
        Some(reason) => Error::Refused { location: at.to_string(), reason }.into_store_error(),
        None => error,
    }
}

fn is_ours(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    match error {
        Store::Generic { source, .. } | Store::NotFound { source, .. } | Store::PermissionDenied { source, .. } => {
            source.is::<Error>()
        }
        _ => false,
    }
}

fn refusal(answer: &Answer, facts: &Facts) -> Option<String> {
    let shown = answer.shown();
    let credentials = &facts.credentials;
    let reason = match answer.code.as_str() {
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            format!("the token has expired: get a new one ({shown}); credentials: {credentials}")
        }
        "RequestTimeTooSkewed" => {
            format!("this machine's clock differs too much from the store's: set it right ({shown})")
        }
        "AuthenticationFailed" if answer.detail.starts_with(OUT_OF_TIME) => {
            let times = answer.detail[OUT_OF_TIME.len()..].trim();
            format!("the signature is not valid at this time: {times}; credentials: {credentials}")
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "InvalidClientTokenId"
        | "AuthenticationFailed"
        | "UnrecognizedClientException" => {
            format!("the store does not accept the credentials ({shown}); credentials: {credentials}")
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException"
        | "AuthorizationQueryParametersError"
        | "TemporaryRedirect" => format!(
            "the bucket is in another region than the one that was asked, {}: set storage.s3.region or AWS_REGION ({shown})",
            facts.region.as_ref().map_or("none".to_string(), |(region, from)| format!("{region} ({from})"))
        ),
        _ => match answer.status {
            301 | 307 | 308 if facts.region.is_some() => format!(
                "the store sends elsewhere ({shown}): is {} the right region and {} the right endpoint?",
                facts.region.as_ref().map_or("", |(region, _)| region),
                facts.endpoint
            ),
            401 | 403 => format!("access is denied ({shown}); credentials: {credentials}"),
            405 | 501 => format!("the store cannot do this ({shown})"),
            408 | 429 | 500..=599 => format!("the store answers {shown}, also after it was asked again"),
            _ if answer.code.is_empty() && answer.message.is_empty() => return None,
            _ => format!("the store refuses: {shown}"),
        },
    };
    Some(reason)
}

/// What a NameNode says, without the lines of its program that it says it with.
fn of_hadoop(error: &object_store::Error, facts: &Facts) -> Option<String> {
    let text = chain(error);
    let said = text.split_once("RPC error: ")?.1.lines().next()?;
    Some(match said.split_once("AccessControlException ") {
        Some((_, why)) => {
            let why = why.trim_start_matches("Permission denied: ");
            format!("permission denied ({why}); credentials: {}", facts.credentials)
        }
        None => format!("the NameNode refuses: {said}"),
    })
}

/// Connections that are not made, and requests that are not answered in time.
fn unreachable_store(error: &object_store::Error, facts: &Facts) -> Option<String> {
    let text = chain(error);
    let kind =
        ["dns error", "Connection refused", "Network is unreachable", "certificate", "timed out", "reset by peer"]
            .into_iter()
            .find(|kind| text.contains(kind))?;
    let what = match kind {
        "dns error" => "the name of the host is unknown",
        "Connection refused" => "nobody listens there",
        "certificate" => "its TLS certificate is not accepted",
        "timed out" => "it does not answer in time",
        "reset by peer" => "it breaks off the connection",
        _ => "the network does not reach it",
    };
    Some(format!("{} cannot be asked: {what}", facts.endpoint))
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(" | ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Condition;

    fn facts() -> Facts {
        Facts {
            endpoint: "https://s3.us-east-1.amazonaws.com".into(),
            credentials: "environment (AWS_ACCESS_KEY_ID)".into(),
            region: Some(("us-east-1".into(), "guessed".into())),
            condition: Condition::Native,
        }
    }

    fn said(status: &str, code: &str, message: &str) -> object_store::Error {
        let text = format!(
            "Error performing GET https://h/b?X-Signature=hush in 1ms - Server returned non-2xx status code: {status}: \
             <?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let at = Location::parse("s3://lake/raw/x.csv").unwrap();
        for (status, code, message, expected) in [
            (
                "404 Not Found",
                "NoSuchBucket",
                "gone",
                "s3://lake/: there is no bucket lake at https://s3.us-east-1.amazonaws.com",
            ),
            (
                "403 Forbidden",
                "AccessDenied",
                "Access Denied.",
                "s3://lake/raw/x.csv: access is denied (403 AccessDenied: Access Denied); credentials: environment (AWS_ACCESS_KEY_ID)",
            ),
            (
                "400 Bad Request",
                "ExpiredToken",
                "The token has expired",
                "s3://lake/raw/x.csv: the token has expired: get a new one (400 ExpiredToken: The token has expired); \
                 credentials: environment (AWS_ACCESS_KEY_ID)",
            ),
            (
                "403 Forbidden",
                "RequestTimeTooSkewed",
                "",
                "s3://lake/raw/x.csv: this machine's clock differs too much from the store's: set it right (403 RequestTimeTooSkewed)",
            ),
            (
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                "expecting 'eu-west-1'",
                "s3://lake/raw/x.csv: the bucket is in another region than the one that was asked, us-east-1 (guessed): set \
                 storage.s3.region or AWS_REGION (400 AuthorizationHeaderMalformed: expecting 'eu-west-1')",
            ),
            (
                "503 Service Unavailable",
                "SlowDown",
                "",
                "s3://lake/raw/x.csv: the store answers 503 SlowDown, also after it was asked again",
            ),
        ] {
            let explained = explained(said(status, code, message), &at, &facts());
            let text = Error::at(&at, explained).to_string();
            assert_eq!(text, expected, "{code}");
        }
    }

    #[test]
    fn a_name_node_is_quoted_without_its_program() {
        let at = Location::parse("hdfs://h:9000/t/x").unwrap();
        let facts = Facts { endpoint: "hdfs://h:9000".into(), credentials: "Hadoop's own".into(), ..facts() };
        for (text, expected) in [
            (
                "RPC error: org.apache.hadoop.security.AccessControlException Permission denied: user=ann, access=WRITE\n\tat a.b.C",
                "hdfs://h:9000/t/x: permission denied (user=ann, access=WRITE); credentials: Hadoop's own",
            ),
            (
                "RPC error: a.SafeModeException in safe mode\n\tat a.b.C",
                "hdfs://h:9000/t/x: the NameNode refuses: a.SafeModeException in safe mode",
            ),
        ] {
            let error = object_store::Error::Generic { store: "HDFS", source: text.into() };
            assert_eq!(Error::at(&at, explained(error, &at, &facts)).to_string(), expected);
        }
    }

    #[test]
    fn kinds_that_callers_decide_by_stay() {
        let at = Location::parse("s3://lake/x").unwrap();
        let missing = object_store::Error::NotFound { path: "x".into(), source: "no body".into() };
        assert!(matches!(explained(missing, &at, &facts()), object_store::Error::NotFound { .. }));
        let there = object_store::Error::AlreadyExists { path: "x".into(), source: "status code: 412".into() };
        assert!(matches!(explained(there, &at, &facts()), object_store::Error::AlreadyExists { .. }));
    }
}
