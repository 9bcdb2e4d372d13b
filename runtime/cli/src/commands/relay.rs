//! The small part of an agent that several nodes need from each other: when one has applied the
//! record of another, the other is told, and may then use the backends behind it.

use std::collections::BTreeSet;
use std::time::Duration;

use fairlead_api::v1;
use fairlead_api::v1::change::Object;
use fairlead_api::v1::event::Event;
use prost::Message;
use tokio::sync::mpsc;

use super::apply::Applied;
use crate::error::CliError;
use crate::format::{hash, update};
use crate::output::progress;
use crate::socket::Daemon;

/// That one node has applied the record of another: numbers are positions among the nodes.
#[derive(Debug, PartialEq)]
struct Acknowledgement {
    by: usize,
    of: usize,
    version: u64,
}

/// Passes acknowledgements on until every node knows that every other one has applied the current
/// version of its record.
pub async fn run(nodes: &mut [Applied], limit: Duration) -> Result<(), CliError> {
    let mut missing = pairs(nodes);
    let total = missing.len();
    if total == 0 {
        return Ok(());
    }
    progress(&format!(
        "passing on {total} acknowledgements between {} nodes",
        nodes.len()
    ));
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let ids: Vec<String> = nodes.iter().map(|node| node.id.clone()).collect();
    let mut watchers = tokio::task::JoinSet::new();
    for (by, node) in nodes.iter().enumerate() {
        watchers.spawn(watch(by, node.daemon.clone(), ids.clone(), sender.clone()));
    }
    let work = async {
        while !missing.is_empty() {
            tokio::select! {
                Some(first) = receiver.recv() => {
                    // What has come meanwhile goes into the same update.
                    let mut news = vec![first];
                    while let Ok(next) = receiver.try_recv() {
                        news.push(next);
                    }
                    pass_on(nodes, &news, &mut missing).await?;
                }
                Some(Ok(error)) = watchers.join_next() => return Err(error),
            }
        }
        Ok(())
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(())) => {
            progress(&format!("all {total} acknowledgements passed on"));
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(CliError::Incomplete {
            what: format!("no acknowledgement in {} s", limit.as_secs_f64()),
            missing: missing.iter().map(|pair| describe(nodes, *pair)).collect(),
        }),
    }
}

/// Every (by, of) where each knows the other.
fn pairs(nodes: &[Applied]) -> BTreeSet<(usize, usize)> {
    let knows =
        |node: &Applied, other: &Applied| node.records.iter().any(|record| record.id == other.id);
    let all = (0..nodes.len()).flat_map(|by| (0..nodes.len()).map(move |of| (by, of)));
    all.filter(|(by, of)| {
        by != of && knows(&nodes[*by], &nodes[*of]) && knows(&nodes[*of], &nodes[*by])
    })
    .collect()
}

fn describe(nodes: &[Applied], (by, of): (usize, usize)) -> String {
    let of = &nodes[of];
    let version = own_version(of);
    format!(
        "{} has not applied version {version} of the record of {}",
        nodes[by].id, of.id
    )
}

/// The version of a node's own record.
fn own_version(node: &Applied) -> u64 {
    node.records
        .iter()
        .find(|record| record.id == node.id)
        .map_or(0, |record| record.version)
}

/// Sends each acknowledgement of one node into the channel, until the stream fails.
async fn watch(
    by: usize,
    mut daemon: Daemon,
    ids: Vec<String>,
    sender: mpsc::UnboundedSender<Acknowledgement>,
) -> CliError {
    let doing = "watch the events";
    let request = v1::WatchEventsRequest { after: 0 };
    let mut events = match daemon.client.watch_events(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return daemon.error(doing, &status),
    };
    loop {
        match events.message().await {
            Ok(Some(v1::Event {
                event: Some(Event::NodeApplied(applied)),
                ..
            })) => {
                let of = ids.iter().position(|id| *id == applied.node_id);
                let version = applied.version;
                // Who listens no longer has everything that was waited for.
                if let Some(of) = of.filter(|of| *of != by) {
                    let _ = sender.send(Acknowledgement { by, of, version });
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return daemon.ended("events"),
            Err(status) => return daemon.error(doing, &status),
        }
    }
}

/// Tells each node which of its peers have applied its record, in one update per node.
async fn pass_on(
    nodes: &mut [Applied],
    news: &[Acknowledgement],
    missing: &mut BTreeSet<(usize, usize)>,
) -> Result<(), CliError> {
    for of in 0..nodes.len() {
        let mut changes = Vec::new();
        for Acknowledgement { by, version, .. } in news.iter().filter(|news| news.of == of) {
            let peer = nodes[*by].id.clone();
            let node = &mut nodes[of];
            if let Some(record) = node.records.iter_mut().find(|record| record.id == peer)
                && record.acknowledged_version < *version
            {
                record.acknowledged_version = *version;
                changes.push(update(Object::Node(record.clone())));
            }
        }
        if !changes.is_empty() {
            send(&mut nodes[of], changes).await?;
        }
        let version = own_version(&nodes[of]);
        for news in news
            .iter()
            .filter(|news| news.of == of && news.version >= version)
        {
            if missing.remove(&(news.by, of)) {
                progress(&format!(
                    "{}: acknowledged by {}",
                    nodes[of].id, nodes[news.by].id
                ));
            }
        }
    }
    Ok(())
}

/// Sends an incremental update. Its name follows from the state that it builds on and its content.
async fn send(node: &mut Applied, changes: Vec<v1::Change>) -> Result<(), CliError> {
    let content: Vec<u8> = changes
        .iter()
        .flat_map(Message::encode_length_delimited_to_vec)
        .collect();
    let request = v1::AssignRequest {
        r#type: v1::AssignmentType::Incremental.into(),
        applies_to: node.state.clone(),
        results_in: hash(&[node.state.as_bytes(), &content]),
        changes,
        node_config: None,
    };
    let doing = "pass on acknowledgements";
    let response = node.daemon.client.assign(request).await;
    let response =
        response.map_err(|status| node.daemon.refusal(doing, &status, "acknowledgements", ""))?;
    node.state = response.into_inner().results_in;
    Ok(())
}
