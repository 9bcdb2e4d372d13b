#!/usr/bin/env python3
"""Makes tables and pictures of the samples of a run of scripts/bench: report.py FOLDER.

Reads context.tsv and samples.tsv there, and writes results.md, paths.svg and tasks.svg; reads
runtime-context.tsv and runtime.tsv, and writes runtime.md and runtime.svg; images-context.tsv and images.tsv,
and writes images.md; what was not measured is not there. Writes all of it to results.json, and the tables to standard output. Fails when a configuration was
not measured in every round.
"""

import json
import sys
from pathlib import Path

import figure
import images
import results as measured
import runtime
import table


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: report.py FOLDER")
    folder = Path(sys.argv[1])
    try:
        results = measured.load(folder) if (folder / "context.tsv").exists() else {}
        if (folder / "runtime.tsv").exists():
            results["runtime"] = runtime.load(folder)
        if (folder / "images.tsv").exists():
            results["images"] = images.load(folder)
    except (OSError, ValueError, KeyError, measured.Incomplete) as error:
        sys.exit(f"report.py: {folder}: {error}")
    write(folder / "results.json", json.dumps(results, indent=1) + "\n")
    if "context" in results:
        machine = table.machine(results["context"])
        heading = "# Results of scripts/bench\n\n"
        write(folder / "results.md", heading + table.markdown(results, pictures=True))
        for kind, draw in (("paths", figure.paths), ("tasks", figure.tasks)):
            if kind in results:
                write(folder / f"{kind}.svg", draw(results[kind], machine))
        sys.stdout.write(table.markdown(results))
    if "runtime" in results:
        write(folder / "runtime.md", runtime.markdown(results["runtime"], pictures=True))
        write(folder / "runtime.svg", runtime.picture(results["runtime"]))
        sys.stdout.write(runtime.markdown(results["runtime"]))
    if "images" in results:
        write(folder / "images.md", images.markdown(results["images"]))
        sys.stdout.write(images.markdown(results["images"]))


def write(path, text):
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
