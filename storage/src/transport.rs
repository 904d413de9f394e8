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
        self.client.execute(request).await
    }
}
