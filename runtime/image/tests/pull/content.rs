//! What is pulled is what was pushed.

use image::{Options, Platform, Registries, Store};
use oci_spec::image::Arch;
use serde_json::json;

use crate::{bed::*, child, common::tree::*, common::*, line::*, made::*};

/// Two layers with everything that a file system can hold, by independent tools; compared file by
/// file with what umoci unpacks.
#[test]
fn everything_that_umoci_unpacks_is_there() {
    let bed = Bed::new("umoci");
    let registry = bed.registry();
    let user = if has_user_attributes(&bed.place) {
        "user"
    } else {
        ""
    };
    python(MAKE, &[&bed.path("t").to_string_lossy(), user]);
    sh(&format!(
        "cd {}
         umoci init --layout made; umoci new --image made:v1; umoci unpack --image made:v1 work
         cp -a t/a/. work/rootfs/; umoci repack --refresh-bundle --image made:v1 work
         cp -a t/b/. work/rootfs/; rm -rf work/rootfs/old work/rootfs/fifo work/rootfs/dev/null
         ln work/rootfs/bin/su work/rootfs/bin/too; umoci repack --image made:v1 work
         umoci config --image made:v1 --config.cmd /bin/sh --config.user 7
         umoci unpack --image made:v1 oci
         skopeo copy -q --dest-tls-verify=false oci:made:v1 docker://{REGISTRY}/a/oci:v1
         skopeo copy -q --dest-tls-verify=false --format v2s2 oci:made:v1 \\
            docker://{REGISTRY}/a/docker:v2
         skopeo copy -q --src-tls-verify=false docker://{REGISTRY}/a/docker:v2 oci:back:v2
         umoci unpack --image back:v2 docker",
        bed.path("").display(),
    ));
    let store = bed.store();
    for (image, unpacked) in [("a/oci:v1", "oci"), ("a/docker:v2", "docker")] {
        let image = pull(&store, &registry.name(image)).expect(image);
        assert_eq!(
            (image.user(), image.cmd()),
            (Some("7"), &["/bin/sh".to_owned()][..])
        );
        let expected = listing(&bed.path(unpacked).join("rootfs"), false);
        assert!(expected.contains("security.capability") && expected.contains("same as"));
        same(&seen(&bed, &store, &image), &expected);
    }
    bed.is_clean(2, 0);
}

/// A base and what was built on it, pushed by buildah.
#[test]
fn what_buildah_builds_is_there() {
    let bed = Bed::new("buildah");
    let registry = bed.registry();
    let folder = bed.path("");
    let folder = folder.display();
    sh(&format!(
        "cd {folder}
         buildah() {{
             command buildah --root {folder}/storage --runroot {folder}/run --storage-driver vfs \"$@\"
         }}
         mkdir -p t/etc t/bin; echo 1 > t/etc/su; chmod 4755 t/etc/su; ln t/etc/su t/etc/too
         echo 2 > t/bin/gone; mkfifo t/fifo; ln -s ../etc/su t/bin/link
         base=$(buildah from scratch); buildah add -q $base t /
         buildah config --cmd /bin/sh --user 7 --label tier=web --env MODE=test $base
         buildah commit -q --rm $base base
         more=$(buildah from base); root=$(buildah mount $more)
         rm $root/bin/gone $root/fifo; ln $root/etc/su $root/etc/three; mkdir $root/new
         buildah umount $more; buildah config --workingdir /new $more
         buildah commit -q --rm $more more
         for format in oci v2s2; do
             buildah push -q --tls-verify=false --format $format more docker://{REGISTRY}/by/$format
         done
         skopeo copy -q --src-tls-verify=false docker://{REGISTRY}/by/oci oci:back:v1
         umoci unpack --image back:v1 bundle"
    ));
    let store = bed.store();
    for format in ["oci", "v2s2"] {
        let image = pull(&store, &registry.name(&format!("by/{format}"))).expect(format);
        assert_eq!(
            (image.user(), image.working_dir()),
            (Some("7"), Some("/new"))
        );
        assert_eq!(image.cmd(), ["/bin/sh"]);
        assert!(image.env().iter().any(|pair| pair == "MODE=test"));
        assert!(image.labels().contains(&("tier", "web")));
        let expected = listing(&bed.path("bundle/rootfs"), false);
        assert!(expected.contains("same as") && expected.contains("three"));
        same(&seen(&bed, &store, &image), &expected);
    }
    bed.is_clean(2, 0);
}

#[test]
fn every_form_and_compression_is_the_same_image() {
    let bed = Bed::new("forms");
    let registry = bed.registry();
    let layers = [tar_of(&[("a", b"1")]), tar_of(&[("b", b"2")])];
    let mut images = Vec::new();
    let store = bed.store();
    for (form, kind) in [(Form::Oci, "oci"), (Form::Docker, "docker")] {
        for (compress, compression) in [
            (plain as fn(&[u8]) -> _, "plain"),
            (gzip, "gzip"),
            (zstd, "zstd"),
        ] {
            let made = Made::new(form, &layers, compress);
            let repository = format!("{kind}/{compression}");
            made.push(REGISTRY, &repository, "v1");
            let name = registry.name(&format!("{repository}:v1"));
            let image = pull(&store, &name).expect(&name);
            assert_eq!(image.id, made.id());
            assert!(image.manifests.contains(&made.digest()), "{name}");
            assert!(image.names.iter().any(|n| n.to_string() == name));
            images.push(image);
            // One after the other, so that each is unpacked.
            assert!(store.remove_image(&made.id()).expect("removed"));
            assert_eq!(store.gc().expect("collected").layers, 2);
        }
    }
    assert!(images.iter().all(|image| image.rootfs == images[0].rootfs));
    assert_eq!(images.len(), 6);
    bed.is_clean(0, 0);
}

#[test]
fn a_tag_that_moves_is_followed_and_nothing_is_downloaded_twice() {
    let bed = Bed::new("tag");
    let _registry = bed.registry();
    let line = Line::to(REGISTRY, |_| Fault::None);
    let name = line.name("app:now");
    let base = tar_of(&[("base", b"1")]);
    let first = Made::new(
        Form::Oci,
        &[base.clone(), tar_of(&[("which", b"first")])],
        gzip,
    );
    let second = Made::new(Form::Oci, &[base, tar_of(&[("which", b"second")])], gzip);
    first.push(REGISTRY, "app", "now");
    let store = bed.store();
    let image = pull(&store, &name).expect("an image");
    assert_eq!(file(&bed, &store, &image, "which"), "first");

    // It has not moved: the manifest alone tells.
    line.forget();
    assert_eq!(pull(&store, &name).expect("again"), image);
    assert!(!line.seen().iter().any(Seen::is_blob));

    second.push(REGISTRY, "app", "now");
    line.forget();
    let moved = pull(&store, &name).expect("the new one");
    assert_eq!(file(&bed, &store, &moved, "which"), "second");
    assert!(line.offsets(&first.blob(0)).is_empty(), "the base is here");
    assert_eq!(line.offsets(&second.blob(1)), [0]);
    assert_eq!(
        store.resolve(&reference(&name)).expect("by name").id,
        second.id()
    );
    // The old one has lost the name and is still there.
    let old = store.resolve(&reference(&first.id().to_string()));
    assert_eq!(old.expect("by id").names, []);

    // The same layers in another image: nothing but its documents comes.
    let mut config = second.config.clone();
    config["author"] = json!("somebody else");
    let mut third = second.clone();
    let text = config.to_string().into_bytes();
    third.manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json", &text);
    (third.config, third.blobs[2]) = (config, text);
    third.push(REGISTRY, "app", "third");
    line.forget();
    let image = pull(&store, &line.name("app:third")).expect("a third");
    assert_eq!((image.id, image.rootfs), (third.id(), moved.rootfs));
    assert_eq!(line.seen().iter().filter(|seen| seen.is_blob()).count(), 1);
    bed.is_clean(3, 0);
}

#[test]
fn a_digest_that_is_here_costs_no_request() {
    let bed = Bed::new("digest");
    let _registry = bed.registry();
    let line = Line::to(REGISTRY, |_| Fault::None);
    let (old, new) = (saying(Form::Oci, "old"), saying(Form::Oci, "new"));
    old.push(REGISTRY, "app", "v1");
    new.push(REGISTRY, "app", "v1");
    let store = bed.store();
    // A tag beside a digest is for people: it may have moved.
    for name in [
        line.name(&format!("app@{}", old.digest())),
        line.name(&format!("app:v1@{}", old.digest())),
    ] {
        let image = pull(&store, &name).expect(&name);
        assert_eq!(image.id, old.id(), "{name}");
        assert_eq!(
            store.resolve(&reference(&name)).expect("known").id,
            old.id()
        );
    }
    assert_eq!(line.offsets(&old.blob(0)).len(), 1);
    line.forget();
    pull(&store, &line.name(&format!("app@{}", old.digest()))).expect("again");
    assert_eq!(line.seen().len(), 0);
    // The tag itself is not taken for known by this.
    assert_eq!(
        pull(&store, &line.name("app:v1")).expect("by tag").id,
        new.id()
    );
    let unknown = image::Digest::of("nothing");
    let name = line.name(&format!("app@{unknown}"));
    let error = failure(pull(&store, &name), &name);
    assert!(error.contains("not found"), "{error}");
}

#[test]
fn of_an_index_the_image_for_the_machine_is_taken() {
    let bed = Bed::new("index");
    let registry = bed.registry();
    for form in [Form::Oci, Form::Docker] {
        let kind = if form == Form::Oci { "oci" } else { "docker" };
        let all: Vec<_> = [
            ("amd64", None),
            ("amd64", Some("v3")),
            ("arm64", Some("v8")),
            ("arm", Some("v6")),
            ("arm", Some("v7")),
            ("arm", Some("v5")),
            ("arm", Some("v8")),
            ("s390x", None),
        ]
        .into_iter()
        .map(|(architecture, variant)| {
            let text = format!("{architecture}{}", variant.unwrap_or_default());
            let tar = tar_of(&[("which", text.as_bytes())]);
            let mut own = config(std::slice::from_ref(&tar));
            own["architecture"] = json!(architecture);
            let made = Made::with(form, own, &[tar], gzip);
            made.push(REGISTRY, kind, &text);
            made.descriptor(architecture, variant)
        })
        .collect();
        let list = index(form, &all);
        push_manifest(REGISTRY, kind, "all", form.index(), &list);
        let without = index(form, &all[2..]);
        push_manifest(REGISTRY, kind, "few", form.index(), &without);
        let name = registry.name(&format!("{kind}:all"));
        for (architecture, variant, expected) in [
            (Arch::Amd64, None, "amd64"),
            (Arch::ARM64, None, "arm64v8"),
            (Arch::ARM, Some("v7"), "armv7"),
            (Arch::ARM, Some("v6"), "armv6"),
            (Arch::ARM, Some("v9"), "armv8"),
            // Not what needs more than there is.
            (Arch::ARM, None, "armv7"),
            (Arch::s390x, None, "s390x"),
        ] {
            let platform = Platform {
                architecture,
                variant: variant.map(str::to_owned),
                ..Platform::host()
            };
            let store = bed.store_for(Registries::default(), platform);
            let image = pull(&store, &name).expect(expected);
            assert_eq!(file(&bed, &store, &image, "which"), expected);
            assert_eq!(image.manifests.len(), 2, "the index and the manifest");
            let pinned = format!(
                "{}@{}",
                registry.name(kind),
                image::Digest::of(list.to_string())
            );
            assert_eq!(
                store.resolve(&reference(&pinned)).expect("pinned").id,
                image.id
            );
            drop(store);
            bed.forget();
        }
        let platform = Platform {
            architecture: Arch::Amd64,
            ..Platform::host()
        };
        let store = bed.store_for(Registries::default(), platform);
        let name = registry.name(&format!("{kind}:few"));
        let error = failure(pull(&store, &name), &name);
        assert!(
            error.contains("linux/s390x") && error.contains("linux/amd64"),
            "{error}"
        );
        bed.is_clean(0, 0);
        drop(store);
    }
}

/// As buildx writes an image of one platform with its attestation, and some tools without the platform.
#[test]
fn an_image_without_a_platform_may_be_beside_what_is_for_none() {
    let bed = Bed::new("attested");
    let registry = bed.registry();
    let (made, other) = (saying(Form::Oci, "mine"), saying(Form::Oci, "attestation"));
    made.push(REGISTRY, "app", "v1");
    other.push(REGISTRY, "app", "v2");
    let mut only = made.descriptor("amd64", None);
    only.as_object_mut().expect("an object").remove("platform");
    let mut beside = other.descriptor("unknown", None);
    beside["platform"]["os"] = json!("unknown");
    let push = |all: &[serde_json::Value]| {
        let list = index(Form::Oci, all);
        push_manifest(REGISTRY, "app", "all", Form::Oci.index(), &list);
    };
    let text = registry.name("app:all");
    for all in [
        [only.clone(), beside.clone()],
        [beside.clone(), only.clone()],
    ] {
        push(&all);
        let store = bed.store();
        assert_eq!(pull(&store, &text).expect("an image").id, made.id());
        drop(store);
        bed.forget();
    }
    // Which of these is meant, nothing tells.
    let mut second = other.descriptor("amd64", None);
    second
        .as_object_mut()
        .expect("an object")
        .remove("platform");
    push(&[only, second, beside]);
    let error = failure(pull(&bed.store(), &text), &text);
    assert!(error.contains("several images"), "{error}");
}

#[test]
fn layers_that_are_equal_or_empty_are_layers() {
    let bed = Bed::new("equal");
    let _registry = bed.registry();
    let line = Line::to(REGISTRY, |_| Fault::None);
    let (empty, file_a) = (tar_of(&[]), tar_of(&[("a", b"1")]));
    let gone = tar_of(&[(".wh.a", b"")]);
    let layers = [empty.clone(), file_a.clone(), gone, empty, file_a];
    let made = Made::new(Form::Docker, &layers, gzip);
    made.push(REGISTRY, "app", "v1");
    let store = bed.store();
    let image = pull(&store, &line.name("app:v1")).expect("an image");
    assert_eq!(file(&bed, &store, &image, "a"), "1");
    for layer in 0..3 {
        assert_eq!(line.offsets(&made.blob(layer)), [0], "layer {layer}");
    }
    bed.is_clean(5, 0);

    // None at all.
    let made = Made::new(Form::Oci, &[], gzip);
    made.push(REGISTRY, "scratch", "v1");
    let image = pull(&store, &line.name("scratch:v1")).expect("an image");
    assert_eq!(seen(&bed, &store, &image).lines().count(), 1);
}

/// Neither blobs nor what they hold are ever in memory as a whole.
#[test]
fn memory_does_not_grow_with_the_layer() {
    let bed = Bed::new("memory");
    let registry = bed.registry();
    let peak = |tag: &str, size: usize, compress: fn(&[u8]) -> Vec<u8>| {
        let layer = tar_of(&[("zeros", &vec![0; size])]);
        Made::new(Form::Oci, &[layer], compress).push(REGISTRY, "app", tag);
        let text = registry.name(&format!("app:{tag}"));
        let peak = child::pull(&bed, &text, &Registries::default(), &[]).peak();
        bed.forget();
        peak
    };
    for (compression, compress) in [("zstd", zstd as fn(&[u8]) -> _), ("plain", plain)] {
        let small = peak(&format!("{compression}-small"), 1 << 20, compress);
        let large = peak(&format!("{compression}-large"), 10 << 20, compress);
        assert!(
            large < small + (5 << 20),
            "{compression}: {small}, then {large} bytes"
        );
    }
}

/// Layers that are somewhere else, by their URLs, because nobody may put them into a registry.
#[test]
fn a_foreign_layer_comes_from_its_url_and_learns_nothing() {
    let bed = Bed::new("foreign");
    let _registry = bed.registry();
    let mut made = Made::new(
        Form::Docker,
        &[tar_of(&[("a", b"1")]), tar_of(&[("b", b"2")])],
        gzip,
    );
    let foreign = made.blobs.remove(1);
    let answer = foreign.clone();
    let elsewhere = Line::at("127.0.0.1:8000", REGISTRY, move |seen| match seen.path() {
        "/layer" => Fault::Answer(200, Vec::new(), answer.clone()),
        _ => Fault::Answer(
            401,
            vec![("www-authenticate", "Basic realm=\"me, too\"".into())],
            Vec::new(),
        ),
    });
    let layer = &mut made.manifest["layers"][1];
    layer["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    // The first one has it not.
    layer["urls"] = json!(["http://127.0.0.1:8000/gone", "http://127.0.0.1:8000/layer"]);
    made.push(REGISTRY, "app", "v1");
    let store = bed.store();
    let image = store
        .pull(&name("127.0.0.1:5000/app:v1"), &with(me()))
        .expect("an image");
    assert_eq!(file(&bed, &store, &image, "b"), "2");
    let asked = elsewhere.seen();
    assert_eq!(asked.len(), 2);
    assert!(
        asked
            .iter()
            .all(|seen| seen.head.get("authorization").is_none())
    );

    // A registry that does have it is enough.
    push_blob(REGISTRY, "app", &foreign);
    elsewhere.forget();
    let other = Store::open_with(bed.path("other"), Options::default()).expect("a store");
    pull(&other, "127.0.0.1:5000/app:v1").expect("an image");
    assert_eq!(elsewhere.seen().len(), 0);
}

#[test]
fn what_we_cannot_use_is_refused_with_a_reason() {
    let bed = Bed::new("refused");
    let registry = bed.registry();
    let store = bed.store();
    let mut made = saying(Form::Oci, "secret");
    made.manifest["layers"][0]["mediaType"] =
        json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    made.push(REGISTRY, "encrypted", "v1");
    let name = registry.name("encrypted:v1");
    let error = failure(pull(&store, &name), &name);
    assert!(
        error.contains("encrypted") && error.contains(&made.blob(0).to_string()),
        "{error}"
    );
    bed.is_clean(0, 0);

    let schema1 = json!({"schemaVersion": 1, "name": "old", "tag": "v1", "architecture": "amd64",
        "fsLayers": [{"blobSum": "sha256:00"}], "history": [], "signatures": []});
    let line = Line::to(REGISTRY, move |seen| match seen.path() {
        "/v2/old/manifests/v1" => Fault::Answer(
            200,
            vec![(
                "content-type",
                "application/vnd.docker.distribution.manifest.v1+prettyjws".into(),
            )],
            schema1.to_string().into_bytes(),
        ),
        "/v2/page/manifests/v1" => Fault::Answer(
            200,
            vec![("content-type", "text/html".into())],
            b"<html>Please log in to the hotel's network</html>".to_vec(),
        ),
        _ => Fault::None,
    });
    let name = line.name("old:v1");
    let error = failure(pull(&store, &name), &name);
    assert!(
        error.contains("schema 1") && error.contains("push the image again"),
        "{error}"
    );
    let name = line.name("page:v1");
    let error = failure(pull(&store, &name), &name);
    assert!(error.contains("/v2/page/manifests/v1"), "{error}");

    for missing in ["app:none", "no/such/repository"] {
        let name = registry.name(missing);
        let error = failure(pull(&store, &name), &name);
        assert!(error.contains("not found"), "{error}");
    }
    bed.is_clean(0, 0);
}

/// A digest in a name says where an image came from; nobody gave it that name.
#[test]
fn a_name_with_a_digest_keeps_no_image() {
    let bed = Bed::new("dangling");
    let registry = bed.registry();
    let made = saying(Form::Oci, "mine");
    made.push(REGISTRY, "app", "v1");
    let store = bed.store();
    let pinned = registry.name(&format!("app@{}", made.digest()));
    let id = pull(&store, &pinned).expect("by digest").id;
    let (gone, _) = store.prune(false, Default::default()).expect("pruned");
    assert_eq!(gone, [id]);
    bed.is_clean(0, 0);

    pull(&store, &pinned).expect("by digest");
    pull(&store, &registry.name("app:v1")).expect("by tag");
    let (gone, _) = store.prune(false, Default::default()).expect("pruned");
    assert_eq!(gone, []);
    // It has one name, and a digest.
    let removed = store.remove(&id.to_string(), false).expect("removed");
    assert_eq!((removed.image, removed.untagged.len()), (Some(id), 2));
}

/// `prune` goes by the last use.
#[test]
fn an_image_is_used_when_it_is_pulled_again_and_until_its_last_task_ends() {
    let bed = Bed::new("used");
    let registry = bed.registry();
    let made = saying(Form::Oci, "mine");
    made.push(REGISTRY, "app", "v1");
    let store = bed.store();
    let day = std::time::Duration::from_secs(24 * 3600);
    let image = pull(&store, &registry.name("app:v1")).expect("an image");
    let pinned = registry.name(&format!("app@{}", made.digest()));
    let use_it: [&dyn Fn(); 3] = [
        &|| drop(pull(&store, &registry.name("app:v1")).expect("by tag")),
        &|| drop(pull(&store, &pinned).expect("by digest")),
        &|| assert!(store.remove_snapshot("task").expect("removed")),
    ];
    snapshot(&store, &image, "task");
    let record = bed.path(&format!("store/images/{}.json", image.id.hex()));
    for again in use_it {
        let long_ago = std::time::SystemTime::now() - 30 * day;
        let file = std::fs::File::open(&record).expect("a record");
        file.set_modified(long_ago).expect("a time");
        again();
        let used = store.find(&image.id.to_string()).expect("found").used;
        assert!(used.elapsed().is_ok_and(|passed| passed < day));
    }
    let (gone, _) = store.prune(true, 10 * day).expect("pruned");
    assert_eq!(gone, []);
}

/// What a manifest says of the image is kept, from wherever it comes, and changes nothing else.
#[test]
fn annotations_come_with_the_manifest() {
    let bed = Bed::new("annotations");
    let registry = bed.registry();
    let layers = [tar_of(&[("a", b"1")])];
    let mut made = Made::new(Form::Oci, &layers, gzip);
    let said = |version: &str| json!({"org.opencontainers.image.version": version, "b": ""});
    let of = |image: &image::Image| json!(image.annotations);
    made.push(REGISTRY, "app", "plain");
    for version in ["1", "2"] {
        made.manifest["annotations"] = said(version);
        made.push(REGISTRY, "app", version);
    }
    let name = |tag: &str| registry.name(&format!("app:{tag}"));
    let store = bed.store();
    let id = pull(&store, &name("1")).expect("an image").id;
    let newer = pull(&store, &name("2")).expect("the same image");
    assert_eq!((newer.id, of(&newer)), (id, said("2")));
    let plain = pull(&store, &name("plain")).expect("the same image");
    assert_eq!(
        (plain.id, of(&plain)),
        (id, said("2")),
        "it says nothing else"
    );
    drop(store);
    let store = bed.store();
    let kept = store
        .resolve(&name("1").parse().expect("a name"))
        .expect("it is here");
    assert_eq!((of(&kept), kept.names.len()), (said("2"), 3));

    sh(&format!(
        "cd {}; skopeo copy -q --src-tls-verify=false docker://{} oci:layout:1",
        bed.path("").display(),
        name("1")
    ));
    let layout = format!("oci:{}:1", bed.path("layout").display());
    let other = Store::open_with(bed.path("other"), Options::default()).expect("a store");
    let loaded = other
        .resolve(&layout.parse().expect("a layout"))
        .expect("loaded");
    assert_eq!((loaded.id, of(&loaded)), (id, said("1")));
}
