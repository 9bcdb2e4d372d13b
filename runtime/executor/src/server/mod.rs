//! The socket: gRPC over a Unix socket, for root and the members of one group.

mod describe;
mod images;
mod inspect;
mod logfile;
mod logs;
mod peer;
mod pieces;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use fairlead_api::MAX_MESSAGE_BYTES;
use fairlead_api::v1::executor_server::{Executor, ExecutorServer};
use fairlead_api::v1::images_server::ImagesServer;
use fairlead_api::v1::{
    AssignRequest, AssignResponse, ConfigureRequest, ConfigureResponse, DescribeRequest,
    DescribeResponse, Event, InspectRequest, InspectResponse, LogEntry, LogsRequest, TaskStatus,
    WatchEventsRequest, WatchStatusRequest,
};
use futures_util::Stream;
use nix::unistd::Group;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use crate::assign;
use crate::node::Node;

type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Service {
    node: Arc<Node>,
    machine: describe::Machine,
}

/// Serves until it is dropped. Calls that have no end are cut off then.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    node: Arc<Node>,
    listener: UnixListener,
    group: Option<Group>,
) -> Result<(), tonic::transport::Error> {
    let machine = describe::Machine::detect();
    let check = peer::Check::new(group);
    let images = images::Service {
        node: Arc::clone(&node),
    };
    let executor = ExecutorServer::new(Service { node, machine })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let images = ImagesServer::new(images)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    tonic::transport::Server::builder()
        .add_service(InterceptedService::new(executor, check.clone()))
        .add_service(InterceptedService::new(images, check))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
}

#[tonic::async_trait]
impl Executor for Service {
    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        describe::describe(&self.node, &self.machine).map(Response::new)
    }

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        let config = request.into_inner().config;
        let config = config.ok_or_else(|| Status::invalid_argument("config: missing"))?;
        let node = Arc::clone(&self.node);
        detached(async move { assign::configure(&node, config).await }).await?;
        Ok(Response::new(ConfigureResponse {}))
    }

    async fn assign(
        &self,
        request: Request<AssignRequest>,
    ) -> Result<Response<AssignResponse>, Status> {
        let node = Arc::clone(&self.node);
        let request = request.into_inner();
        let results_in = detached(async move { assign::assign(&node, request).await }).await?;
        Ok(Response::new(AssignResponse { results_in }))
    }

    type WatchStatusStream = Streaming<TaskStatus>;

    async fn watch_status(
        &self,
        request: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let after = request.into_inner().after;
        Ok(Response::new(watch::statuses(
            Arc::clone(&self.node),
            after,
        )))
    }

    type WatchEventsStream = Streaming<Event>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let after = request.into_inner().after;
        Ok(Response::new(watch::events(Arc::clone(&self.node), after)))
    }

    async fn inspect(
        &self,
        request: Request<InspectRequest>,
    ) -> Result<Response<InspectResponse>, Status> {
        inspect::inspect(&self.node, &request.into_inner()).map(Response::new)
    }

    type LogsStream = Streaming<LogEntry>;

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        logs::logs(Arc::clone(&self.node), request.into_inner()).map(Response::new)
    }
}

/// Runs to its end although the caller may go away in the middle: what was stored is acted on.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
