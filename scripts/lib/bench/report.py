#!/usr/bin/env python3
"""Makes a table and pictures of the samples of a run of scripts/bench: report.py FOLDER.

Reads context.tsv and samples.tsv there; writes results.json, results.md, paths.svg, tasks.svg, and the
table to standard output. Fails when a configuration was not measured in every round.
"""

import json
import sys
from pathlib import Path

import figure
import results as measured
import table


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: report.py FOLDER")
    folder = Path(sys.argv[1])
    try:
        results = measured.load(folder)
    except (OSError, ValueError, KeyError, measured.Incomplete) as error:
        sys.exit(f"report.py: {folder}: {error}")
    machine = table.machine(results["context"])
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    heading = "# Results of scripts/bench\n\n"
    (folder / "results.md").write_text(heading + table.markdown(results, pictures=True), encoding="utf-8")
    for kind, draw in (("paths", figure.paths), ("tasks", figure.tasks)):
        if kind in results:
            (folder / f"{kind}.svg").write_text(draw(results[kind], machine), encoding="utf-8")
    sys.stdout.write(table.markdown(results))


if __name__ == "__main__":
    main()
