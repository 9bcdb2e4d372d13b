//! What tasks leave in the system while they exist.

use std::fs;
use std::time::Duration;

use crate::bed::Daemon;

/// Everything that a task leaves in the system while it exists.
pub fn traces(daemon: &Daemon) -> Vec<String> {
    let mut all: Vec<String> = daemon
        .cgroups()
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    for dir in [
        daemon.run_dir().join("tasks"),
        daemon.state_dir().join("tasks"),
    ] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    let entries = fs::read_dir(daemon.run_dir().join("netns"))
        .into_iter()
        .flatten()
        .flatten();
    let tasks = entries.filter(|e| e.file_name().to_string_lossy().starts_with("task-"));
    all.extend(tasks.map(|entry| entry.path().display().to_string()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = mounts
        .lines()
        .filter(|line| line.contains(&daemon.name) && line.contains("/task-"));
    all.extend(ours.map(str::to_owned));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // The daemon itself names the shim too, but not as its own program.
        let program = command.split(' ').next().unwrap_or_default();
        if program.ends_with("fairlead-shim") && command.contains(&daemon.name) {
            all.push(command);
        }
    }
    all
}

#[track_caller]
pub fn nothing_left(daemon: &Daemon) {
    let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
    while !traces(daemon).is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "left: {:#?}",
            traces(daemon)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
