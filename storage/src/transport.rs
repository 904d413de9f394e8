//! How requests reach a store over HTTP: counted, and at most so many at a time for one host.
//!
//! A request holds its place until its answer begins. While a body is being read it holds none: a reader that waits for
//! another reader must not keep the other from beginning.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use tokio::sync::Semaphore;

use crate::instrument::Meter;
use crate::store::held;

/// What a server says when it sends all of an object, and when it sends a part.
const WHOLE: u16 = 200;
const PART: u16 = 206;

/// One for all stores of a session.
#[derive(Debug)]
pub(crate) struct Transport {
    meter: Arc<Meter>,
    max_requests: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Transport {
    pub(crate) fn new(meter: Arc<Meter>, max_requests: usize) -> Self {
        Self { meter, max_requests, hosts: Mutex::default() }
    }

    fn places(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = held(&self.hosts);
        if let Some(places) = hosts.get(host) {
            return Arc::clone(places);
        }
        let places = Arc::new(Semaphore::new(self.max_requests));
        hosts.insert(host.to_string(), Arc::clone(&places));
        places
    }
}

/// Makes clients that go through one [`Transport`].
#[derive(Debug, Clone)]
pub(crate) struct Connector(pub(crate) Arc<Transport>);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Counted { client, transport: Arc::clone(&self.0) }))
    }
}

#[derive(Debug)]
struct Counted {
    client: HttpClient,
    transport: Arc<Transport>,
}

#[async_trait]
impl HttpService for Counted {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().authority().map_or("", |authority| authority.as_str());
        let places = self.transport.places(host);
        let _place = places.acquire().await.expect("the places of a host are never closed");
        self.transport.meter.request();
        let asks_for_part = request.headers().contains_key("range");
        let mut answer = self.client.execute(request).await?;
        if asks_for_part && answer.status().as_u16() == WHOLE && answer.headers().contains_key("content-range") {
            // `rclone serve s3` sends the part, and says which, but not that it is one.
            *answer.status_mut() = PART.try_into().expect("a status");
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::{Location, StoreSettings, Stores};

    /// Answers requests as `rclone serve s3` does; gives the address and how many requests there were.
    fn calls_every_answer_whole() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                if line == "\r\n" {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-range: bytes 2-4/10\r\netag: \"x\"\r\n\
                                last-modified: Fri, 27 Nov 2026 15:00:00 GMT\r\n\r\n234";
                    (&stream).write_all(head.as_bytes()).unwrap();
                }
                line.clear();
            }
        });
        (format!("http://{address}"), requests)
    }

    #[tokio::test]
    async fn a_part_that_is_called_whole_is_asked_for_once() {
        let (endpoint, requests) = calls_every_answer_whole();
        let settings = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "someone"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let settings = StoreSettings::new(settings.map(|(name, value)| (name.to_string(), value.to_string())));
        let stores = Stores::with(settings);
        let part = stores.get_range(&Location::parse("s3://bucket/digits").unwrap(), 2..5).await.unwrap();
        assert_eq!(part, "234");
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }
}
