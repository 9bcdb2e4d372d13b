//! Which image a task gets.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fairlead_api::v1::images_client::ImagesClient;
use fairlead_api::v1::{self, TaskState};
use nix::sys::signal::Signal;
use tonic::transport::Channel;

use crate::bed::{Daemon, PATIENCE, complete, configure, said, script, status, wait_for};
use crate::image::archive;
use crate::traces::nothing_left;

/// What the volume holds: enough that copying it can be cut short.
const FILES: usize = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_started_again_uses_the_image_that_it_has_begun_with() {
    started_again("begun", false, "old").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_started_again_begins_anew_without_the_image() {
    started_again("anew", true, "new").await;
}

/// A daemon is killed while it prepares a task, and what the task's image is called means another one when
/// the next daemon comes.
async fn started_again(test: &str, remove: bool, expected: &str) {
    let mut daemon = Daemon::start(test);
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
    let task = |daemon: &Daemon, id: &str, state: TaskState| {
        let mut task = script(daemon, id, "cat /which; ls /data | wc -l");
        task.container.as_mut().unwrap().image.clone_from(&image);
        task.desired_state = state as i32;
        task
    };
    // On a quick machine the copy may be over before the daemon is dead: then the next task is tried.
    let mut begun = None;
    for attempt in 0..20 {
        let id = format!("t{attempt}");
        let ready = task(&daemon, &id, TaskState::Ready);
        client.assign(complete(&id, &[ready])).await.unwrap();
        let volume = format!("images/snapshots/{id}/volumes/0");
        let volume = daemon.state_dir().join(volume);
        let entries = || fs::read_dir(&volume).map_or(0, Iterator::count);
        let limit = Instant::now() + PATIENCE;
        while entries() == 0 {
            assert!(Instant::now() < limit, "no part of the copy");
            std::thread::yield_now();
        }
        if remove {
            let name = "begun:1".to_owned();
            let request = v1::RemoveImageRequest { name, force: true };
            daemon.images().await.remove_image(request).await.unwrap();
        }
        daemon.end(Signal::SIGKILL);
        if entries() < FILES {
            begun = Some(id);
            break;
        }
        daemon.launch();
        client = daemon.client().await;
        client.assign(complete("none", &[])).await.unwrap();
        wait_for("the end of the root file system", || !volume.exists());
    }
    let begun = begun.expect("a copy that was cut short");
    // The same name means another image now.
    let [old, new] =
        ["begun", "newer"].map(|name| daemon.rootfs().with_file_name(format!("{name}.tar")));
    fs::rename(new, old).unwrap();
    daemon.launch();

    let mut client = daemon.client().await;
    status(&mut client, &begun, |s| s.state() == TaskState::Ready).await;
    let tasks = ["after", &begun].map(|id| task(&daemon, id, TaskState::Running));
    client.assign(complete("2", &tasks)).await.unwrap();
    for (id, which) in [(begun.as_str(), expected), ("after", "new")] {
        status(&mut client, id, |s| s.state() == TaskState::Complete).await;
        let text = said(&mut client, id, |_| true).await;
        assert_eq!(text, format!("{which}\n{FILES}\n"), "{id}");
    }
    client.assign(complete("3", &[])).await.unwrap();
    nothing_left(&daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_nobody_uses_goes_in_time() {
    let mut daemon = Daemon::start("unused");
    let used = archive(&daemon, "used", "{}", |_| {});
    let unused = archive(&daemon, "unused", r#"{"Labels": {"un": "used"}}"#, |_| {});
    let mut client = daemon.client().await;
    configure(&mut client).await;
    let mut task = script(&daemon, "t1", "exec sleep 1000");
    task.container.as_mut().unwrap().image = used;
    client.assign(complete("1", &[task])).await.unwrap();
    status(&mut client, "t1", |s| s.state() == TaskState::Running).await;
    let mut images = daemon.images().await;
    let request = v1::LoadImageRequest { reference: unused };
    images.load_image(request).await.unwrap();
    let listed = async |images: &mut ImagesClient<Channel>| {
        let listed = images.list_images(v1::ListImagesRequest {}).await.unwrap();
        let mut names: Vec<String> = listed
            .into_inner()
            .images
            .into_iter()
            .flat_map(|image| image.names)
            .collect();
        names.sort();
        names
    };
    let both = ["docker.io/library/unused:1", "docker.io/library/used:1"];
    assert_eq!(
        listed(&mut images).await,
        both,
        "none goes unless it is wanted"
    );

    daemon.end(Signal::SIGTERM);
    daemon.arguments = vec!["--prune-images-after".to_owned(), "2s".to_owned()];
    daemon.launch();
    let mut images = daemon.images().await;
    let gone = async {
        while listed(&mut images).await.len() > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let limit = tokio::time::timeout(PATIENCE, gone).await;
    limit.expect("the image that nobody uses goes");
    // That of the task stays, however long.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(listed(&mut images).await, both[1..]);
    let mut client = daemon.client().await;
    client.assign(complete("2", &[])).await.unwrap();
    nothing_left(&daemon);
}
