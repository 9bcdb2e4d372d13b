//! The client for programs that use tokio. Needs root, `ip_vs` and the feature `tokio`.

mod common;

use std::os::fd::OwnedFd;
use std::time::Duration;

use common::{in_new_namespace, saved, this_namespace};
use ipvs::{
    AsyncClient, Destination, DestinationId, Forward, IpvsError, Operation, Scheduler, Service,
    ServiceId, SyncDaemon, SyncRole, Timeouts,
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn calls_do_what_the_blocking_ones_do() {
    in_new_namespace(|_| {
        let namespace = this_namespace();
        runtime().block_on(async {
            let client = AsyncClient::open_in(OwnedFd::from(namespace))
                .await
                .unwrap();
            let id = ServiceId::tcp([10, 0, 0, 1], 80);
            let server = Destination::new(DestinationId::new([10, 0, 0, 2], 80), Forward::Route);
            client
                .add_service(Service::new(id, Scheduler::RR))
                .await
                .unwrap();
            client.add_destination(id, server).await.unwrap();
            let heavy = Destination {
                weight: 0,
                ..server
            };
            client.set_destination(id, heavy).await.unwrap();
            assert_eq!(client.destinations(id).await.unwrap()[0].destination, heavy);
            assert_eq!(client.service(id).await.unwrap().service.id, id);
            assert_eq!(client.services().await.unwrap().len(), 1);
            assert_eq!(client.pools().await.unwrap()[0].destinations, [heavy]);
            assert_eq!(client.pool_entries().await.unwrap().len(), 1);
            let patience = Duration::from_secs(60);
            let left = client.wait_drained(id, server.id, patience).await.unwrap();
            assert_eq!(left, 0);
            assert_eq!(
                saved(),
                [
                    "-A -t 10.0.0.1:80 -s rr",
                    "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -g -w 0"
                ]
            );

            let timeouts = Timeouts {
                tcp: Some(1000),
                ..Timeouts::default()
            };
            client.set_timeouts(timeouts).await.unwrap();
            assert_eq!(client.timeouts().await.unwrap().tcp, Some(1000));
            assert_eq!(client.info().await.unwrap().version.0, 1);
            client.zero_service(id).await.unwrap();
            client.zero().await.unwrap();
            client.delete_destination(id, server.id).await.unwrap();
            let changed = Service::new(id, Scheduler::WRR);
            client.set_service(changed).await.unwrap();
            client.delete_service(id).await.unwrap();
            let error = client.delete_service(id).await.unwrap_err();
            assert!(error.is_not_found(), "{error}");
            assert_eq!(client.sync_daemons().await.unwrap(), []);
            let daemon = SyncDaemon::new(SyncRole::Master, "lo".parse().unwrap());
            client.start_sync_daemon(daemon).await.unwrap();
            client.stop_sync_daemon(SyncRole::Master).await.unwrap();
            client.flush().await.unwrap();
        });
    });
}

#[test]
fn clones_take_turns_and_a_dropped_call_does_no_harm() {
    in_new_namespace(|client| {
        runtime().block_on(async {
            let client = AsyncClient::from(client);
            let id = |port| ServiceId::tcp([10, 0, 0, 1], port);
            let tasks = (1..=20).map(|port| {
                let client = client.clone();
                tokio::spawn(async move {
                    let service = Service::new(id(port), Scheduler::RR);
                    let operations = vec![Operation::AddService(service); 2];
                    let error = client.apply(operations).await.unwrap_err();
                    assert!(matches!(
                        error.failures[..],
                        [ref failure] if matches!(failure.error, IpvsError::ServiceExists { service } if service == id(port))
                    ));
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
            // Given up once its turn had come: it is done all the same, and the next call is well.
            let (begun, has_begun) = tokio::sync::oneshot::channel();
            let (go_on, may_go_on) = std::sync::mpsc::channel();
            let flush = client.with(move |client| {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                client.flush()
            });
            let second = client.clone();
            tokio::select! {
                _ = flush => panic!("it cannot be done yet"),
                _ = has_begun => {}
            }
            // Given up while it waits for its turn: not done.
            let id = ServiceId::tcp([10, 0, 0, 1], 99);
            let add = second.add_service(Service::new(id, Scheduler::RR));
            tokio::time::timeout(Duration::from_millis(50), add)
                .await
                .unwrap_err();
            go_on.send(()).unwrap();
            assert_eq!(client.services().await.unwrap(), []);
        });
    });
}
