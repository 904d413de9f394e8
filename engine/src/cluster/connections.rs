//! Connections to executors, from others and from drivers, kept for the next fetch: a shuffle of hundreds of partitions
//! would otherwise open and close one for each. Upstream's own pool cannot be named from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ballista_core::client::BallistaClient;
use ballista_core::client_pool::{BallistaClientPool, PooledClient};
use ballista_core::error::Result;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::utils::GrpcClientConfig;

/// How long a connection is kept when nothing is fetched over it.
const IDLE: Duration = Duration::from_secs(30);

type Place = (String, u16);

/// See the module.
#[derive(Default, Clone)]
pub(super) struct Connections {
    idle: Arc<Mutex<HashMap<Place, Vec<(BallistaClient, Instant)>>>>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

impl Connections {
    pub(super) fn take(&self, place: &Place) -> Option<BallistaClient> {
        // The map is whole whenever the lock is free, so a poisoned one is still good.
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(place).and_then(Vec::pop).map(|(client, _)| client)
    }

    pub(super) fn give_back(&self, place: Place, client: BallistaClient) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        drop_old(&mut idle);
        idle.entry(place).or_default().push((client, Instant::now()));
    }
}

fn drop_old(idle: &mut HashMap<Place, Vec<(BallistaClient, Instant)>>) {
    idle.retain(|_, clients| {
        clients.retain(|(_, since)| since.elapsed() < IDLE);
        !clients.is_empty()
    });
}

#[async_trait]
impl BallistaClientPool for Connections {
    async fn acquire(
        &self,
        host: &str,
        port: u16,
        config: &GrpcClientConfig,
        customize_endpoint: Option<Arc<BallistaConfigGrpcEndpoint>>,
    ) -> Result<PooledClient> {
        let place = (host.to_string(), port);
        let client = match self.take(&place) {
            Some(client) => client,
            None => {
                BallistaClient::try_new(
                    host,
                    port,
                    config.max_message_size,
                    config.use_tls,
                    customize_endpoint,
                    config.io_retries_times,
                    config.io_retry_wait_time_ms,
                    config.initial_connection_window_size,
                    config.initial_stream_window_size,
                )
                .await?
            }
        };
        let own = self.clone();
        Ok(PooledClient::new(client, Box::new(move |client| own.give_back(place, client))))
    }

    async fn evict_idle(&self) {
        drop_old(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
