"""The results as pictures: SVG that reads well on a light and on a dark page."""

from html import escape

from results import METRICS, PATHS, TASKS

STYLE = """
  text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #24292f }
  .page { fill: #ffffff }
  .title { font-size: 16px; font-weight: 600 }
  .head { font-weight: 600 }
  .note { font-size: 11.5px; fill: #57606a }
  .value { font-size: 12px }
  .hand { fill: #8c959f }
  .ours { fill: #0969da }
  .other { fill: #1a7f78 }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .one { stroke: #8c959f; stroke-width: 1; stroke-dasharray: 3 3 }
  .range { stroke: #24292f; stroke-width: 1.5; opacity: .65 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .page { fill: #0d1117 }
    .note { fill: #9198a1 }
    .hand { fill: #7d8590 }
    .ours { fill: #4493f8 }
    .other { fill: #39c5bb }
    .grid { stroke: #3d444d }
    .one { stroke: #9198a1 }
    .range { stroke: #e6edf3 }
  }
"""

LABELS = 335  # pixels for the names of the rows
ROW = 26
TOP = 78


class Picture:
    def __init__(self, width, height, title, note):
        self.width, self.height = width, height
        self.parts = [f"<title>{escape(title)}</title>"]
        # Its own page: what it is shown on may be dark where this is not told so, or the reverse.
        self.parts.append(f'<rect width="{width}" height="{height}" class="page"/>')
        self.text(12, 26, title, "title")
        self.text(12, 45, note, "note")

    def text(self, x, y, content, style="", anchor="start"):
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} class="{style}">{escape(content)}</text>')

    def line(self, x1, y1, x2, y2, style):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>')

    def bar(self, x, y, width, height, style):
        place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height}"'
        self.parts.append(f'<rect {place} rx="2" class="{style}"/>')

    def svg(self):
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        body = "\n".join(self.parts)
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<style>{STYLE}</style>\n{body}\n</svg>\n'


def colour(name):
    if name.startswith(("veth", "hand", "floor")):
        return "hand"
    return "other" if "ipvs" in name else "ours"


def panel(picture, left, width, title, rows, largest, marks, show):
    """One column of bars. A row is (name, median, smallest, largest) or None."""
    scale = width / largest
    bottom = TOP + len(rows) * ROW
    picture.text(left, TOP - 12, title, "head")
    for mark, style in marks:
        picture.line(left + mark * scale, TOP - 4, left + mark * scale, bottom, style)
    for number, row in enumerate(rows):
        if row is None:
            continue
        name, value, low, high = row
        y = TOP + number * ROW
        picture.bar(left, y + 4, value * scale, ROW - 9, colour(name))
        middle = y + ROW / 2 - 0.5
        high = min(high, largest)
        if high > low:
            picture.line(left + low * scale, middle, left + high * scale, middle, "range")
        picture.text(left + max(value, high) * scale + 5, middle + 4.5, show(value), "value")


def names(picture, labels):
    for number, label in enumerate(labels):
        picture.text(LABELS - 14, TOP + number * ROW + ROW / 2 + 4, label, "", "end")


def paths(results, machine):
    width, gap = 215, 55
    height = TOP + len(results) * ROW + 34
    picture = Picture(
        LABELS + 3 * (width + gap), height, "What a path costs: ratio to a veth pair, longer is better", machine
    )
    names(picture, [PATHS[name] for name in results])
    ratios = {m: [(n, results[n][m]["ratio"]) for n in results] for m in METRICS}
    # Where other work disturbed a round, its ratio may be anything; the scale follows the medians.
    middle = max(r["median"] for rows in ratios.values() for _, r in rows)
    largest = min(1.3 * middle, max(r["high"] for rows in ratios.values() for _, r in rows))
    for number, (metric, (title, _)) in enumerate(METRICS.items()):
        rows = [(name, r["median"], r["low"], r["high"]) for name, r in ratios[metric]]
        marks = [(0, "grid"), (0.25, "grid"), (0.5, "grid"), (0.75, "grid"), (1, "one")]
        panel(picture, LABELS + number * (width + gap), width, title, rows, largest, marks, "{:.2f}".format)
    picture.text(12, height - 12, "Bars: medians over the rounds. Thin lines: smallest to largest round.", "note")
    return picture.svg()


def tasks(results, machine):
    width, gap = 300, 90
    height = TOP + len(results) * ROW + 34
    picture = Picture(
        LABELS + 2 * (width + gap), height, "Start and end of a task with one network, ms, shorter is better", machine
    )
    names(picture, [TASKS[name] for name in results])
    for number, (metric, title) in enumerate((("start", "from apply to RUNNING"), ("stop", "from apply until gone"))):
        cells = [(name, metrics.get(metric)) for name, metrics in results.items()]
        rows = [c and (name, c["median"], c["low"], c["high"]) for name, c in cells]
        largest = min(2 * max(row[1] for row in rows if row), max(row[3] for row in rows if row))
        panel(picture, LABELS + number * (width + gap), width, title, rows, largest, [(0, "grid")], "{:.1f}".format)
    picture.text(12, height - 12, "Bars: medians over all samples. Thin lines: eight of ten samples.", "note")
    return picture.svg()
