"""The samples of a run of scripts/bench, and what is made of them: medians, and ratios within a round."""

import csv
from collections import defaultdict
from statistics import median, quantiles

METRICS = {
    "bulk": ("TCP throughput", "Mbit/s"),
    "requests": ("keep-alive requests", "1/s"),
    "connections": ("new connections", "1/s"),
}

PATHS = {
    "veth": "veth pair",
    "hand-1": "bridge by hand, same node",
    "overlay-1": "overlay, same node",
    "vip-1": "VIP, same node",
    "hand-2": "bridge and VXLAN by hand, two nodes",
    "overlay-2": "overlay, two nodes",
    "vip-2": "VIP, two nodes",
    "port-nft-1": "published port (nft), replica on the asked node",
    "port-nft-2": "published port (nft), replica on another node",
    "port-ipvs-1": "published port (ipvs), replica on the asked node",
    "port-ipvs-2": "published port (ipvs), replica on another node",
}

# What else is worth a ratio: this, to that.
COMPARED = [("overlay-1", "hand-1"), ("overlay-2", "hand-2"), ("vip-1", "overlay-1"), ("vip-2", "overlay-2"),
            ("port-ipvs-1", "port-nft-1"), ("port-ipvs-2", "port-nft-2")]

TASKS = {
    "floor-process": "by hand: a process in namespaces of its own",
    "floor-network": "by hand: the same on a veth pair",
    "row": "task, one after the other",
    "once": "task, all at once: time per task",
}

PATH_BASE = "veth"
TASK_BASE = "floor-network"


class Incomplete(Exception):
    """A configuration was not measured in every round."""


def read_context(path):
    with open(path, encoding="utf-8") as lines:
        return dict(line.rstrip("\n").split("\t", 1) for line in lines)


def read_samples(path):
    """{kind: {configuration: {metric: {round: [value]}}}}"""
    samples = defaultdict(lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list))))
    with open(path, encoding="utf-8", newline="") as lines:
        for kind, name, metric, number, value in csv.reader(lines, delimiter="\t"):
            samples[kind][name][metric][int(number)].append(float(value))
    return samples


def spread(values):
    """The range is where eight of ten values are; of few values, where all are."""
    low, high = min(values), max(values)
    if len(values) >= 10:
        low, *_, high = quantiles(values, n=10, method="inclusive")
    return {"median": median(values), "low": low, "high": high, "min": min(values), "max": max(values),
            "samples": len(values)}


def paths(samples, context):
    """For each configuration and metric the values, and the ratios to the veth pair of the same round."""
    expected = [name for name in PATHS if "-ipvs-" not in name or "ipvs" in context["engines"].split()]
    result = {}
    for name in expected:
        result[name] = {}
        for metric in METRICS:
            rounds = samples[name][metric]
            if len(rounds) != int(context["rounds"]):
                raise Incomplete(f"{PATHS[name]}: {METRICS[metric][0]}: {len(rounds)} of {context['rounds']} rounds")
            base = samples[PATH_BASE][metric]
            result[name][metric] = spread([values[0] for values in rounds.values()])
            result[name][metric]["ratio"] = spread(
                [values[0] / base[number][0] for number, values in rounds.items()]
            )
    return result


def compared(samples, measured):
    """Ratios of one configuration to another, within a round."""
    result = []
    for name, base in COMPARED:
        if name in measured and base in measured:
            metrics = {
                metric: spread([v[0] / samples[base][metric][n][0] for n, v in samples[name][metric].items()])
                for metric in METRICS
            }
            result.append({"of": name, "to": base, "ratio": metrics})
    return result


def tasks(samples, context):
    """Milliseconds, and the ratios of each round's median to what is done by hand in that round."""
    result = {}
    for name in TASKS:
        result[name] = {}
        for metric in ("start", "stop"):
            rounds = samples[name][metric]
            if not rounds and (name, metric) == ("floor-process", "stop"):
                continue  # it ends by itself
            if len(rounds) != int(context["rounds"]):
                raise Incomplete(f"{TASKS[name]}: {metric}: {len(rounds)} of {context['rounds']} rounds")
            base = samples[TASK_BASE][metric]
            every = [value for values in rounds.values() for value in values]
            result[name][metric] = spread(every)
            result[name][metric]["ratio"] = spread(
                [median(values) / median(base[number]) for number, values in rounds.items()]
            )
    return result


def load(folder):
    context = read_context(folder / "context.tsv")
    samples = read_samples(folder / "samples.tsv")
    results = {"context": context}
    if context["only"] != "task":
        results["paths"] = paths(samples["path"], context)
        results["compared"] = compared(samples["path"], results["paths"])
    if context["only"] != "path":
        results["tasks"] = tasks(samples["task"], context)
    return results
