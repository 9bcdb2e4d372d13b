//! A daemon without a node behind it, for what the command line does with its answers.

// Not every test needs all of it.
#![allow(dead_code)]

pub mod images;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_api::v1::change::Object;
use fairlead_api::v1::executor_server::{Executor, ExecutorServer};
use fairlead_api::v1::images_server::ImagesServer;
use fairlead_api::v1::{self, event};
use prost::Message;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

/// What the daemon was told, and how it shall answer.
#[derive(Default)]
pub struct Script {
    pub configured: Option<v1::NodeConfig>,
    pub assigned: Vec<v1::AssignRequest>,
    pub held: v1::InspectResponse,
    pub refusal: Option<v1::Refusal>,
    /// Records of these nodes are never acknowledged.
    pub ignored: Vec<String>,
    pub statuses: Vec<v1::TaskStatus>,
    pub logs: Vec<v1::LogEntry>,
    pub log_requests: Vec<v1::LogsRequest>,
    pub describe: v1::DescribeResponse,
    /// The next pull; the others fail.
    pub pull: Option<images::Pull>,
}

#[derive(Clone)]
struct Double {
    script: Arc<Mutex<Script>>,
    events: watch::Sender<Vec<v1::Event>>,
}

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = UnboundedReceiverStream<Result<T, Status>>;

/// Items, then silence: these streams have no end.
fn endless<T: Send + 'static>(items: Vec<T>) -> Items<T> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for item in items {
            let _ = sender.send(Ok(item));
        }
        sender.closed().await;
    });
    UnboundedReceiverStream::new(receiver)
}

impl Double {
    fn put(&self, object: Object) {
        let script = &mut *self.script.lock().unwrap();
        let own = script
            .configured
            .as_ref()
            .map(|config| config.node_id.clone());
        let event = match object {
            Object::Node(node) => {
                script.held.nodes.retain(|held| held.id != node.id);
                script.held.nodes.push(node.clone());
                if own.as_ref() == Some(&node.id) || script.ignored.contains(&node.id) {
                    return;
                }
                let (node_id, version) = (node.id, node.version);
                event::Event::NodeApplied(v1::NodeApplied { node_id, version })
            }
            Object::Endpoint(record) => event::Event::EndpointApplied(v1::EndpointApplied {
                endpoint_id: record.id,
                version: record.version,
                state: record.state,
            }),
            Object::Task(task) => {
                let task = Some(task);
                script.held.tasks.push(v1::TaskView {
                    task,
                    ..Default::default()
                });
                return;
            }
            _ => return,
        };
        self.events.send_modify(|events| {
            let sequence = events.len() as u64 + 1;
            events.push(v1::Event {
                sequence,
                timestamp: 0,
                event: Some(event),
            });
        });
    }
}

#[tonic::async_trait]
impl Executor for Double {
    type WatchStatusStream = Items<v1::TaskStatus>;
    type WatchEventsStream = Items<v1::Event>;
    type LogsStream = std::pin::Pin<Box<dyn Stream<Item = Result<v1::LogEntry, Status>> + Send>>;

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Answer<v1::DescribeResponse> {
        Ok(Response::new(self.script.lock().unwrap().describe.clone()))
    }

    async fn configure(&self, _: Request<v1::ConfigureRequest>) -> Answer<v1::ConfigureResponse> {
        // The assignment carries it, so that both are refused together.
        Err(Status::unimplemented("the command line does not call this"))
    }

    async fn assign(&self, request: Request<v1::AssignRequest>) -> Answer<v1::AssignResponse> {
        let request = request.into_inner();
        {
            let script = &mut *self.script.lock().unwrap();
            if let Some(refusal) = &script.refusal {
                let details = refusal.encode_to_vec().into();
                return Err(Status::with_details(
                    tonic::Code::InvalidArgument,
                    "refused",
                    details,
                ));
            }
            if request.r#type == v1::AssignmentType::Incremental as i32 {
                if request.applies_to != script.held.assignment {
                    return Err(Status::failed_precondition("applies to another state"));
                }
            } else {
                script.held = v1::InspectResponse::default();
            }
            if let Some(config) = &request.node_config {
                script.configured = Some(config.clone());
            }
            script.held.assignment = request.results_in.clone();
            script.assigned.push(request.clone());
        }
        for change in request.changes {
            self.put(change.object.unwrap());
        }
        Ok(Response::new(v1::AssignResponse {
            results_in: request.results_in,
        }))
    }

    async fn watch_status(
        &self,
        _: Request<v1::WatchStatusRequest>,
    ) -> Answer<Self::WatchStatusStream> {
        Ok(Response::new(endless(
            self.script.lock().unwrap().statuses.clone(),
        )))
    }

    async fn watch_events(
        &self,
        _: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let mut events = self.events.subscribe();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut sent = 0;
            loop {
                let news = events.borrow_and_update()[sent..].to_vec();
                sent += news.len();
                if news
                    .into_iter()
                    .any(|event| sender.send(Ok(event)).is_err())
                {
                    return;
                }
                if events.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }

    async fn inspect(&self, request: Request<v1::InspectRequest>) -> Answer<v1::InspectResponse> {
        let v1::InspectRequest { kind, name } = request.into_inner();
        let mut held = self.script.lock().unwrap().held.clone();
        let wanted = |of: v1::Kind| kind == 0 || kind == of as i32;
        let named = |id: &str| name.is_empty() || id.starts_with(&name);
        held.tasks
            .retain(|view| wanted(v1::Kind::Task) && named(&view.task.as_ref().unwrap().id));
        held.nodes
            .retain(|node| wanted(v1::Kind::Node) && named(&node.id));
        held.services
            .retain(|view| wanted(v1::Kind::Service) && named(&view.service.as_ref().unwrap().id));
        Ok(Response::new(held))
    }

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Answer<Self::LogsStream> {
        let request = request.into_inner();
        let script = &mut *self.script.lock().unwrap();
        let entries = script.logs.clone();
        let follow = request.follow;
        script.log_requests.push(request);
        if follow {
            return Ok(Response::new(Box::pin(endless(entries))));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(
            entries.into_iter().map(Ok),
        ))))
    }
}

/// A running double, on a socket in a directory of its own.
pub struct Daemon {
    pub script: Arc<Mutex<Script>>,
    pub socket: PathBuf,
    pub directory: TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Daemon {
    pub fn start(script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("executor.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let script = Arc::new(Mutex::new(script));
        let double = Double {
            script: script.clone(),
            events: watch::Sender::new(Vec::new()),
        };
        let listener = {
            let _context = runtime.enter();
            UnixListener::bind(&socket).unwrap()
        };
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(ExecutorServer::new(double.clone()))
                .add_service(ImagesServer::new(double))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self {
            script,
            socket,
            directory,
            runtime: Some(runtime),
        }
    }

    /// Stops at once, as a killed daemon does; the socket's file stays.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// The command line, pointed at this daemon.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = fairlead(arguments);
        command.env("FAIRLEAD_SOCKET", &self.socket);
        command
    }

    /// Runs the command line to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Writes a file next to the socket and gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program under test.
pub fn fairlead(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead"));
    command.args(arguments).env_remove("FAIRLEAD_SOCKET");
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
