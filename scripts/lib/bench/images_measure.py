#!/usr/bin/env python3
"""Pulls images from a registry by ours and by other people's programs: images_measure.py --help.

To be run in network and mount namespaces of its own: it brings up loopback, starts a registry on it, and
mounts a tmpfs over the folder that it works in, so that no disk and no other program's network has a part in
it; with --place only what is pulled is on that disk, and a way ends when all of it is. Writes a sample a line to standard output: image, way, metric, round, value. Wall time and the time that
processors worked are in milliseconds, memory (the most that the largest process of a way had) in KiB.
"""

import argparse
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

REGISTRY = "127.0.0.1:5000"
# Where skopeo and podman remember which blobs hold the same layer, and then take another one than they are asked
# for. It is hidden for the time of the measurement, and forgotten before each use.
REMEMBERED = Path("/var/lib/containers")
MIB = 1 << 20
# Of each image: how many layers, files in each of them, and bytes in each file.
IMAGES = {
    "large": (1, 4, 64 * MIB),
    "small": (40, 25, 32 << 10),
    "files": (1, 100_000, 1 << 10),
}
QUICK = {
    "large": (1, 4, MIB),
    "small": (5, 3, 8 << 10),
    "files": (1, 500, 1 << 10),
}
# umoci and skopeo of the distributions do not know zstd layers.
WAYS = {
    "gzip": ("floor", "ours", "skopeo", "podman"),
    "zstd": ("floor", "ours", "podman"),
}
MEDIA_TYPE = "application/vnd.oci.image."


def content(source, size):
    """Compresses as programs do: pieces of the distribution's, in an order by chance."""
    made = bytearray()
    while len(made) < size:
        begin = source.random.randrange(max(1, len(source.data) - 64 * 1024))
        made += source.data[begin:begin + min(size - len(made), source.random.randrange(512, 64 * 1024))]
    return bytes(made)


class Source:
    def __init__(self):
        self.random = random.Random(1)
        self.data = bytearray()
        for path in sorted(Path("/usr/bin").iterdir()) + sorted(Path("/usr/share/doc").glob("*/copyright")):
            if path.is_file() and not path.is_symlink():
                self.data += path.read_bytes()[: 4 * MIB]
            if len(self.data) >= 96 * MIB:
                break


def layer(number, files, size, source):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in range(files):
            if file % 100 == 0:
                folder = tarfile.TarInfo(f"layer{number}/{file // 100}")
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            entry = tarfile.TarInfo(f"layer{number}/{file // 100}/{file}")
            entry.size, entry.mode, entry.mtime = size, 0o644, 1_700_000_000
            tar.addfile(entry, io.BytesIO(content(source, size)))
    return packed.getvalue()


def compress(data, how):
    if how == "gzip":
        return gzip.compress(data, 6, mtime=0)
    return subprocess.run(["zstd", "-q", "-3", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


class Layout:
    """An OCI layout with one image, made by hand so that nothing depends on a builder."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, kind, data):
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": MEDIA_TYPE + kind, "digest": f"sha256:{digest}", "size": len(data)}

    def finish(self, layers, how):
        blobs = [self.blob(f"layer.v1.tar+{how}", compress(data, how)) for data in layers]
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "config": {"Cmd": ["/true"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers],
            },
            "history": [{"created": "2024-01-01T00:00:00Z"} for _ in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE + "manifest.v1+json",
            "config": self.blob("config.v1+json", json.dumps(config).encode()),
            "layers": blobs,
        }
        entry = self.blob("manifest.v1+json", json.dumps(manifest).encode())
        entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
        index = {"schemaVersion": 2, "manifests": [entry]}
        (self.folder / "index.json").write_text(json.dumps(index))
        return [blob["digest"] for blob in blobs]


def start_registry(work):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    config = work / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{work}/registry'}}}}\n"
        f"http: {{addr: '{REGISTRY}', secret: none}}\n"
    )
    log = work / "registry.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=output, stderr=output)
    for _ in range(200):
        if subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://{REGISTRY}/v2/"]).returncode == 0:
            return process
        if process.poll() is not None:
            sys.exit(f"docker-registry ended with status {process.returncode}: {log.read_text()}")
        time.sleep(0.05)
    process.kill()
    sys.exit("docker-registry does not answer")


def commands(way, name, how, layers, place, program):
    """What a way does with an image, as a script. `place` is an empty folder."""
    reference = f"{REGISTRY}/{name}-{how}:latest"
    if way == "floor":
        # What any puller has to do at least: no digest is verified here.
        tool = {"gzip": "gzip", "zstd": "zstd -q"}[how]
        repository = f"http://{REGISTRY}/v2/{name}-{how}/blobs"
        return "\n".join(
            [f"mkdir {place}/root"]
            + [f"curl -sSf {repository}/{digest} | {tool} -d | tar -C {place}/root -xp" for digest in layers]
        )
    if way == "ours":
        return f"{program} {place}/store {reference} >{place}/said"
    if way == "skopeo":
        return (
            f"skopeo copy -q --src-tls-verify=false docker://{reference} oci:{place}/image:latest\n"
            f"umoci --log=error unpack --image {place}/image:latest {place}/bundle"
        )
    return (
        f"podman --root {place}/store --runroot {place}/run --tmpdir {place}/tmp --storage-driver overlay"
        f" pull -q --tls-verify=false {reference} >/dev/null"
    )


def measure(script):
    """Wall and processor milliseconds, and the most memory of any process, in KiB."""
    begin = time.monotonic()
    process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    if status:
        sys.exit(f"failed: {script}")
    return {"wall": wall * 1e3, "busy": (usage.ru_utime + usage.ru_stime) * 1e3, "peak": usage.ru_maxrss}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True, help="the example image_pull of runtime/image")
    parser.add_argument("--work", required=True, type=Path, help="a folder to mount a tmpfs over")
    parser.add_argument("--place", type=Path, help="pull into this folder, which is empty, and not into the tmpfs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small images")
    options = parser.parse_args()
    work = options.work
    REMEMBERED.mkdir(parents=True, exist_ok=True)
    for folder in (work, REMEMBERED):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "fairlead-bench", str(folder)], check=True)
    os.environ["TMPDIR"] = str(work)
    registry = start_registry(work)
    try:
        run(options, work)
    finally:
        registry.kill()
        registry.wait()


def forget():
    for entry in REMEMBERED.iterdir():
        shutil.rmtree(entry)


def make_images(sizes, work):
    """Makes the images and pushes them; the digests of their layers, by name and compression."""
    source, made = Source(), {}
    for name, (count, files, size) in sizes.items():
        layers = [layer(number, files, size, source) for number in range(count)]
        for how in WAYS:
            folder = work / "layout"
            made[f"{name}-{how}"] = Layout(folder).finish(layers, how)
            forget()
            subprocess.run(
                ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{folder}:latest",
                 f"docker://{REGISTRY}/{name}-{how}:latest"], check=True)
            shutil.rmtree(folder)
    return made


def run(options, work):
    # In another process: the memory that this one ever had would be counted as that of its children.
    with multiprocessing.Pool(1) as maker:
        made = maker.apply(make_images, (QUICK if options.quick else IMAGES, work))
    for number in range(1, options.rounds + 1):
        for image, digests in made.items():
            name, how = image.split("-")
            ways = WAYS[how]
            # None is always the one that comes after the same other.
            first = number % len(ways)
            for way in ways[first:] + ways[:first]:
                place = (options.place or work) / "place"
                place.mkdir()
                forget()
                script = commands(way, name, how, digests, place, options.program)
                if options.place:
                    # What others and earlier rounds wrote is not this way's.
                    os.sync()
                    script += f"\nsync -f {place}"
                taken = measure(script)
                if way == "ours":
                    # What is less than this program itself has is not seen from outside.
                    taken["peak"] = int((place / "said").read_text().split()[1])
                for metric, value in taken.items():
                    print(f"{image}\t{way}\t{metric}\t{number}\t{value:.3f}", flush=True)
                # podman leaves its store mounted upon itself.
                subprocess.run(["umount", "-R", f"{place}/store/overlay"], stderr=subprocess.DEVNULL)
                subprocess.run(["rm", "-rf", str(place)], check=True)


if __name__ == "__main__":
    main()
