"""What pulling images costs: samples and table."""

from statistics import median

from results import Incomplete, read_context, read_samples, spread
from table import head, ratio, row

IMAGES = {
    "large": "one large layer: 4 files of 64 MiB",
    "small": "40 small layers: 25 files of 32 KiB in each",
    "files": "100,000 files of 1 KiB in one layer",
}

COMPRESSIONS = ("gzip", "zstd")

WAYS = {
    "floor": "`curl`, {how}, `tar`; nothing is verified",
    "ours": "ours",
    "skopeo": "`skopeo copy`, `umoci unpack`",
    "podman": "`podman pull`",
}


def load(folder):
    context = read_context(folder / "images-context.tsv")
    samples = read_samples(folder / "images.tsv")
    result = {"context": context}
    for image in IMAGES:
        for how in COMPRESSIONS:
            ways = samples[f"{image}-{how}"]
            result[f"{image}-{how}"] = {name: way(ways, name, context) for name in WAYS if name in ways}
    return result


def way(ways, name, context):
    entry = {}
    for metric, rounds in ways[name].items():
        if len(rounds) != int(context["rounds"]):
            raise Incomplete(f"{name}, {metric}: {len(rounds)} of {context['rounds']} rounds")
        entry[metric] = spread([value for values in rounds.values() for value in values])
        of = ways["floor"][metric]
        entry[metric]["of floor"] = spread([median(v) / median(of[n]) for n, v in rounds.items()])
    return entry


def markdown(results):
    context = results["context"]
    lines = ["# Pulling images", ""]
    lines += [
        f"{context['processors']} processors, {context['clock']}, load of other work at the start {context['load']}, "
        f"Linux {context['kernel']}; rounds: {context['rounds']}; skopeo {context['skopeo']}, umoci {context['umoci']}, "
        f"podman {context['podman']}.",
        "",
    ]
    lines += [
        "From a registry on the same machine, which takes its part of the processors, into "
        + ("a tmpfs. Seconds:" if context["place"] == "tmpfs" else f"{context['place']}, until all is on the disk. Seconds:")
    ]
    lines += ["median (smallest to largest, or where eight of ten samples are). Ratios: within a round. Busy: the time that"]
    lines += ["processors worked, without the registry. Memory: the most that the largest process had; of others than"]
    lines += ["ours, what is less than the measuring program's own 20 MiB is not seen."]
    for image, title in IMAGES.items():
        for how in COMPRESSIONS:
            lines += ["", f"## {title[0].upper()}{title[1:]}, {how}", ""]
            lines += head(["way", "time, s", "of the floor", "busy, s", "of the floor", "memory, MiB"])
            for name, entry in results[f"{image}-{how}"].items():
                wall, busy = entry["wall"], entry["busy"]
                lines.append(row([
                    WAYS[name].format(how=f"`{how}`"),
                    seconds(wall),
                    ratio(wall["of floor"]),
                    seconds(busy),
                    ratio(busy["of floor"]),
                    f"{entry['peak']['median'] / 1024:.0f}",
                ]))
    return "\n".join(lines) + "\n"


def seconds(value):
    return f"{value['median'] / 1e3:.2f} ({value['low'] / 1e3:.2f} to {value['high'] / 1e3:.2f})"
