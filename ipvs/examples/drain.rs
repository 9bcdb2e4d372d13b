//! Takes a server out of a service without harm: no new connections to it, wait until those that it
//! has are over, delete it.
//!
//! `cargo run --example drain -- 192.0.2.1:80 10.0.0.1:8080 [SECONDS]`, which waits 60 seconds at
//! most. Needs root.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use ipvs::{Client, Destination, DestinationId, IpvsError, ServiceId};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (service, server, seconds) = match &arguments[..] {
        [service, server] => (service, server, 60),
        [service, server, seconds] => (service, server, seconds.parse()?),
        _ => return Err("usage: drain SERVICE:PORT SERVER:PORT [SECONDS]".into()),
    };
    let (service, server): (SocketAddr, SocketAddr) = (service.parse()?, server.parse()?);
    let service = ServiceId::tcp(service.ip(), service.port());
    let server = DestinationId::new(server.ip(), server.port());

    let mut client = Client::open()?;
    let entries = client.destinations(&service)?;
    let entry = entries.iter().find(|entry| entry.destination.id == server);
    let entry = entry.ok_or(IpvsError::NoSuchDestination {
        service,
        destination: server,
    })?;
    let drained = Destination {
        weight: 0,
        ..entry.destination
    };
    client.set_destination(service, drained)?;
    println!("{server} of {service} gets no new connections");
    let left = client.wait_drained(&service, &server, Duration::from_secs(seconds))?;
    client.delete_destination(service, server)?;
    // What becomes of those that are left: see `ipvs::sysctl::EXPIRE_NODEST_CONN`.
    println!("{server} is gone, {left} connections to it were not over");
    Ok(())
}
