//! Questions that are not about the cluster: asked of the upstreams, side by side.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::cache::{Cache, Key};
use super::request::Request;
use super::upstream::{Origin, Outgoing, ask, is_useful};
use super::{ADDRESS, Transport};

/// How many upstreams are used, as in resolv.conf (MAXNS).
const UPSTREAMS: usize = 3;

/// How long one upstream is waited for before the next is asked as well. Most answers are there
/// sooner, so that the second upstream sees few questions.
const HEAD_START: Duration = Duration::from_millis(250);

/// All upstreams together. Below the 5 seconds after which clients give up or ask again.
const DEADLINE: Duration = Duration::from_millis(4500);

/// Questions of one task that are out at a time, each with up to [`UPSTREAMS`] sockets. What is
/// above it is refused at once, so that no task takes the daemon's file descriptors from the others.
const AT_ONCE: usize = 256;

/// Asks the upstreams of one task.
#[derive(Debug)]
pub(super) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    origin: Origin,
    cache: Mutex<Cache>,
    /// The same question asked again while it is out waits for the same answer.
    pending: Mutex<HashMap<(Transport, Key), Arc<Answer>>>,
    slots: Semaphore,
}

/// What came of asking: `None` when no upstream replied.
type Answer = OnceCell<Option<Arc<[u8]>>>;

impl Forwarder {
    /// The resolver's own address is left out: it would ask itself for ever.
    pub(super) fn new(upstreams: &[SocketAddr], origin: Origin) -> Self {
        let others = upstreams
            .iter()
            .filter(|at| at.ip().to_canonical() != ADDRESS);
        Self {
            upstreams: others.take(UPSTREAMS).copied().collect(),
            origin,
            cache: Mutex::default(),
            pending: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
        }
    }

    /// The reply to a query, from the cache or an upstream, or else a failure. `None`: no reply can
    /// be made.
    pub(super) async fn resolve(
        &self,
        query: &[u8],
        request: &Request,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        if self.upstreams.is_empty() {
            // As Docker: not NXDOMAIN, for nobody was asked whether the name exists, and a record
            // of ours may still be on its way.
            return request.failure(ResponseCode::ServFail);
        }
        let (id, body) = query.split_at_checked(2)?;
        let cached = lock(&self.cache).get(body, request.limit, std::time::Instant::now());
        let reply = match cached {
            Some(reply) => Some(reply),
            None => {
                let Ok(_slot) = self.slots.try_acquire() else {
                    return request.failure(ResponseCode::Refused);
                };
                self.fetch(query, body, request, transport)
                    .await
                    .map(|reply| reply.to_vec())
            }
        };
        match reply {
            Some(mut reply) => {
                reply.get_mut(..2)?.copy_from_slice(id);
                Some(reply)
            }
            None => request.failure(ResponseCode::ServFail),
        }
    }

    /// Asks, or waits for the one who already does.
    async fn fetch(
        &self,
        query: &[u8],
        body: &[u8],
        request: &Request,
        transport: Transport,
    ) -> Option<Arc<[u8]>> {
        let key = (transport, Key::from(body));
        let answer = Arc::clone(lock(&self.pending).entry(key.clone()).or_default());
        let reply = answer
            .get_or_init(async || {
                let outgoing = Outgoing {
                    bytes: query.to_vec(),
                    question: request.question.clone(),
                    limit: request.limit,
                    transport,
                };
                let reply: Arc<[u8]> = self.race(outgoing).await?.into();
                lock(&self.cache).put(&key.1, &reply, std::time::Instant::now());
                Some(reply)
            })
            .await
            .clone();
        let mut pending = lock(&self.pending);
        // A later question of the same kind may already be out.
        if pending
            .get(&key)
            .is_some_and(|current| Arc::ptr_eq(current, &answer))
        {
            pending.remove(&key);
        }
        reply
    }

    /// Asks the first upstream; the next one when it fails, or is slow, and so on. The first useful
    /// reply wins; failing that, the last failure that an upstream reported.
    async fn race(&self, query: Outgoing) -> Option<Vec<u8>> {
        let query = Arc::new(query);
        let deadline = Instant::now() + DEADLINE;
        let mut left = self.upstreams.iter();
        let mut asked = JoinSet::new();
        let mut failure = None;
        loop {
            let mut until = deadline;
            if let Some(&upstream) = left.next() {
                let (origin, query) = (self.origin.clone(), Arc::clone(&query));
                asked.spawn(async move { (upstream, ask(origin, upstream, query).await) });
                if left.len() > 0 {
                    until = deadline.min(Instant::now() + HEAD_START);
                }
            }
            match timeout_at(until, asked.join_next()).await {
                Ok(Some(Ok((_, Ok((code, reply)))))) if is_useful(code) => return Some(reply),
                Ok(Some(Ok((upstream, Ok((code, reply)))))) => {
                    tracing::debug!(%upstream, %code, "DNS upstream failed");
                    failure = Some(reply);
                }
                Ok(Some(Ok((upstream, Err(error))))) => {
                    tracing::debug!(%upstream, %error, "DNS upstream failed");
                }
                Ok(Some(Err(error))) => tracing::warn!(%error, "asking a DNS upstream broke off"),
                // Nobody is left to wait for, or to ask.
                Ok(None) => return failure,
                Err(_) if until == deadline => {
                    let name = &query.question.name;
                    tracing::debug!(%name, "no DNS upstream replied in time");
                    return failure;
                }
                Err(_) => {}
            }
        }
    }
}

/// What these locks guard is whole at every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
