"""The results as Markdown."""

from results import METRICS, PATHS, TASKS


def ratio(value):
    if value["low"] == value["high"]:
        return f"{value['median']:.2f}"
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def milliseconds(value):
    if value["low"] == value["high"]:
        return f"{value['median']:.1f}"
    return f"{value['median']:.1f} ({value['low']:.1f} to {value['high']:.1f})"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def head(cells):
    return [row(cells), "|" + "---|" * len(cells)]


def machine(context):
    if context["clock"] == "instruction clock":
        where = "One virtual processor, instruction clock"
    else:
        # With that load, other work takes its part of every figure.
        where = f"{context['processors']} processors, load of other work at the start {context['load']}"
    engines = context["engines"].replace(" ", ", ")
    return f"{where}, Linux {context['kernel']}; rounds: {context['rounds']}; engines: {engines}."


def paths(results):
    lines = ["## Paths", "", "Ratio to the veth pair of the same round: median (smallest to largest)."]
    lines += ["In brackets behind it: the median itself, which means this machine only.", ""]
    lines += head(["path"] + [f"{name} [{unit}]" for name, unit in METRICS.values()])
    for name, metrics in results.items():
        cells = [f"{ratio(metrics[m]['ratio'])} [{metrics[m]['median']:,.0f}]" for m in METRICS]
        lines.append(row([PATHS[name]] + cells))
    return lines


def compared(results):
    lines = ["## Compared with each other", "", "Ratio of the first to the second within a round."]
    lines += [""] + head(["of", "to"] + [name for name, _ in METRICS.values()])
    for entry in results:
        cells = [ratio(entry["ratio"][metric]) for metric in METRICS]
        lines.append(row([PATHS[entry["of"]], PATHS[entry["to"]]] + cells))
    return lines


def tasks(results):
    lines = ["## Tasks with one network", ""]
    lines += ["Milliseconds: median (range of eight in ten samples). Times: how many times as long as by hand on"]
    lines += ["a veth pair, by medians of a round.", ""]
    lines += head(["what", "start, ms", "times", "until gone, ms", "times"])
    for name, metrics in results.items():
        cells = []
        for metric in ("start", "stop"):
            value = metrics.get(metric)
            if value is None:
                cells += ["", ""]
            else:
                cells += [milliseconds(value), ratio(value['ratio'])]
        lines.append(row([TASKS[name]] + cells))
    return lines


def markdown(results, pictures=False):
    lines = [machine(results["context"])]
    for kind, part in (("paths", paths), ("compared", compared), ("tasks", tasks)):
        if kind in results:
            lines += [""] + part(results[kind])
            if pictures and kind != "compared":
                lines += ["", f"![The {kind} as a picture]({kind}.svg)"]
    return "\n".join(lines) + "\n"
