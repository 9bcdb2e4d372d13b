//! What this crate sends, against what `ipvsadm` sends for the same command.
#![cfg(target_endian = "little")]

use crate::text;
use crate::uapi::{cmd_attr, daemon_attr, dest_attr, svc_attr};
use crate::wire::attr::{self, Attrs};
use crate::wire::{encode, fixtures};
use crate::{Forward, Operation, Tunnel};

/// Options of `ipvsadm`, command, bytes: one request per line.
const REQUESTS: &str = include_str!("fixtures/requests");

/// What `ipvsadm` sends without being asked, and the kernel does not read (`ip_vs_ctl.c`): all of a
/// service where only its name counts, and the same for destinations and daemons.
fn unread(operation: &Operation) -> Vec<(u16, Vec<u16>)> {
    use Operation as Op;
    let settings = vec![
        svc_attr::SCHED_NAME,
        svc_attr::FLAGS,
        svc_attr::TIMEOUT,
        svc_attr::NETMASK,
    ];
    let tunnel = vec![
        dest_attr::TUN_TYPE,
        dest_attr::TUN_PORT,
        dest_attr::TUN_FLAGS,
    ];
    match operation {
        Op::DeleteService(_) | Op::ZeroService(_) => vec![(cmd_attr::SERVICE, settings)],
        Op::AddDestination(_, destination) | Op::SetDestination(_, destination) => {
            let kinds = match destination.forward {
                Forward::Tunnel(kind) if kind != Tunnel::IPIP => Vec::new(),
                _ => tunnel,
            };
            vec![(cmd_attr::SERVICE, settings), (cmd_attr::DEST, kinds)]
        }
        Op::DeleteDestination(..) => {
            let mut kinds = tunnel;
            kinds.extend([dest_attr::FWD_METHOD, dest_attr::WEIGHT]);
            kinds.extend([dest_attr::U_THRESH, dest_attr::L_THRESH]);
            vec![(cmd_attr::SERVICE, settings), (cmd_attr::DEST, kinds)]
        }
        Op::StopSync(_) => {
            let kinds = vec![daemon_attr::MCAST_IFN, daemon_attr::SYNC_ID];
            vec![(cmd_attr::DAEMON, kinds)]
        }
        _ => Vec::new(),
    }
}

/// The same request without some attributes of its nests.
fn without(request: &[u8], unread: &[(u16, Vec<u16>)]) -> Vec<u8> {
    let mut kept = Vec::new();
    for outer in Attrs::new(request, "request").map(Result::unwrap) {
        let Some((_, kinds)) = unread.iter().find(|(kind, _)| *kind == outer.kind) else {
            match [cmd_attr::SERVICE, cmd_attr::DEST, cmd_attr::DAEMON].contains(&outer.kind) {
                true => attr::put_nested(&mut kept, outer.kind, |buf| buf.extend(outer.value)),
                false => attr::put(&mut kept, outer.kind, outer.value),
            }
            continue;
        };
        attr::put_nested(&mut kept, outer.kind, |buf| {
            for inner in outer.nested("nest").map(Result::unwrap) {
                if !kinds.contains(&inner.kind) {
                    attr::put(buf, inner.kind, inner.value);
                }
            }
        });
    }
    kept
}

#[test]
fn every_command_is_sent_as_ipvsadm_sends_it() {
    let requests: Vec<&str> = (REQUESTS.lines())
        .filter(|line| !line.starts_with('#'))
        .collect();
    for line in &requests {
        let parts: Vec<&str> = line.split(" |").map(str::trim).collect();
        let [options, command, captured] = parts[..] else {
            panic!("{line}")
        };
        let [operation] = text::parse(options).unwrap()[..] else {
            panic!("{line}")
        };
        let mut sent = Vec::new();
        encode::put_operation(&mut sent, 0x1234, 0x0102_0304, &operation);
        let head = [
            &(sent.len() as u32).to_ne_bytes()[..],
            // The family, and the flags: a request that wants an acknowledgement.
            &[0x34, 0x12, 5, 0],
            // Sequence and port.
            &[4, 3, 2, 1, 0, 0, 0, 0],
            &[command.parse().unwrap(), 1, 0, 0],
        ];
        assert_eq!(sent[..20], head.concat(), "{options}");
        let expected = without(&fixtures::bytes(captured), &unread(&operation));
        assert_eq!(sent[20..], expected, "{options}");
    }
    // Every kind of operation is among them.
    let mut kinds: Vec<_> = (requests.iter())
        .map(|line| text::parse(line.split(" |").next().unwrap()).unwrap()[0])
        .map(|operation| std::mem::discriminant(&operation))
        .collect();
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    kinds.dedup();
    assert_eq!(kinds.len(), 12);
}
