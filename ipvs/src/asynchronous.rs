//! The client for programs that use tokio.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task;

use crate::client::Client;
use crate::destination::{Destination, DestinationEntry, DestinationId};
use crate::error::{BatchError, IpvsError};
use crate::operation::Operation;
use crate::pauses::Pauses;
use crate::plan::{Pool, PoolEntry};
use crate::service::{Service, ServiceEntry, ServiceId};
use crate::stats::{Info, Timeouts};
use crate::sync::{SyncDaemon, SyncRole};

/// A [`Client`] for asynchronous programs (feature `tokio`).
///
/// The kernel carries out a request before it takes the next, so there is nothing to wait for that
/// a reactor could tell of; some requests take it milliseconds. So each call runs the blocking
/// client on tokio's threads for such work. Clones share one socket, and their calls take turns. A
/// call that is dropped while it waits for its turn is not carried out; once its turn has come, it
/// is, dropped or not.
///
/// ```no_run
/// use ipvs::{AsyncClient, Scheduler, Service, ServiceId};
///
/// # async fn example() -> Result<(), ipvs::IpvsError> {
/// let client = AsyncClient::open().await?;
/// let web = ServiceId::tcp([192, 0, 2, 1], 80);
/// client.add_service(Service::new(web, Scheduler::WLC)).await?;
/// println!("{} services", client.services().await?.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AsyncClient {
    client: Arc<Mutex<Client>>,
}

impl From<Client> for AsyncClient {
    fn from(client: Client) -> Self {
        Self {
            client: Arc::new(Mutex::new(client)),
        }
    }
}

impl AsyncClient {
    /// See [`Client::open`]. The network namespace is that of the runtime's threads.
    ///
    /// # Errors
    ///
    /// As [`Client::open`].
    pub async fn open() -> Result<Self, IpvsError> {
        blocking(Client::open).await.map(Self::from)
    }

    /// See [`Client::open_in`].
    ///
    /// # Errors
    ///
    /// As [`Client::open_in`].
    pub async fn open_in(netns: OwnedFd) -> Result<Self, IpvsError> {
        blocking(move || Client::open_in(netns.as_fd()))
            .await
            .map(Self::from)
    }

    /// Does anything with the blocking client, where it may block.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Client) -> T + Send + 'static,
    ) -> T {
        let mut client = Arc::clone(&self.client).lock_owned().await;
        blocking(move || work(&mut client)).await
    }

    /// See [`Client::wait_drained`]. The runtime must have its time driver enabled.
    ///
    /// # Errors
    ///
    /// As [`Client::wait_drained`].
    pub async fn wait_drained(
        &self,
        service: ServiceId,
        destination: DestinationId,
        patience: Duration,
    ) -> Result<u32, IpvsError> {
        let mut pauses = Pauses::new(patience);
        loop {
            let count = self.with(move |client| client.connections_of(&service, &destination));
            let left = count.await?;
            match pauses.next() {
                Some(pause) if left > 0 => tokio::time::sleep(pause).await,
                _ => return Ok(left),
            }
        }
    }

    /// See [`Client::apply`].
    ///
    /// # Errors
    ///
    /// As [`Client::apply`].
    pub async fn apply(&self, operations: Vec<Operation>) -> Result<(), BatchError> {
        self.with(move |client| client.apply(&operations)).await
    }
}

/// Declares calls that only pass values through.
macro_rules! calls {
    ($($name:ident($($value:ident: $type:ty),*) -> $result:ty, |$client:ident| $call:expr;)*) => {
        impl AsyncClient {
            $(
                #[doc = concat!("See [`Client::", stringify!($name), "`].")]
                ///
                /// # Errors
                ///
                #[doc = concat!("As [`Client::", stringify!($name), "`].")]
                pub async fn $name(&self, $($value: $type),*) -> Result<$result, IpvsError> {
                    self.with(move |$client| $call).await
                }
            )*
        }
    };
}

calls! {
    info() -> Info, |client| client.info();
    timeouts() -> Timeouts, |client| client.timeouts();
    set_timeouts(timeouts: Timeouts) -> (), |client| client.set_timeouts(timeouts);
    sync_daemons() -> Vec<SyncDaemon>, |client| client.sync_daemons();
    start_sync_daemon(daemon: SyncDaemon) -> (), |client| client.start_sync_daemon(daemon);
    stop_sync_daemon(role: SyncRole) -> (), |client| client.stop_sync_daemon(role);
    service(id: ServiceId) -> ServiceEntry, |client| client.service(&id);
    services() -> Vec<ServiceEntry>, |client| client.services();
    destinations(id: ServiceId) -> Vec<DestinationEntry>, |client| client.destinations(&id);
    pools() -> Vec<Pool>, |client| client.pools();
    pool_entries() -> Vec<PoolEntry>, |client| client.pool_entries();
    pool_entry(id: ServiceId) -> PoolEntry, |client| client.pool_entry(&id);
    add_service(service: Service) -> (), |client| client.add_service(service);
    set_service(service: Service) -> (), |client| client.set_service(service);
    delete_service(id: ServiceId) -> (), |client| client.delete_service(id);
    add_destination(id: ServiceId, destination: Destination) -> (),
        |client| client.add_destination(id, destination);
    set_destination(id: ServiceId, destination: Destination) -> (),
        |client| client.set_destination(id, destination);
    delete_destination(id: ServiceId, destination: DestinationId) -> (),
        |client| client.delete_destination(id, destination);
    zero_service(id: ServiceId) -> (), |client| client.zero_service(id);
    zero() -> (), |client| client.zero();
    flush() -> (), |client| client.flush();
}

/// Does something that blocks, where that holds nobody up. A panic in it goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            // The runtime is ending, and this future with it.
            Err(_) => std::future::pending().await,
        },
    }
}
