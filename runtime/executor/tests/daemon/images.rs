//! Which image a task gets.

use std::fs;
use std::path::Path;

use fairlead_api::v1::TaskState;
use nix::sys::signal::Signal;

use crate::bed::{Daemon, complete, configure, said, script, status, wait_for};
use crate::image::archive;
use crate::traces::nothing_left;

/// What the volume holds: enough that copying it can be cut short.
const FILES: usize = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_started_again_uses_the_image_that_it_has_begun_with() {
    let mut daemon = Daemon::start("begun");
    let config = r#"{"Volumes": {"/data": {}}}"#;
    let saying = |which: &'static str| {
        move |root: &Path| {
            fs::write(root.join("which"), which).unwrap();
            fs::create_dir(root.join("data")).unwrap();
            for n in 0..FILES {
                fs::write(root.join(format!("data/{n}")), "x").unwrap();
            }
        }
    };
    let image = archive(&daemon, "begun", config, saying("old\n"));
    archive(&daemon, "newer", config, saying("new\n"));
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let task = |id: &str, state: TaskState| {
        let mut task = script(&daemon, id, "cat /which; ls /data | wc -l");
        task.container.as_mut().unwrap().image.clone_from(&image);
        task.desired_state = state as i32;
        task
    };
    let [ready, running] = [TaskState::Ready, TaskState::Running].map(|state| task("t1", state));
    let after = task("t2", TaskState::Running);
    client.assign(complete("1", &[ready])).await.unwrap();
    let volume = daemon.state_dir().join("images/snapshots/t1/volumes/0");
    let entries = || fs::read_dir(&volume).map_or(0, Iterator::count);
    wait_for("a part of the copy", || entries() > 0);
    daemon.end(Signal::SIGKILL);
    // The same name means another image now.
    let [old, new] =
        ["begun", "newer"].map(|name| daemon.rootfs().with_file_name(format!("{name}.tar")));
    fs::rename(new, old).unwrap();
    daemon.launch();

    let mut client = daemon.client().await;
    status(&mut client, "t1", |s| s.state() == TaskState::Ready).await;
    let log = fs::read_to_string(daemon.log_path()).unwrap();
    let prepares = |line: &&str| line.contains("next step") && line.contains("Prepare");
    let prepared = log.lines().filter(prepares).count();
    assert!(prepared > 1, "it was prepared before it was cut short");
    client
        .assign(complete("2", &[running, after]))
        .await
        .unwrap();
    for (id, which) in [("t1", "old"), ("t2", "new")] {
        status(&mut client, id, |s| s.state() == TaskState::Complete).await;
        let text = said(&mut client, id, |_| true).await;
        assert_eq!(text, format!("{which}\n{FILES}\n"), "{id}");
    }
    client.assign(complete("3", &[])).await.unwrap();
    nothing_left(&daemon);
}
