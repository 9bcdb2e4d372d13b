//! The examples, run as a person runs them. Needs root and `ip_vs`.

mod common;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{in_new_namespace, run, saved};

/// cargo builds the examples with the tests, into a folder beside theirs.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let target: PathBuf = test.ancestors().nth(2).unwrap().into();
    Command::new(target.join("examples").join(name))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_balancer_a_list_and_a_drain() {
    in_new_namespace(|_| {
        for last in [1, 11, 12] {
            run("ip", &format!("address add 10.0.0.{last}/32 dev lo"));
        }
        let first = TcpListener::bind("10.0.0.11:8080").unwrap();
        let mut balancer = example("balancer")
            .args(["10.0.0.1:80", "10.0.0.11:8080", "10.0.0.12:8080"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(balancer.stdout.take().unwrap()).lines();
        // What comes between depends on when the balancer looks.
        let mut said = |what: &str| {
            let found = lines.find(|line| line.as_ref().unwrap().contains(what));
            assert!(found.is_some(), "{what} was not said");
        };
        said("add service TCP 10.0.0.1:80 scheduler wlc");
        said("add destination 10.0.0.11:8080 Masq weight 1");
        said("add destination 10.0.0.12:8080 Masq weight 0");
        let second = TcpListener::bind("10.0.0.12:8080").unwrap();
        said("change destination 10.0.0.12:8080 Masq weight 1");
        drop(first);
        said("change destination 10.0.0.11:8080 Masq weight 0");
        let connection = TcpStream::connect("10.0.0.1:80").unwrap();

        let list = output(&mut example("list"));
        assert_eq!(list, run("ipvsadm", "-Ln"));
        let stats = output(example("list").args(["--stats", "--exact"]));
        assert_eq!(stats.lines().count(), list.lines().count());

        let drain = output(example("drain").args(["10.0.0.1:80", "10.0.0.12:8080", "0"]));
        assert!(drain.contains("1 connections to it"), "{drain}");
        // The balancer heals what it has not done itself.
        said("add destination 10.0.0.12:8080 Masq weight 1");
        let drain = example("drain")
            .args(["10.0.0.1:80", "10.0.0.13:8080"])
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&drain.stderr).into_owned();
        assert!(
            !drain.status.success() && words.contains("NoSuchDestination"),
            "{words}"
        );

        drop(balancer.stdin.take());
        assert!(balancer.wait().unwrap().success());
        assert_eq!(saved(), [""; 0]);
        drop((connection, second));
    });
}
