//! `events`: what the data plane did.

use std::time::Duration;

use fairlead_api::v1;
use fairlead_api::v1::event::Event as Kind;
use serde::Serialize;

use crate::args::EventsArgs;
use crate::error::CliError;
use crate::format::Mirror;
use crate::format::network::EndpointState;
use crate::output::object::health_word;
use crate::output::time::rfc3339;
use crate::output::{print, print_json_line};
use crate::socket::Daemon;

/// The stream has no end, so without `--follow` a silence of this length is taken for it.
const SILENCE: Duration = Duration::from_secs(1);

/// An event for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    sequence: u64,
    timestamp: String,
    #[serde(flatten)]
    what: What,
}

/// What happened.
#[derive(Debug, Serialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum What {
    NodeApplied {
        node_id: String,
        version: u64,
    },
    EndpointApplied {
        endpoint_id: String,
        version: u64,
        state: EndpointState,
    },
    DriftHealed {
        object: String,
        detail: String,
    },
    TaskOom {
        task_id: String,
    },
    TaskHealthChanged {
        task_id: String,
        state: &'static str,
    },
    DataPlaneError {
        object: String,
        error: String,
    },
    Unknown,
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        let what = match event.event {
            Some(Kind::NodeApplied(event)) => What::NodeApplied {
                node_id: event.node_id,
                version: event.version,
            },
            Some(Kind::EndpointApplied(event)) => What::EndpointApplied {
                state: EndpointState::from_proto(event.state),
                endpoint_id: event.endpoint_id,
                version: event.version,
            },
            Some(Kind::DriftHealed(event)) => What::DriftHealed {
                object: event.object,
                detail: event.detail,
            },
            Some(Kind::TaskOom(event)) => What::TaskOom {
                task_id: event.task_id,
            },
            Some(Kind::TaskHealthChanged(event)) => What::TaskHealthChanged {
                state: health_word(event.state),
                task_id: event.task_id,
            },
            Some(Kind::DataPlaneError(event)) => What::DataPlaneError {
                object: event.object,
                error: event.error,
            },
            None => What::Unknown,
        };
        Self {
            sequence: event.sequence,
            timestamp: rfc3339(event.timestamp),
            what,
        }
    }
}

impl What {
    fn line(&self) -> String {
        match self {
            Self::NodeApplied { node_id, version } => {
                format!("node {node_id}: version {version} applied")
            }
            Self::EndpointApplied {
                endpoint_id,
                version,
                state,
            } => {
                format!(
                    "endpoint {endpoint_id}: version {version} applied, {}",
                    state.word()
                )
            }
            Self::DriftHealed { object, detail } => format!("{object}: healed: {detail}"),
            Self::TaskOom { task_id } => format!("task {task_id}: out of memory"),
            Self::TaskHealthChanged { task_id, state } => format!("task {task_id}: {state}"),
            Self::DataPlaneError { object, error } => format!("{object}: error: {error}"),
            Self::Unknown => "an event that this program does not know".to_owned(),
        }
    }
}

/// Prints the events.
pub async fn run(daemon: &mut Daemon, args: &EventsArgs, json: bool) -> Result<(), CliError> {
    let doing = "watch the events";
    let request = v1::WatchEventsRequest { after: args.since };
    let response = daemon.client.watch_events(request).await;
    let mut events = response
        .map_err(|status| daemon.error(doing, &status))?
        .into_inner();
    loop {
        let next = events.message();
        let next = if args.follow {
            next.await
        } else {
            match tokio::time::timeout(SILENCE, next).await {
                Ok(next) => next,
                Err(_) => return Ok(()),
            }
        };
        let event = match next.map_err(|status| daemon.error(doing, &status))? {
            Some(event) => Event::from(event),
            None if args.follow => return Err(daemon.ended("events")),
            None => return Ok(()),
        };
        if json {
            print_json_line(&event)?;
        } else {
            print(&format!(
                "{}  {:>6}  {}\n",
                event.timestamp,
                event.sequence,
                event.what.line()
            ))?;
        }
    }
}
