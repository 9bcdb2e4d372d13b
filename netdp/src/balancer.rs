//! Engine `ipvs`: the published ports in the ingress namespace.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use crate::build::{VirtualService, ipvs_protocol};
use crate::desired::{Engine, Scheduler};
use crate::error::NetdpError;
use crate::netns::Netns;

/// Time-out of established connections, seconds: that of netfilter's connection tracking, 5 days.
/// IPVS's own, 15 minutes, is shorter than TCP's keep-alive interval.
const TIMEOUTS: ipvs::Timeouts = ipvs::Timeouts {
    tcp: Some(432_000),
    tcp_fin: None,
    udp: None,
};

/// What a service could not be given, with its id; `None` when the namespace as a whole could not.
pub(crate) type Refusal = (Option<String>, NetdpError);

/// IPVS of one namespace.
#[derive(Debug)]
pub(crate) struct Balancer {
    client: ipvs::Client,
    /// Inode of the namespace that the client talks to.
    namespace: u64,
    /// What the kernel was brought to; nothing where that is not known.
    committed: Option<Vec<ipvs::Pool>>,
}

impl Balancer {
    /// Opens IPVS of a namespace that is ours alone.
    pub(crate) fn open(netns: &Netns) -> Result<Self, NetdpError> {
        let failed = |source| NetdpError::Ipvs {
            object: netns.path().display().to_string(),
            source,
        };
        let mut client = ipvs::Client::open_in(netns.as_fd()).map_err(failed)?;
        client.set_timeouts(TIMEOUTS).map_err(failed)?;
        Ok(Self {
            client,
            namespace: netns.inode()?,
            committed: None,
        })
    }

    pub(crate) fn is_for(&self, netns: &Netns) -> bool {
        netns.inode().is_ok_and(|inode| inode == self.namespace)
    }

    /// Brings the kernel to these services; what had to be changed although it was committed, and what was
    /// refused. A service that is refused keeps no other one from being balanced.
    ///
    /// Without `verify`, what was committed stands for what the kernel has: to list a thousand
    /// services takes a hundred times as long as to change one of them. Where that turns out not to
    /// be so, as with `verify`, the kernel is asked.
    pub(crate) fn sync(
        &mut self,
        services: &[VirtualService],
        verify: bool,
    ) -> (Vec<String>, Vec<Refusal>) {
        let desired: Vec<ipvs::Pool> = services.iter().map(pool).collect();
        let committed = self.committed.take();
        if !verify && let Some(committed) = &committed {
            let operations = ipvs::plan(committed, &desired);
            if self.client.apply(&operations).is_ok() {
                self.committed = Some(desired);
                return (Vec::new(), Vec::new());
            }
        }
        let whole = |source| {
            let object = "the ingress network".to_owned();
            (
                Vec::new(),
                vec![(None, NetdpError::Ipvs { object, source })],
            )
        };
        // Nobody is told when they are changed, and the kernel's own are short.
        if verify && let Err(source) = self.client.set_timeouts(TIMEOUTS) {
            return whole(source);
        }
        let current = match self.client.pools() {
            Ok(current) => current,
            Err(source) => return whole(source),
        };
        let operations = ipvs::plan(&current, &desired);
        if let Err(error) = self.client.apply(&operations) {
            return (Vec::new(), refusals(error, services, &desired));
        }
        let drift = committed
            .filter(|_| verify)
            .map_or_else(Vec::new, |committed| ipvs::plan(&current, &committed));
        self.committed = Some(desired);
        (drift.iter().map(ToString::to_string).collect(), Vec::new())
    }
}

/// The first failure of each service: the others follow from it, and the rest of the batch was carried out.
fn refusals(
    error: ipvs::BatchError,
    services: &[VirtualService],
    pools: &[ipvs::Pool],
) -> Vec<Refusal> {
    let owner = |operation: &ipvs::Operation| {
        let id = operation.service()?;
        let at = pools.iter().position(|pool| pool.service.id == id)?;
        services.get(at).map(|service| service.service.clone())
    };
    let mut first = BTreeMap::new();
    for failure in error.failures {
        let owner = owner(&failure.operation);
        first.entry(owner).or_insert(failure.error);
    }
    let refusals = first.into_iter().map(|(service, source)| {
        let object = "the ingress network".to_owned();
        (service, NetdpError::Ipvs { object, source })
    });
    refusals.collect()
}

fn pool(service: &VirtualService) -> ipvs::Pool {
    let id = ipvs::ServiceId::Address {
        protocol: ipvs_protocol(service.port.protocol),
        address: service.address,
        port: service.port.published,
    };
    let destinations = service.backends.iter().map(|(address, weight)| {
        let id = ipvs::DestinationId::new(*address, service.port.published);
        let mut destination = ipvs::Destination::new(id, ipvs::Forward::Masquerade);
        destination.weight = u32::from(*weight);
        destination
    });
    let mut balanced = ipvs::Service::new(id, scheduler(service.scheduler));
    // These two may choose a destination that drains; without a fallback they then refuse the client.
    balanced.flags = match service.scheduler {
        Some(Scheduler::SourceHash) => ipvs::ServiceFlags::SH_FALLBACK,
        Some(Scheduler::Maglev) => ipvs::ServiceFlags::MH_FALLBACK,
        _ => ipvs::ServiceFlags::NONE,
    };
    ipvs::Pool {
        service: balanced,
        destinations: destinations.collect(),
    }
}

fn scheduler(scheduler: Option<Scheduler>) -> ipvs::Scheduler {
    match scheduler.unwrap_or(Engine::Ipvs.default_scheduler()) {
        // Refused for this engine by whoever reads the label.
        Scheduler::RoundRobin | Scheduler::Random => ipvs::Scheduler::RR,
        Scheduler::WeightedRoundRobin => ipvs::Scheduler::WRR,
        Scheduler::LeastConnections => ipvs::Scheduler::LC,
        Scheduler::WeightedLeastConnections => ipvs::Scheduler::WLC,
        Scheduler::SourceHash => ipvs::Scheduler::SH,
        Scheduler::Maglev => ipvs::Scheduler::MH,
    }
}
