//! What is loaded, and found again.

use super::*;

#[test]
fn both_forms_of_docker_save_give_the_same_image() {
    let place = Place::new("forms");
    let layers = two_layers();
    let config = config(&layers);
    let store = place.store();
    let old = write(
        &place.join("old.tar"),
        &docker_old(&["web:old"], &layers, &config),
    );
    let image = store.resolve(&docker(&old)).expect("the old form");
    assert_eq!(image.id, Digest::of(config.to_string()));
    assert_eq!(image.entrypoint(), ["/entry"]);
    assert_eq!(image.cmd(), ["-g", "daemon off;"]);
    assert_eq!(image.command(), ["/entry", "-g", "daemon off;"]);
    assert_eq!(image.env(), ["PATH=/usr/bin:/bin", "MODE=test"]);
    assert_eq!(image.user(), Some("www-data:www-data"));
    assert_eq!(image.working_dir(), Some("/srv"));
    assert_eq!(image.stop_signal(), Some("SIGQUIT"));
    assert_eq!(image.exposed_ports(), ["53/udp", "80/tcp"]);
    assert_eq!(image.volumes(), ["/data"]);
    assert_eq!(image.labels(), [("a", "1"), ("b", "2")]);
    let check = image.health_check().expect("understood").expect("a check");
    assert_eq!(check.test, ["NONE"]);
    assert_eq!(image.shell().expect("understood"), ["/bin/sh", "-c"]);

    for (name, compress) in [
        ("plain", plain as fn(&[u8]) -> _),
        ("gzip", gzip),
        ("zstd", zstd),
    ] {
        let files = layout("v1", &layers, &config, compress);
        let path = write(&place.join(&format!("{name}.tar")), &archive(&files));
        let saved = store.resolve(&docker(&path)).expect(name);
        assert_eq!(
            (saved.id, &saved.rootfs),
            (image.id, &image.rootfs),
            "{name}"
        );
        let text = format!("oci-archive:{}:v1", path.display());
        assert_eq!(store.resolve(&reference(&text)).expect(name).id, image.id);
        let whole = write(&place.join("whole.tar.gz"), &compress(&archive(&files)));
        assert_eq!(
            store.resolve(&docker(&whole)).expect("compressed").id,
            image.id
        );
    }
    assert_eq!(
        fs::read_dir(place.join("store/l")).expect("layers").count(),
        2
    );
    let names = ["docker.io/library/web:new", "docker.io/library/web:old"];
    let known = &store.images().expect("images")[0];
    assert_eq!(
        known
            .names
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        names
    );
    // Three manifests, by compression, all known.
    assert_eq!(known.manifests.len(), 3);
    let by_digest = reference(&format!("web@{}", known.manifests[0]));
    assert_eq!(store.resolve(&by_digest).expect("by digest").id, image.id);
    assert_eq!(
        store
            .resolve(&reference(&image.id.to_string()))
            .expect("by id"),
        *known
    );
}

#[test]
fn loading_again_changes_nothing_and_reads_no_layer() {
    let place = Place::new("again");
    let layers = two_layers();
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let store = place.store();
    let first = store.resolve(&docker(&path)).expect("an image");
    let before = state(&place);
    assert_eq!(store.resolve(&docker(&path)).expect("again"), first);
    assert_eq!(state(&place), before);
    // Once the file has been left alone for a while it is remembered, and then not even opened
    // as an archive: same size and times, no content.
    std::thread::sleep(Duration::from_secs(4));
    store.resolve(&docker(&path)).expect("remembered");
    assert!(
        read(&place.join("store/archives.json"))
            .windows(5)
            .any(|w| w == b"x.tar")
    );
    let before = state(&place);
    assert_eq!(store.resolve(&docker(&path)).expect("again"), first);
    assert_eq!(state(&place), before);
    drop(store);
    let store = place.store();
    assert_eq!(
        store.resolve(&docker(&path)).expect("after a restart"),
        first
    );

    // Another archive at the same path is noticed, also one of the same size.
    let mut other = config(&layers);
    other["config"]["User"] = json!("www-date:www-date");
    let size = fs::metadata(&path).expect("the file").size();
    let path = write(&path, &docker_old(&["web"], &layers, &other));
    assert_eq!(fs::metadata(&path).expect("the file").size(), size);
    let second = store.resolve(&docker(&path)).expect("another image");
    assert_ne!(second.id, first.id);
    // The name went with it.
    assert_eq!(
        store.resolve(&reference("web")).expect("by name").id,
        second.id
    );
}

#[test]
fn many_threads_may_ask_at_once() {
    let place = Place::new("threads");
    let layers = two_layers();
    let path = write(
        &place.join("x.tar"),
        &docker_old(&["web"], &layers, &config(&layers)),
    );
    let store = place.store();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let work = |n: usize| {
            let (store, path) = (&store, &path);
            move || {
                let image = store.resolve(&docker(path)).expect("an image");
                store.gc().expect("a collection");
                store
                    .snapshot(&image, &format!("s{}", n % 5))
                    .expect("a snapshot");
                image.id
            }
        };
        let threads: Vec<_> = (0..20).map(|n| scope.spawn(work(n))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(store.snapshots().len(), 5);
    assert_eq!(
        fs::read_dir(place.join("store/l")).expect("layers").count(),
        2
    );
}

#[test]
fn unknown_names_say_what_to_do() {
    let place = Place::new("unknown");
    let store = place.store();
    for text in [
        "nginx",
        &Digest::of("x").to_string(),
        &format!("a/b@{}", Digest::of("x")),
    ] {
        let error = store
            .resolve(&reference(text))
            .expect_err("nothing is loaded");
        assert!(matches!(error, ImageError::NotFound(_)), "{error}");
        assert!(error.to_string().contains("load it first"), "{error}");
    }
}

#[test]
fn one_of_several_images_is_chosen_by_name() {
    let place = Place::new("several");
    let layers = two_layers();
    let (first, mut second) = (config(&layers), config(&layers));
    second["author"] = json!("b");
    let (first, second) = (first.to_string(), second.to_string());
    let list = json!([
        {"Config": "1.json", "RepoTags": ["a:1", "a:2"], "Layers": ["x/layer.tar", "y/layer.tar"]},
        {"Config": "2.json", "RepoTags": ["b:1"], "Layers": ["x/layer.tar", "y/layer.tar"]},
    ]);
    let files = [
        ("1.json".to_owned(), first.clone().into_bytes()),
        ("2.json".to_owned(), second.clone().into_bytes()),
        ("x/layer.tar".to_owned(), layers[0].clone()),
        ("z/layer.tar".to_owned(), layers[1].clone()),
        ("manifest.json".to_owned(), list.to_string().into_bytes()),
    ];
    let path = write(&place.join("x.tar"), &archive(&files));
    // A layer that several images share is a link to its first place.
    sh(&format!(
        "cd {}; mkdir -p m/y; ln -s ../z/layer.tar m/y/layer.tar; tar -C m -rf x.tar y",
        place.join("").display()
    ));
    let store = place.store();
    let error = refused(&store, &place.join("store"), &docker(&path));
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Choice { .. })),
        "{error}"
    );
    assert!(
        error.to_string().contains("docker.io/library/a:2"),
        "{error}"
    );
    let at = |name: &str| reference(&format!("docker-archive:{}:{name}", path.display()));
    assert!(store.resolve(&at("c")).is_err());
    assert_eq!(store.resolve(&at("a:2")).expect("a").id, Digest::of(first));
    assert_eq!(store.resolve(&at("b:1")).expect("b").id, Digest::of(second));
}

#[test]
fn a_nested_index_leads_to_the_image_for_this_machine() {
    let place = Place::new("index");
    let layers = two_layers();
    let good = config(&layers);
    let mut files = layout("v1", &layers, &good, gzip);
    let at = files
        .iter()
        .position(|(name, _)| name == "index.json")
        .expect("the index");
    let index: serde_json::Value = serde_json::from_slice(&files[at].1).expect("JSON");
    let with = |architecture: &str, os: &str, digest: Option<Digest>| {
        let mut descriptor = index["manifests"][0].clone();
        descriptor["platform"] = json!({"architecture": architecture, "os": os});
        if let Some(digest) = digest {
            descriptor["digest"] = json!(digest.to_string());
        }
        descriptor
    };
    let host = good["architecture"].as_str().expect("an architecture");
    let nested = |manifests: Vec<serde_json::Value>| {
        let kind = "application/vnd.oci.image.index.v1+json";
        let inner = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
        let inner = inner.to_string().into_bytes();
        let digest = Digest::of(&inner);
        let outer = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": kind, "digest": digest.to_string(), "size": inner.len(),
            "annotations": {"org.opencontainers.image.ref.name": "registry.test/team/app:v1"}
        }]});
        [
            (format!("blobs/sha256/{}", digest.hex()), inner),
            ("index.json".to_owned(), outer.to_string().into_bytes()),
        ]
    };
    files.remove(at);
    let root = place.join("oci");
    write_layout(&root, &files);
    let gone = Some(Digest::of("not there"));
    write_layout(
        &root,
        &nested(vec![
            with("unknown", "unknown", gone),
            with("s390x", "linux", gone),
            with(host, "linux", None),
            with(host, "windows", gone),
        ]),
    );
    let store = place.store();
    let oci = reference(&format!("oci:{}", root.display()));
    let image = store.resolve(&oci).expect("an image");
    assert_eq!(image.id, Digest::of(good.to_string()));
    assert_eq!(image.names[0].to_string(), "registry.test/team/app:v1");
    assert_eq!(image.manifests.len(), 2);
    // A reference pinned to the index finds it, as swarm managers write them.
    let pinned = format!("registry.test/team/app:v1@{}", image.manifests[0]);
    assert_eq!(
        store.resolve(&reference(&pinned)).expect("pinned").id,
        image.id
    );

    write_layout(
        &root,
        &nested(vec![
            with("s390x", "linux", gone),
            with("mips", "linux", gone),
        ]),
    );
    let error = store.resolve(&oci).expect_err("not for this machine");
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Platform { .. })),
        "{error}"
    );
    assert!(
        error.to_string().contains("linux/s390x, linux/mips"),
        "{error}"
    );
    let other = reference(&format!("oci:{}:v2", root.display()));
    let error = store.resolve(&other).expect_err("no such tag");
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Choice { .. })),
        "{error}"
    );
}
