#!/usr/bin/env python3
"""Draw the README's two figures, from one run of jepa.py with seed 0.

    python3 tests/figure.py                          write .github/embeddings.svg and collapse.svg
    python3 tests/figure.py --epochs 5 --output .    shorter trainings, another folder

embeddings.svg: held-out images as the untrained encoder embeds them, one trained without any guard
against collapse, and JEPA. collapse.svg: what --collapse prints of the last two, over the epochs.
With every Python the files are the same to the last byte: if not, jepa.py has changed what it learns.
"""
import argparse
import math
import os
import random
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import jepa  # noqa: E402

SEED, EVERY = 0, 5                # the lines of collapse.svg have a point every so many epochs
WIDTH, SIDE, GAP, TOP = 800, 244, 28, 70    # of embeddings.svg: its panels are squares, GAP apart
PLOT_LEFT, PLOT_TOP, PLOT_WIDTH, PLOT_HEIGHT = 46, 74, 144, 120  # of each chart of collapse.svg
LINES = [("without any guard", "m1"), ("JEPA", "m0")]   # of collapse.svg, with their classes

# A shape for each pattern, about 7 pixels wide. Their colours, m0 to m3 below, are of Okabe and Ito,
# for colour-blind people, and have a contrast of 3 or more to white or, in turn, to GitHub's dark.
SHAPES = ["M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",                         # circle
          "M-3-3h6v6h-6z",                                                            # square
          "M0-4.4L3.8 2.2h-7.6z",                                                     # triangle
          "M-4-1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z"]                # plus
STYLE = """
text { font: 12px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #59636e }
.title { font-size: 15px; font-weight: 600 }
.head { font-size: 13px; font-weight: 600 }
.small { font-size: 11px }
.value { font-size: 11px; font-weight: 600 }
.middle { text-anchor: middle }
.end { text-anchor: end }
.axis { fill: none; stroke: #59636e; stroke-opacity: .6 }
.grid { fill: none; stroke: #59636e; stroke-opacity: .2 }
.chance { fill: none; stroke: #59636e; stroke-dasharray: 1 3 }
.marker { fill-opacity: .6; stroke-width: .8 }
.m0 { fill: #0072b2; stroke: #0072b2 }
.m1 { fill: #d55e00; stroke: #d55e00 }
.m2 { fill: #009e73; stroke: #009e73 }
.m3 { fill: #cc79a7; stroke: #cc79a7 }
.value.m0, .value.m1 { stroke: none }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.line.m1 { stroke-dasharray: 5 2.5 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 }
.axis, .grid, .chance { stroke: #9198a1 }
.m0 { fill: #56b4e9; stroke: #56b4e9 }
}
"""


def observe(model, data, unit=1.0):
    """What --collapse prints of a model: spread, in units; rank; accuracy with 1 label a pattern."""
    _, held_out, _, labels = data
    rows = [row for img in held_out for row in jepa.embed_patches(img, model)]
    x, rng = [jepa.embed(img, model) for img in held_out], random.Random(SEED)
    return {"spread": jepa.spread(rows) / unit, "rank": jepa.effective_rank(rows),
            "accuracy": jepa.few_label_accuracy(jepa.nearest_mean, x, labels, 1, rng)}


def run(epochs=None):
    """Train both models. Returns panels of (title, embeddings [400][D], what was observed); labels
    [400]; and the lines: for each model a list of what was observed, with its "epoch" and "pred"."""
    data = images, held_out, _, labels = jepa.draw_data(SEED)
    model = jepa.init_model(2, 4, jepa.EMBED_DIM, jepa.HIDDEN_DIM, random.Random(SEED))
    unit = observe(model, data)["spread"]
    start = {"epoch": 0, **observe(model, data, unit)}
    panels, lines = [("untrained", [jepa.embed(img, model) for img in held_out], start)], []
    for title, off, last in (("no guard, {} epochs", "none of the four", jepa.COLLAPSE_EPOCHS),
                             ("JEPA, {} epochs", "everything on", jepa.EPOCHS)):
        line, last = [start], epochs or last

        def report(epoch, losses, model):
            if epoch % EVERY == 0 or epoch in (1, last):
                line.append({"epoch": epoch, **losses, **observe(model, data, unit)})
        model, _ = jepa.fit(SEED, images, last, report, **jepa.VARIANTS[off])
        panels.append((title.format(last), [jepa.embed(img, model) for img in held_out], line[-1]))
        lines.append([seen for seen in line if seen["epoch"] <= jepa.COLLAPSE_EPOCHS])
    return panels, labels, lines


def principal_components(C, count=2):
    """The first axes of a covariance matrix C [D][D], each with its variance: [count] of ([D], float).

    Power iteration: multiplied by C again and again, any vector turns to the axis of the largest
    variance. Deflation: take this axis out of C, and the next one is the largest. The sign of an
    axis is free: here, its number farthest from 0 is positive."""
    components = []
    for _ in range(count):
        axis = [1.0 / (i + 1) for i in range(len(C))]
        for _ in range(1000):
            axis = [jepa.dot(row, axis) for row in C]
            length = math.sqrt(jepa.dot(axis, axis)) or 1.0
            axis = [v / length for v in axis]
        if max(axis, key=abs) < 0.0:
            axis = [-v for v in axis]
        variance = jepa.dot(axis, [jepa.dot(row, axis) for row in C])
        components.append((axis, variance))
        C = [[v - variance * a * b for v, b in zip(row, axis)] for row, a in zip(C, axis)]
    return components


def project(x):
    """Embeddings x [n][D] -> points [n][2], their places on the first two components counted from the
    middle of the panel; half the side of the square that holds them; these two's share of variance."""
    centered, C = jepa.covariance(x)
    components = principal_components(C)
    points = [[jepa.dot(row, axis) for axis, _ in components] for row in centered]
    ends = [(min(values), max(values)) for values in zip(*points)]
    points = [[v - (low + high) / 2 for v, (low, high) in zip(point, ends)] for point in points]
    share = sum(variance for _, variance in components) / sum(C[d][d] for d in range(len(C)))
    return points, max(high - low for low, high in ends) / 2, share


def round_step(length, most):
    """The smallest of 1, 2, 5, 10, 20, 50... and their tenths of which most are length or more."""
    return next(float(f"{digit}e{power}") for power in range(-9, 99) for digit in (1, 2, 5)
                if length <= most * float(f"{digit}e{power}"))


def text(x, y, content, kind="middle"):
    """A line of text, at a place in pixels."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{content}</text>'


def path(d, kind):
    """A line or a shape."""
    return f'<path d="{d}" class="{kind}"/>'


def percent(share):
    """A share as a text."""
    return f"{100 * share:.1f}\u2009%"


def draw_panel(left, title, points, labels, scale, observed, share):
    """A panel of embeddings.svg: points [n][2], scale pixels to a unit, and what to say of them."""
    x, y = left + SIDE / 2, TOP + SIDE / 2
    lines = [text(x, 18, title, "title middle"),
             text(x, 38, f"1 label a pattern: {percent(observed['accuracy'])} right"),
             text(x, 56, f"spread {observed['spread']:.2f}, rank {observed['rank']:.1f}"),
             f'<rect x="{left}" y="{TOP}" width="{SIDE}" height="{SIDE}" class="axis"/>']
    places, names = [(x + scale * a, y - scale * b) for a, b in points], list(jepa.PATTERNS)
    if max(math.dist(place, (x, y)) for place in places) < SIDE / 30:  # a point: help to find it
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="15" class="axis"/>',
                  path(f"M{x:.1f} {y + 15:.1f}v32", "axis"),
                  text(x, y + 62, f"all {len(points)} images are here")]
    # One image of each pattern in turn, so that no pattern covers another.
    for i in sorted(range(len(points)), key=lambda i: labels[:i].count(labels[i])):
        lines.append('<use href="#m{}" x="{:.1f}" y="{:.1f}"/>'.format(
            names.index(labels[i]), *places[i]))
    bar, y = round_step(SIDE / scale, 10), TOP + SIDE + 16
    return lines + [path(f"M{left + .5} {y - 8}v8m0-4h{scale * bar:.1f}m0-4v8", "axis"),
                    text(left + scale * bar + 7, y, f"{bar:g}", "small"),
                    text(left + SIDE, y, f"these two axes: {percent(share)} of variance", "small end")]


def svg(height, title, description, lines):
    """The text of an SVG file."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{title}</title>', f'<desc id="desc">{description}</desc>',
        f"<style>{STYLE}</style>", *lines, "</svg>"]) + "\n"


def draw_embeddings(panels, labels):
    """embeddings.svg: three panels at one scale, and below them the legend."""
    projected = [project(x) for _, x, _ in panels]
    scale = 0.46 * SIDE / max(half for _, half, _ in projected)
    lines = ["<defs>", *(f'<path id="m{i}" class="marker m{i}" d="{shape}"/>'
                         for i, shape in enumerate(SHAPES)), "</defs>"]
    for i, ((title, _, observed), (points, _, share)) in enumerate(zip(panels, projected)):
        lines += draw_panel(6 + i * (SIDE + GAP), title, points, labels, scale, observed, share)
    for i, name in enumerate(jepa.PATTERNS):
        x, y = WIDTH / 2 - 205 + 115 * i, TOP + SIDE + 46
        lines += [f'<use href="#m{i}" x="{x}" y="{y}"/>', text(x + 10, y + 4, name, "name")]
    told = "; ".join(f"{title}: {percent(seen['accuracy'])}, {seen['spread']:.2f}"
                     for title, _, seen in panels)
    return svg(TOP + SIDE + 60, "Embeddings of held-out images: untrained, collapsed, JEPA",
               f"Three scatter plots at one scale of the embeddings of {len(labels)} images, each on its "
               f"own first two principal components. Accuracy with 1 label a pattern, and spread: {told}.",
               lines)


def draw_chart(left, title, series, ends, low, top, ticks):
    """A chart of collapse.svg. series: a line for each model, of points (epoch, value). ends: what to
    write at their ends. ticks: the values from low to top that have a line and a text."""
    last, bottom = max(epoch for points in series for epoch, _ in points), PLOT_TOP + PLOT_HEIGHT
    x = lambda epoch: left + PLOT_WIDTH * epoch / last
    y = lambda value: bottom - PLOT_HEIGHT * (value - low) / (top - low)
    lines = [text(left, PLOT_TOP - 24, title, "head")]
    for value, shown in ticks:
        lines += [path(f"M{left} {y(value):.1f}h{PLOT_WIDTH}", "grid" if value > low else "axis"),
                  text(left - 6, y(value) + 4, shown, "small end")]
    step = max(1, int(round_step(last, 4)))
    for epoch in range(0, last + 1, step):
        lines += [path(f"M{x(epoch):.1f} {bottom}v4", "axis"),
                  text(x(epoch), bottom + 17, epoch, "small middle")]
    for i, (points, end) in enumerate(zip(series, ends)):
        places = [f"{x(epoch):.1f} {y(value):.1f}" for epoch, value in points]
        lines += [path("M" + "L".join(places), f"line {LINES[i][1]}"),
                  text(x(last) + 3, y(points[-1][1]) - 7, end, f"value {LINES[i][1]} end")]
    return lines


def draw_collapse(lines):
    """collapse.svg: Pred, spread, rank and accuracy of both models over the epochs."""
    charts = [("Pred (log scale)", "pred", None), ("spread (untrained: 1)", "spread", None),
              (f"rank, of {jepa.EMBED_DIM}", "rank", jepa.EMBED_DIM),
              ("1 label a pattern, % right", "accuracy", 100)]
    drawn = []
    for i, (name, kind) in enumerate(LINES):
        left = PLOT_LEFT + 90 * (1 - i)
        drawn += [path(f"M{left} 14h24", f"line {kind}"), text(left + 31, 18, name, "name")]
    for i, (title, key, top) in enumerate(charts):
        series = [[(seen["epoch"], seen[key]) for seen in line if key in seen] for line in lines]
        low, values = 0, [value for points in series for _, value in points]
        ends = [f"{points[-1][1]:.2f}" for points in series]
        if key == "pred":
            series = [[(epoch, math.log10(v)) for epoch, v in points] for points in series]
            low, top = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
            ticks = [(power, f"{10.0 ** power:.{max(0, -power)}f}") for power in range(low, top + 1)]
            ends = [f"{10 ** p[-1][1]:.{max(0, 1 - math.floor(p[-1][1]))}f}" for p in series]
        else:
            if key == "accuracy":
                series = [[(epoch, 100 * v) for epoch, v in points] for points in series]
                ends = [percent(line[-1][key]) for line in lines]
            step = round_step(top or max(values), 4)
            top = top or max(values)
            ticks = [(step * n, f"{step * n:g}") for n in range(int(top / step) + 1)]
        left = PLOT_LEFT + i * WIDTH // len(charts)
        drawn += draw_chart(left, title, series, ends, low, top, ticks)
    return svg(PLOT_TOP + PLOT_HEIGHT + 26, "The lowest loss is the dead one", "TODO", drawn)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the README's two figures.")
    parser.add_argument("--epochs", type=int, help="of both trainings (default: those of jepa.py)")
    parser.add_argument("--output", default=os.path.join(ROOT, ".github"), metavar="FOLDER")
    options = parser.parse_args()
    panels, labels, lines = run(options.epochs)
    os.makedirs(options.output, exist_ok=True)
    for name, content in (("embeddings.svg", draw_embeddings(panels, labels)),
                          ("collapse.svg", draw_collapse(lines))):
        path_to = os.path.join(options.output, name)
        with open(path_to, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)


if __name__ == "__main__":
    main()
