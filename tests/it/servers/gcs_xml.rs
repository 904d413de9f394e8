//! Google's XML interface before fake-gcs-server, which lists, gives and deletes objects by it, and takes them by the JSON
//! interface alone. Each request that writes becomes the one of the JSON interface that does the same on the same
//! condition: the server keeps the objects and decides who is first. Parts of an upload wait here until it is complete.

use std::collections::BTreeMap;
use std::io::{BufReader, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::proxy::Message;

const CONDITION: &str = "x-goog-if-generation-match";
const SOURCE: &str = "x-goog-copy-source";
/// Bytes that no object of a test holds.
const BOUNDARY: &str = "gristmill-5c1f0e5d2b7a4f6e";

struct Front {
    upstream: String,
    /// Parts of uploads by their numbers.
    uploads: Mutex<BTreeMap<String, BTreeMap<usize, Vec<u8>>>>,
}

/// Serves at `listener` what the server at `upstream` knows, for as long as the process lives.
pub(super) fn serve(listener: TcpListener, upstream: String) {
    let front = Arc::new(Front { upstream, uploads: Mutex::default() });
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let front = Arc::clone(&front);
            // A program that breaks off is nobody's concern here.
            std::thread::spawn(move || drop(front.converse(connection)));
        }
    });
}

/// A request's method, its path as it came (`/bucket/key`), and what follows the `?`.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    query: BTreeMap<&'a str, &'a str>,
}

impl<'a> Asked<'a> {
    fn of(head: &'a str) -> Self {
        let mut words = head.split([' ', '\r']);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query.split('&').filter(|pair| !pair.is_empty());
        Asked { method, path, query: query.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect() }
    }

    /// Bucket and key, percent-encoded.
    fn object(&self) -> (&'a str, &'a str) {
        self.path.trim_start_matches('/').split_once('/').unwrap_or_default()
    }
}

impl Front {
    fn converse(&self, client: TcpStream) -> Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client.try_clone()?);
        let mut writer = client;
        while let Some(request) = Message::read(&mut reader, false)? {
            let answer = self.answer(&request)?;
            writer.write_all(&answer.bytes())?;
            let is_last = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            if is_last || !answer.framed {
                return writer.shutdown(Shutdown::Both);
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Message) -> Result<Message> {
        let asked = Asked::of(&request.head);
        let is_object = !asked.object().1.is_empty() && !asked.path.starts_with("/upload/");
        let (upload, part) = (asked.query.get("uploadId"), asked.query.get("partNumber"));
        match (asked.method, upload, part) {
            ("POST", None, _) if asked.query.contains_key("uploads") => Ok(self.begun()),
            ("PUT", Some(upload), Some(part)) => Ok(self.kept(upload, part, request)),
            ("POST", Some(upload), _) => self.completed(&asked, upload, request),
            ("DELETE", Some(upload), _) => {
                self.uploads.lock().unwrap().remove(*upload);
                Ok(said("204 No Content", "", ""))
            }
            ("PUT", None, _) if is_object => match request.header(SOURCE) {
                Some(source) => self.copied(&asked, source, request),
                None => self.put(&asked, &request.body, request.header(CONDITION)),
            },
            _ => self.passed_on(&request.head, &request.body),
        }
    }

    fn begun(&self) -> Message {
        let mut uploads = self.uploads.lock().unwrap();
        let id = format!("upload-{}", uploads.keys().filter_map(|id| number(id)).max().unwrap_or(0) + 1);
        let body = format!(
            "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        uploads.insert(id, BTreeMap::new());
        said("200 OK", "", &body)
    }

    fn kept(&self, upload: &str, part: &str, request: &Message) -> Message {
        match self.uploads.lock().unwrap().get_mut(upload) {
            Some(parts) => {
                parts.insert(part.parse().unwrap_or(0), request.body.clone());
                said("200 OK", &format!("ETag: \"part-{part}\"\r\n"), "")
            }
            None => no_such_upload(),
        }
    }

    /// The parts that the request names, in order, are the object.
    fn completed(&self, asked: &Asked<'_>, upload: &str, request: &Message) -> Result<Message> {
        let Some(parts) = self.uploads.lock().unwrap().remove(upload) else { return Ok(no_such_upload()) };
        let named = String::from_utf8_lossy(&request.body).into_owned();
        let numbers = named.split("<PartNumber>").skip(1).filter_map(|rest| rest.split('<').next()?.parse().ok());
        let bytes: Vec<u8> = numbers.filter_map(|number: usize| parts.get(&number)).flatten().copied().collect();
        let put = self.put(asked, &bytes, None)?;
        let (Some(tag), Some(generation)) = (put.header("etag"), put.header("x-goog-generation")) else {
            return Ok(put);
        };
        let body = format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>");
        Ok(said("200 OK", &format!("x-goog-generation: {generation}\r\n"), &body))
    }

    fn copied(&self, asked: &Asked<'_>, source: &str, request: &Message) -> Result<Message> {
        let there = self.passed_on(&format!("GET /{source} HTTP/1.1\r\n"), &[])?;
        if !there.head.starts_with("HTTP/1.1 200") {
            return Ok(there);
        }
        self.put(asked, &there.body, request.header(CONDITION))
    }

    /// An upload of the JSON interface, and its answer as the XML one gives it.
    fn put(&self, asked: &Asked<'_>, bytes: &[u8], condition: Option<&str>) -> Result<Message> {
        let (bucket, key) = asked.object();
        let condition = condition.map_or(String::new(), |number| format!("&ifGenerationMatch={number}"));
        let head = format!(
            "POST /upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={key}{condition} HTTP/1.1\r\n\
             Content-Type: multipart/related; boundary={BOUNDARY}\r\n"
        );
        let before = format!(
            "--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n\
             --{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        let body = [before.as_bytes(), bytes, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat();
        let answer = self.passed_on(&head, &body)?;
        let Ok(object) = serde_json::from_slice::<serde_json::Value>(&answer.body) else { return Ok(answer) };
        match (object["etag"].as_str(), object["generation"].as_str()) {
            (Some(tag), Some(generation)) => {
                let headers = format!("ETag: \"{tag}\"\r\nx-goog-generation: {generation}\r\n");
                Ok(said("200 OK", &headers, ""))
            }
            _ => Ok(answer),
        }
    }

    /// Asks the server, which knows itself by its own name only.
    fn passed_on(&self, head: &str, body: &[u8]) -> Result<Message> {
        let own = |line: &&str| {
            let lower = line.to_lowercase();
            !lower.starts_with("host:") && !lower.starts_with("content-length:")
        };
        let kept: String = head.split_inclusive('\n').filter(own).collect();
        let head = format!("{kept}Host: {}\r\nContent-Length: {}\r\n", self.upstream, body.len());
        Message { head, body: body.to_vec(), framed: true }.answered_by(&self.upstream)
    }
}

fn number(upload: &str) -> Option<usize> {
    upload.strip_prefix("upload-")?.parse().ok()
}

fn no_such_upload() -> Message {
    said("404 Not Found", "", "<Error><Code>NoSuchUpload</Code><Message>The upload was not found.</Message></Error>")
}

fn said(status: &str, headers: &str, body: &str) -> Message {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Type: application/xml\r\nContent-Length: {length}\r\n");
    Message { head, body: body.as_bytes().to_vec(), framed: true }
}
