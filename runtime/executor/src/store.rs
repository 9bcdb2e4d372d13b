//! The store: what must be known after a crash, in one file.
//!
//! One thread writes. It takes all writes that wait and commits them together, durably, so that a
//! burst of a hundred statuses costs one flush of the disk. A caller that must not act before its
//! intent is on disk waits for the commit; a caller that merely reports does not.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::thread;

use fairlead_api::v1;
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use crate::record::TaskRecord;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<'_, (u8, &str), &[u8]> = TableDefinition::new("objects");
const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");

/// Version of the layout below; another one is refused, never guessed at.
const FORMAT: u64 = 1;

/// Why something could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("store {}: cannot {action}: {reason}", path.display())]
pub struct StoreError {
    path: PathBuf,
    action: &'static str,
    reason: String,
}

/// Kinds of objects in an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`v1::Task`].
    Task = 1,
    /// [`v1::Network`].
    Network = 2,
    /// [`v1::Service`].
    Service = 3,
    /// [`v1::NodeRecord`].
    Node = 4,
    /// [`v1::EndpointRecord`].
    Endpoint = 5,
}

/// Which version of this node's own record the others' acknowledgements must have reached: see
/// [`crate::model::NodeDef::answers_since`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRecord {
    /// Whose record.
    pub node: String,
    /// Of which version of it.
    pub version: u64,
    /// The version to be acknowledged.
    pub answers_since: u64,
}

impl OwnRecord {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.version.to_be_bytes(), self.answers_since.to_be_bytes()];
        [numbers.as_flattened(), self.node.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (answers_since, node) = rest.split_first_chunk()?;
        Some(Self {
            node: String::from_utf8(node.to_vec()).ok()?,
            version: u64::from_be_bytes(*version),
            answers_since: u64::from_be_bytes(*answers_since),
        })
    }
}

/// One change of the store.
#[derive(Debug)]
pub enum Op {
    /// The node's identity.
    Config(v1::NodeConfig),
    /// Name of the assignment.
    ResultsIn(String),
    /// Of this node's record.
    OwnRecord(OwnRecord),
    /// No sequence number at or above this one was given out yet.
    SequenceCeiling(u64),
    /// An object of the assignment, encoded.
    Put(Kind, String, Vec<u8>),
    /// An object that is no longer in it.
    Remove(Kind, String),
    /// What is known of a task.
    PutTask(String, Box<TaskRecord>),
    /// A task without any trace left.
    RemoveTask(String),
}

impl Op {
    /// Whose record it is about.
    fn task(&self) -> Option<&str> {
        match self {
            Self::PutTask(id, _) | Self::RemoveTask(id) => Some(id),
            _ => None,
        }
    }
}

/// Everything that was kept.
#[derive(Debug, Default)]
pub struct Content {
    /// Absent before the first Configure.
    pub config: Option<v1::NodeConfig>,
    /// Name of the assignment.
    pub results_in: String,
    /// Absent before the first record of this node; one that does not fit the record says nothing.
    pub own_record: Option<OwnRecord>,
    /// See [`Op::SequenceCeiling`].
    pub sequence_ceiling: u64,
    /// Objects of the assignment.
    pub tasks: Vec<v1::Task>,
    /// Objects of the assignment.
    pub networks: Vec<v1::Network>,
    /// Objects of the assignment.
    pub services: Vec<v1::Service>,
    /// Objects of the assignment.
    pub nodes: Vec<v1::NodeRecord>,
    /// Objects of the assignment.
    pub endpoints: Vec<v1::EndpointRecord>,
    /// By task id.
    pub records: Vec<(String, TaskRecord)>,
}

struct Batch {
    ops: Vec<Op>,
    done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// Ends when a change is on disk, or cannot be. Whoever need not wait may drop it.
pub type Written = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// A handle to the writing thread.
#[derive(Debug, Clone)]
pub struct Store {
    sender: mpsc::Sender<Batch>,
    path: Arc<PathBuf>,
}

impl Store {
    /// Opens or creates the file; what it holds.
    ///
    /// # Errors
    /// When it cannot be read, or was written by another version.
    pub fn open(path: &Path) -> Result<(Self, Content), StoreError> {
        let fail = failure(path);
        // It holds the tasks' environments.
        crate::lock::private_file(path).map_err(|e| fail("open", e.to_string()))?;
        let database = Database::create(path).map_err(|e| fail("open", e.to_string()))?;
        prepare(&database).map_err(|e| fail("prepare", e))?;
        let content = read(&database).map_err(|e| fail("read", e))?;
        let (sender, receiver) = mpsc::channel();
        let path = Arc::new(path.to_owned());
        let writer = Arc::clone(&path);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || Writer::new(database, &writer).run(&receiver))
            .map_err(|e| fail("start the writer of", e.to_string()))?;
        Ok((Self { sender, path }, content))
    }

    /// Keeps the changes, all or none; the future ends when they are on disk. Changes are kept in
    /// the order of the calls, whenever the futures are waited for.
    ///
    /// # Errors
    /// When they are not: the disk is full or broken.
    pub fn write(&self, ops: Vec<Op>) -> Written {
        let (done, wait) = oneshot::channel();
        let fail = failure(&self.path);
        let sent = self.sender.send(Batch {
            ops,
            done: Some(done),
        });
        Box::pin(async move {
            let ended = || fail("write", "the writer has ended".into());
            sent.map_err(|_| ended())?;
            wait.await.map_err(|_| ended())?
        })
    }

    /// Keeps the changes a little later. For what is only reported: a crash before it is written
    /// is made good from what the shim wrote.
    pub fn write_later(&self, ops: Vec<Op>) {
        // The writer lives as long as this handle; if it panicked, the next waiting write says so.
        let _ = self.sender.send(Batch { ops, done: None });
    }
}

fn failure(path: &Path) -> impl Fn(&'static str, String) -> StoreError + use<> {
    let path = path.to_owned();
    move |action, reason| StoreError {
        path: path.clone(),
        action,
        reason,
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn prepare(database: &Database) -> Result<(), String> {
    let transaction = database.begin_write().map_err(text)?;
    {
        transaction.open_table(OBJECTS).map_err(text)?;
        transaction.open_table(TASKS).map_err(text)?;
        let mut meta = transaction.open_table(META).map_err(text)?;
        let found = number(
            meta.get("format")
                .map_err(text)?
                .map(|v| v.value().to_vec()),
        );
        match found {
            None => {
                meta.insert("format", FORMAT.to_be_bytes().as_slice())
                    .map_err(text)?;
            }
            Some(FORMAT) => {}
            Some(other) => {
                return Err(format!(
                    "its format is {other}, this version knows {FORMAT}"
                ));
            }
        }
    }
    transaction.commit().map_err(text)
}

fn number(bytes: Option<Vec<u8>>) -> Option<u64> {
    Some(u64::from_be_bytes(bytes?.try_into().ok()?))
}

fn read(database: &Database) -> Result<Content, String> {
    let transaction = database.begin_read().map_err(text)?;
    let mut content = Content::default();
    let meta = transaction.open_table(META).map_err(text)?;
    if let Some(value) = meta.get("config").map_err(text)? {
        content.config = Some(v1::NodeConfig::decode(value.value()).map_err(text)?);
    }
    if let Some(value) = meta.get("results_in").map_err(text)? {
        content.results_in = String::from_utf8_lossy(value.value()).into_owned();
    }
    if let Some(value) = meta.get("own_record").map_err(text)? {
        content.own_record = OwnRecord::decode(value.value());
    }
    let ceiling = meta
        .get("sequence")
        .map_err(text)?
        .map(|v| v.value().to_vec());
    content.sequence_ceiling = number(ceiling).unwrap_or(0);
    let objects = transaction.open_table(OBJECTS).map_err(text)?;
    for entry in objects.iter().map_err(text)? {
        let (key, value) = entry.map_err(text)?;
        let (kind, id) = key.value();
        let bytes = value.value();
        let object = |e: prost::DecodeError| format!("object {id:?} of kind {kind}: {e}");
        match kind {
            1 => content.tasks.push(v1::Task::decode(bytes).map_err(object)?),
            2 => content
                .networks
                .push(v1::Network::decode(bytes).map_err(object)?),
            3 => content
                .services
                .push(v1::Service::decode(bytes).map_err(object)?),
            4 => content
                .nodes
                .push(v1::NodeRecord::decode(bytes).map_err(object)?),
            5 => content
                .endpoints
                .push(v1::EndpointRecord::decode(bytes).map_err(object)?),
            _ => return Err(format!("object {id:?} is of the unknown kind {kind}")),
        }
    }
    let tasks = transaction.open_table(TASKS).map_err(text)?;
    for entry in tasks.iter().map_err(text)? {
        let (key, value) = entry.map_err(text)?;
        let record = TaskRecord::decode(value.value())
            .map_err(|e| format!("record of task {:?}: {e}", key.value()))?;
        content.records.push((key.value().to_owned(), record));
    }
    Ok(content)
}

struct Writer<'a> {
    path: &'a Path,
    /// Absent after a write that failed: redb takes no more through such a handle.
    database: Option<Database>,
    /// What nobody waits for and could not be written, oldest first.
    owed: Vec<Op>,
}

impl<'a> Writer<'a> {
    fn new(database: Database, path: &'a Path) -> Self {
        Self {
            path,
            database: Some(database),
            owed: Vec::new(),
        }
    }

    fn run(mut self, receiver: &mpsc::Receiver<Batch>) {
        /// A transaction is not made longer than this, so that nobody waits for the whole burst.
        const MAX: usize = 1024;
        while let Ok(first) = receiver.recv() {
            let mut batches = vec![first];
            while batches.len() < MAX
                && let Ok(next) = receiver.try_recv()
            {
                batches.push(next);
            }
            let result = self.write(&batches);
            let result = result.map_err(|reason| {
                tracing::error!(path = %self.path.display(), reason, "cannot write to the store");
                failure(self.path)("write", reason)
            });
            for batch in batches {
                let waits = batch
                    .done
                    .is_some_and(|done| done.send(result.clone()).is_ok());
                // Whoever waits decides what is to be done.
                if result.is_err() && !waits {
                    self.owe(batch.ops);
                }
            }
        }
    }

    fn write(&mut self, batches: &[Batch]) -> Result<(), String> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::create(self.path).map_err(text)?,
        };
        let ops = batches.iter().flat_map(|batch| &batch.ops);
        commit(&database, self.owed.iter().chain(ops))?;
        self.database = Some(database);
        self.owed.clear();
        Ok(())
    }

    /// Keeps what was to be written; of a task, only the last that was said.
    fn owe(&mut self, ops: Vec<Op>) {
        for op in ops {
            if let Some(task) = op.task() {
                self.owed.retain(|owed| owed.task() != Some(task));
            }
            self.owed.push(op);
        }
    }
}

fn commit<'a>(database: &Database, ops: impl Iterator<Item = &'a Op>) -> Result<(), String> {
    let transaction = database.begin_write().map_err(text)?;
    {
        let mut meta = transaction.open_table(META).map_err(text)?;
        let mut objects = transaction.open_table(OBJECTS).map_err(text)?;
        let mut tasks = transaction.open_table(TASKS).map_err(text)?;
        for op in ops {
            match op {
                Op::Config(config) => {
                    meta.insert("config", config.encode_to_vec().as_slice())
                        .map_err(text)?;
                }
                Op::ResultsIn(name) => {
                    meta.insert("results_in", name.as_bytes()).map_err(text)?;
                }
                Op::OwnRecord(record) => {
                    meta.insert("own_record", record.encode().as_slice())
                        .map_err(text)?;
                }
                Op::SequenceCeiling(ceiling) => {
                    meta.insert("sequence", ceiling.to_be_bytes().as_slice())
                        .map_err(text)?;
                }
                Op::Put(kind, id, bytes) => {
                    objects
                        .insert((*kind as u8, id.as_str()), bytes.as_slice())
                        .map_err(text)?;
                }
                Op::Remove(kind, id) => {
                    objects.remove((*kind as u8, id.as_str())).map_err(text)?;
                }
                Op::PutTask(id, record) => {
                    tasks
                        .insert(id.as_str(), record.encode_to_vec().as_slice())
                        .map_err(text)?;
                }
                Op::RemoveTask(id) => {
                    tasks.remove(id.as_str()).map_err(text)?;
                }
            }
        }
    }
    transaction.commit().map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("executor.redb");
        let network = v1::Network {
            id: "n1".into(),
            name: "app".into(),
            ..Default::default()
        };
        let own = OwnRecord {
            node: "a".into(),
            version: 9,
            answers_since: 7,
        };
        {
            let (store, content) = Store::open(&path).unwrap();
            assert_eq!(content.config, None);
            assert_eq!(content.own_record, None);
            let record = TaskRecord {
                shim_pid: 7,
                ..Default::default()
            };
            store
                .write(vec![
                    Op::Config(v1::NodeConfig {
                        node_id: "a".into(),
                        ..Default::default()
                    }),
                    Op::ResultsIn("v1".into()),
                    Op::OwnRecord(own.clone()),
                    Op::Put(Kind::Network, "n1".into(), network.encode_to_vec()),
                    Op::Put(Kind::Network, "n2".into(), network.encode_to_vec()),
                    Op::PutTask("t1".into(), Box::new(record)),
                ])
                .await
                .unwrap();
            store.write_later(vec![Op::Remove(Kind::Network, "n2".into())]);
            store.write(vec![Op::SequenceCeiling(5)]).await.unwrap();
        }
        // The writer closes the file after the last handle is gone.
        let (_store, content) = loop {
            match Store::open(&path) {
                Ok(opened) => break opened,
                Err(error) if error.reason.contains("already open") => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(content.config.unwrap().node_id, "a");
        assert_eq!(content.results_in, "v1");
        assert_eq!(content.own_record, Some(own));
        assert_eq!(content.networks, [network]);
        assert_eq!(content.sequence_ceiling, 5);
        assert_eq!(content.records[0].1.shim_pid, 7);
    }

    #[test]
    fn garbage_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("executor.redb");
        std::fs::write(
            &path,
            b"this is no database, and longer than a header of one",
        )
        .unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("executor.redb"), "{error}");
    }
}
