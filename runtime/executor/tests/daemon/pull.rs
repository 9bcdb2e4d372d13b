//! What a caller of `PullImage` sees.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use fairlead_api::v1::{self, pull_image_response::Event};
use nix::sched::{CloneFlags, setns};

use crate::bed::{Daemon, within};
use crate::image::{digest, tar};

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_pull_ends_after_the_image() {
    let daemon = Daemon::start("pull");
    let content = tempfile::tempdir().unwrap();
    image(content.path());
    let registry = serve(&daemon.name, content.path().to_owned());
    let request = v1::PullImageRequest {
        name: format!("{registry}/small:1"),
        registry_auth: String::new(),
    };
    let pulled = async {
        let answer = daemon.images().await.pull_image(request).await;
        let mut stream = answer.unwrap().into_inner();
        let mut events = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            events.extend(message.event);
        }
        events
    };
    let events = within("the end of the stream", pulled).await;
    let images = events.iter().filter(|e| matches!(e, Event::Image(_)));
    assert_eq!(images.count(), 1, "{events:?}");
    assert!(matches!(events.last(), Some(Event::Image(_))), "{events:?}");
}

/// An image of one small layer: its manifest, and its blobs by their digests.
fn image(dir: &Path) {
    let blob = |file: &str| {
        let (path, size) = (dir.join(file), fs::metadata(dir.join(file)).unwrap().len());
        let digest = format!("sha256:{}", digest(&path));
        fs::rename(&path, dir.join(&digest)).unwrap();
        (digest, size)
    };
    fs::create_dir(dir.join("files")).unwrap();
    fs::write(dir.join("files/hello"), "hello").unwrap();
    tar(&dir.join("layer"), &dir.join("files"), &["."]);
    let (layer, layer_size) = blob("layer");
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = format!(
        r#"{{"architecture": "{architecture}", "os": "linux", "config": {{}},
            "rootfs": {{"type": "layers", "diff_ids": ["{layer}"]}}}}"#
    );
    fs::write(dir.join("config"), config).unwrap();
    let (config, config_size) = blob("config");
    let manifest = format!(
        r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {{"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": "{config}", "size": {config_size}}},
            "layers": [{{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": "{layer}", "size": {layer_size}}}]}}"#
    );
    fs::write(dir.join("1"), manifest).unwrap();
}

/// A registry on the loopback of a network namespace, as long as the test's process lives; its address. The
/// last part of what is asked for is the name of a file.
fn serve(netns: &str, content: PathBuf) -> String {
    let netns = fs::File::open(format!("/run/netns/{netns}")).unwrap();
    let bound = std::thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        TcpListener::bind("127.0.0.1:0").unwrap()
    });
    let listener = bound.join().unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut from = BufReader::new(&stream);
            // A TLS handshake is answered as other servers do: the client comes again without.
            if from
                .fill_buf()
                .is_ok_and(|bytes| bytes.first() == Some(&0x16))
            {
                let _ = (&stream).write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
                continue;
            }
            let mut lines = from.lines();
            let Some(Ok(request)) = lines.next() else {
                continue;
            };
            lines.map_while(Result::ok).find(String::is_empty);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default();
            let (status, body) = match fs::read(content.join(name)) {
                Ok(body) => ("200 OK", body),
                Err(_) if path == "/v2/" => ("200 OK", Vec::new()),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let whole = [head.into_bytes(), body].concat();
            // Whoever asked may have gone.
            let _ = stream.write_all(&whole);
        }
    });
    address
}
