//! Engine `ipvs`: the published ports in the ingress namespace.

use std::os::fd::AsFd;

use crate::build::{VirtualService, ipvs_protocol};
use crate::desired::{Engine, Scheduler};
use crate::error::NetdpError;
use crate::netns::Netns;

/// Time-out of established connections, seconds: that of netfilter's connection tracking, 5 days.
/// IPVS's own, 15 minutes, is shorter than TCP's keep-alive interval.
const ESTABLISHED_SECONDS: u32 = 432_000;

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
        let timeouts = ipvs::Timeouts {
            tcp: Some(ESTABLISHED_SECONDS),
            tcp_fin: None,
            udp: None,
        };
        client.set_timeouts(timeouts).map_err(failed)?;
        Ok(Self {
            client,
            namespace: netns.inode()?,
            committed: None,
        })
    }

    pub(crate) fn is_for(&self, netns: &Netns) -> bool {
        netns.inode().is_ok_and(|inode| inode == self.namespace)
    }

    /// Brings the kernel to these services; what had to be changed although it was committed.
    ///
    /// Without `verify`, what was committed stands for what the kernel has: to list a thousand
    /// services takes a hundred times as long as to change one of them. Where that turns out not to
    /// be so, as with `verify`, the kernel is asked.
    pub(crate) fn sync(
        &mut self,
        services: &[VirtualService],
        verify: bool,
    ) -> Result<Vec<String>, NetdpError> {
        let desired: Vec<ipvs::Pool> = services.iter().map(pool).collect();
        let committed = self.committed.take();
        if !verify && let Some(committed) = &committed {
            let operations = ipvs::plan(committed, &desired);
            if self.client.apply(&operations).is_ok() {
                self.committed = Some(desired);
                return Ok(Vec::new());
            }
        }
        let object = || "the ingress network".to_owned();
        let current = self.client.pools().map_err(|source| NetdpError::Ipvs {
            object: object(),
            source,
        })?;
        let operations = ipvs::plan(&current, &desired);
        self.client
            .apply(&operations)
            .map_err(|source| NetdpError::IpvsBatch {
                object: object(),
                source,
            })?;
        let drift = committed
            .filter(|_| verify)
            .map_or_else(Vec::new, |committed| ipvs::plan(&current, &committed));
        self.committed = Some(desired);
        Ok(drift.iter().map(ToString::to_string).collect())
    }
}

fn pool(service: &VirtualService) -> ipvs::Pool {
    let id = ipvs::ServiceId::Address {
        protocol: ipvs_protocol(service.port.protocol),
        address: service.address,
        port: service.port.published,
    };
    let destinations = service.backends.iter().map(|(address, port, weight)| {
        let id = ipvs::DestinationId::new(*address, *port);
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
