//! A tiny load balancer: one TCP service, servers that are asked every second whether they are
//! there, and that get connections only while they are.
//!
//! `cargo run --example balancer -- 192.0.2.1:80 10.0.0.1:8080 10.0.0.2:8080`. It ends, and takes
//! the service away, when standard input does (Ctrl-D). Needs root; the address of the service must
//! be one of this machine's, and replies of the servers must come back through it.

use std::error::Error;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use ipvs::{
    Client, Destination, DestinationId, Forward, Operation, Pool, Scheduler, Service, ServiceId,
    plan,
};

const INTERVAL: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Result<Vec<SocketAddr>, _> =
        std::env::args().skip(1).map(|word| word.parse()).collect();
    let addresses = addresses?;
    let [address, servers @ ..] = &addresses[..] else {
        return Err("usage: balancer SERVICE:PORT SERVER:PORT...".into());
    };
    let service = Service::new(ServiceId::tcp(address.ip(), address.port()), Scheduler::WLC);
    let (end, ended) = channel::<()>();
    thread::spawn(move || {
        // Until the end of the input; then the channel closes.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(end);
    });

    let mut client = Client::open()?;
    while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let desired = vec![Pool {
            service,
            destinations: servers.iter().map(destination).collect(),
        }];
        // Read each time, so that what somebody else changes comes back. Only what differs is sent;
        // weights change in place, and connections stay.
        let mut current = client.pools()?;
        current.retain(|pool| pool.service.id == service.id);
        let operations = plan(&current, &desired);
        for operation in &operations {
            println!("{operation}");
        }
        // What somebody else took away meanwhile is there again next time.
        if let Err(error) = client.apply(&operations) {
            eprintln!("{error}");
        }
    }
    client.apply(&[Operation::DeleteService(service.id)])?;
    Ok(())
}

/// A server that does not answer keeps its place, and what connections it has, with weight 0.
fn destination(server: &SocketAddr) -> Destination {
    let alive = TcpStream::connect_timeout(server, INTERVAL).is_ok();
    Destination {
        weight: u32::from(alive),
        ..Destination::new(
            DestinationId::new(server.ip(), server.port()),
            Forward::Masquerade,
        )
    }
}
