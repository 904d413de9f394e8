//! Questions to the services that give temporary keys: plain requests, small answers.

use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use url::form_urlencoded::Serializer;

use super::aws::Temporary;

/// A request; the text is one of ours, so that a part that is none is a mistake of whoever configured an address.
pub(super) fn request(method: &str, url: &str, body: String) -> Result<HttpRequest, String> {
    let mut request = HttpRequest::new(HttpRequestBody::from(body));
    *request.method_mut() = method.parse().map_err(|_| format!("{method} is no method"))?;
    *request.uri_mut() = url.parse().map_err(|e| format!("{url} is no address: {e}"))?;
    Ok(request)
}

/// The answer's status and text.
pub(super) async fn ask(client: &HttpClient, request: HttpRequest) -> Result<(u16, String), String> {
    let place = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let answer = client.execute(request).await.map_err(|e| format!("{place} cannot be asked: {}", innermost(&e)))?;
    let status = answer.status().as_u16();
    let bytes = answer.into_body().bytes().await.map_err(|e| format!("{place} broke off its answer: {e}"))?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// A form for STS: with keys to sign it when a role is assumed by them, without when a token speaks.
pub(super) async fn security_token(
    client: &HttpClient,
    endpoint: &str,
    region: &str,
    signer: Option<&AwsCredential>,
    form: &[(&str, &str)],
) -> Result<Temporary, String> {
    let body = Serializer::new(String::new()).extend_pairs(form).append_pair("Version", "2011-06-15").finish();
    let endpoint = endpoint.trim_end_matches('/');
    let mut request = request("POST", &format!("{endpoint}/"), body)?;
    let kind = "application/x-www-form-urlencoded; charset=utf-8".parse().map_err(|_| "no header".to_string())?;
    request.headers_mut().insert("content-type", kind);
    if let Some(signer) = signer {
        AwsAuthorizer::new(signer, "sts", region).authorize(&mut request, None);
    }
    let (status, text) = ask(client, request).await?;
    if status != 200 {
        let (code, message) = (tag(&text, "Code").unwrap_or_default(), tag(&text, "Message").unwrap_or_default());
        return Err(format!("{endpoint} refused: {status} {code} {message}").trim_end().to_string());
    }
    let part = |name: &str| tag(&text, name).ok_or_else(|| format!("{endpoint}: its answer has no {name}"));
    Ok(Temporary {
        key_id: part("AccessKeyId")?,
        secret_key: part("SecretAccessKey")?,
        token: Some(part("SessionToken")?),
        expires: tag(&text, "Expiration"),
    })
}

/// The text of the first element of that name.
pub(crate) fn tag(xml: &str, name: &str) -> Option<String> {
    let start = xml.find(&format!("<{name}>"))? + name.len() + 2;
    let end = start + xml[start..].find(&format!("</{name}>"))?;
    Some(xml[start..end].trim().to_string())
}
