"""What containers cost: samples, table and picture."""

from statistics import median

from figure import LABELS, ROW, TOP, Picture, names, panel
from results import Incomplete, read_context, read_samples, spread
from table import head, milliseconds, ratio, row

SPECS = {"plain": "plain", "full": "full"}

WAYS = {
    "floor": "the system calls alone",
    "library": "the library, in a process that stays",
    "oci": "fairlead-oci",
    "crun": "crun",
    "runc": "runc",
}

SUPERVISORS = {"shim": "fairlead-shim", "conmon": "conmon"}


def checked(samples, name, context):
    if len(samples) != int(context["rounds"]):
        raise Incomplete(f"{name}: {len(samples)} of {context['rounds']} rounds")
    return samples


def times(samples, context):
    """Of each way, its times, and the ratios to others by the medians of a round."""
    result = {}
    for name in WAYS:
        result[name] = {}
        for metric in ("run", "busy", "commands"):
            if metric == "commands" and name in ("floor", "library"):
                continue
            rounds = checked(samples[name][metric], f"{name}, {metric}", context)
            entry = spread([value for values in rounds.values() for value in values])
            for base in ("floor", "crun"):
                # Three commands are compared with three commands.
                of = samples[base]["run" if (base, metric) == ("floor", "commands") else metric]
                entry[f"of {base}"] = spread([median(v) / median(of[n]) for n, v in rounds.items()])
            result[name][metric] = entry
        if name != "floor":
            rounds = checked(samples[name]["peak"], f"{name}, peak", context)
            result[name]["peak"] = spread([value for values in rounds.values() for value in values])
    return result


def load(folder):
    context = read_context(folder / "runtime-context.tsv")
    samples = read_samples(folder / "runtime.tsv")
    result = {"context": context}
    for spec in SPECS:
        result[spec] = times(samples[spec], context)
    result["supervisors"] = {
        name: spread([v for values in checked(samples["task"][name]["private"], name, context).values() for v in values])
        for name in SUPERVISORS
    }
    return result


def machine(context):
    if context["clock"] == "instruction clock":
        where = "One virtual processor, instruction clock"
    else:
        where = f"{context['processors']} processors, load of other work at the start {context['load']}"
    return (
        f"{where}, Linux {context['kernel']}, cgroup {context['cgroups']}; rounds: {context['rounds']}, "
        f"{context['samples']} samples each; crun {context['crun']}, runc {context['runc']}, conmon {context['conmon']}."
    )


def markdown(results, pictures=False):
    lines = ["# Containers from nothing to nothing", "", machine(results["context"]), ""]
    lines += ["Milliseconds: median (range of eight in ten samples). Ratios: by medians of a round, median of the"]
    lines += ["rounds (smallest to largest). Busy: the time that processors worked for it, which other work on the machine"]
    lines += ["hardly changes. Memory: the most that the runtime's process had at any time."]
    for spec, title in SPECS.items():
        lines += ["", f"## The {title} specification", ""]
        lines += head([
            "way", "run, ms", "of the system calls", "of crun", "busy, ms", "of the system calls", "of crun",
            "three commands, ms", "of crun's", "memory, MiB",
        ])
        for name, entry in results[spec].items():
            run, busy, commands, peak = entry["run"], entry["busy"], entry.get("commands"), entry.get("peak")
            lines.append(
                row([
                    WAYS[name],
                    milliseconds(run),
                    ratio(run["of floor"]),
                    ratio(run["of crun"]),
                    milliseconds(busy),
                    ratio(busy["of floor"]),
                    ratio(busy["of crun"]),
                    milliseconds(commands) if commands else "",
                    ratio(commands["of crun"]) if commands else "",
                    f"{peak['median'] / 1024:.1f}" if peak else "",
                ])
            )
    if pictures:
        lines += ["", "![The times as a picture](runtime.svg)"]
    lines += ["", "## What stays with each running task", ""]
    lines += head(["process", "private memory, KiB"])
    for name, entry in results["supervisors"].items():
        lines.append(row([SUPERVISORS[name], f"{entry['median']:.0f}"]))
    return "\n".join(lines) + "\n"


def picture(results):
    width, gap = 300, 90
    drawn = Picture(
        LABELS + 2 * (width + gap),
        TOP + len(WAYS) * ROW + 34,
        "A container from nothing to nothing, ms, shorter is better",
        machine(results["context"]),
    )
    names(drawn, WAYS.values())
    for number, (spec, title) in enumerate(SPECS.items()):
        entries = [(name, entry["run"]) for name, entry in results[spec].items()]
        # The colour goes by the name: what is not ours is as grey as what is done by hand.
        shown = {"crun": "hand-crun", "runc": "hand-runc"}
        rows = [(shown.get(name, name), e["median"], e["low"], e["high"]) for name, e in entries]
        largest = min(2 * max(r[1] for r in rows), max(r[3] for r in rows))
        left = LABELS + number * (width + gap)
        panel(drawn, left, width, f"{title} specification", rows, largest, [(0, "grid")], "{:.1f}".format)
    foot = "Bars: medians over all samples. Thin lines: eight of ten samples."
    drawn.text(12, TOP + len(WAYS) * ROW + 22, foot, "note")
    return drawn.svg()
