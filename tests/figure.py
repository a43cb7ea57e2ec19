#!/usr/bin/env python3
"""Draw README's figure: embeddings of held-out images before and after the demo's training, with seed 0.

    python3 tests/figure.py                                  write .github/embeddings.svg
    python3 tests/figure.py --epochs 5 --output figure.svg   a shorter training, another file

The file is the same to the last byte with every Python: if it is not, jepa.py has changed what it learns.
"""
import argparse
import math
import os
import random
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import jepa  # noqa: E402

SEED = 0
WIDTH, HEIGHT = 800, 430
SIDE = 310                        # pixels a side of the square in which a panel shows its points
PANELS = (72, 50), (474, 50)      # where its upper left corner is
LEGEND = 202, 416, 128            # where the first marker of the legend is, and how far the next one

# A colour and a shape, about 7 pixels wide, for each of the four patterns. The colours are those of Okabe and
# Ito, chosen for colour-blind people, that have a contrast of 3 or more to white and to GitHub's dark.
MARKERS = [
    ("#0072B2", "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z"),           # blue circle
    ("#D55E00", "M-3-3h6v6h-6z"),                                             # vermillion square
    ("#009E73", "M0-4.4L3.8 2.2h-7.6z"),                                      # bluish green triangle
    ("#CC79A7", "M-4-1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z"),   # reddish purple plus
]
STYLE = """
text { font: 12px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #59636e }
.title { font-size: 15px; font-weight: 600 }
.middle { text-anchor: middle }
.end { text-anchor: end }
.axes { fill: none; stroke: #59636e; stroke-opacity: .6 }
.zero { stroke: #59636e; stroke-opacity: .25 }
.marker { fill-opacity: .6; stroke-width: .8 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 }
.axes, .zero { stroke: #9198a1 }
}
"""


def embeddings(epochs):
    """The demo's held-out images: embeddings before and after training, both [400][D], and labels [400]."""
    images, held_out, labels, _ = jepa.draw_data(SEED)
    model = jepa.init_model(rng=random.Random(SEED))
    before = [jepa.embed(img, model) for img in held_out]
    jepa.train(images, epochs, rng=random.Random(SEED), model=model,
               on_epoch=lambda epoch, losses: jepa.round_weights(model))
    return before, [jepa.embed(img, model) for img in held_out], labels


def one_label_accuracy(x, labels):
    """The accuracy that the demo prints for one label a class, 0 to 1."""
    return jepa.few_label_accuracy(jepa.nearest_mean, x, labels, 1, random.Random(SEED))


def principal_components(C, count=2):
    """The first axes of a covariance matrix C [D][D], each with its variance: [count] of ([D], a float).

    Power iteration: multiplied by C again and again, any vector turns to the axis of the largest variance.
    Deflation: take this axis out of C, and the next one is the largest. The sign of an axis is free: here,
    its number farthest from 0 is positive."""
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
    """Embeddings x [n][D] -> their points on the first two components [n][2], and these two's shares of the
    variance, 0 to 1."""
    centered, C = jepa.covariance(x)
    components = principal_components(C)
    points = [[jepa.dot(row, axis) for axis, _ in components] for row in centered]
    total = sum(C[d][d] for d in range(len(C))) or 1.0
    return points, [variance / total for _, variance in components]


def window(points):
    """The square that holds all points, with a margin: its centre [2], and half of its side."""
    ends = [(min(values), max(values)) for values in zip(*points)]
    return [(low + high) / 2 for low, high in ends], 0.54 * max(high - low for low, high in ends) or 1.0


def ticks(low, high):
    """Round numbers from low to high, at most seven, as (number, text)."""
    step = next(digit * 10.0 ** power for power in range(-9, 300) for digit in (1, 2, 5)
                if high - low <= 6 * digit * 10.0 ** power)
    return [(i * step, f"{i * step:g}".replace("-", "\u2212"))
            for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def text(x, y, content, kind="middle", more=""):
    """A line of text, at a place in pixels."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{more}>{content}</text>'


def draw_axes(left, top, centre, half, shares):
    """The frame of a panel, its ticks and lines of zero, and the names of the components."""
    lines = [f'<rect x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" class="axes"/>']
    bottom, scale = top + SIDE, SIDE / (2 * half)
    for value, shown in ticks(centre[0] - half, centre[0] + half):
        x = left + SIDE / 2 + scale * (value - centre[0])
        lines += [f'<path d="M{x:.1f} {bottom}v4" class="axes"/>', text(x, bottom + 16, shown)]
        if value == 0:
            lines.append(f'<path d="M{x:.1f} {top}v{SIDE}" class="zero"/>')
    for value, shown in ticks(centre[1] - half, centre[1] + half):
        y = top + SIDE / 2 - scale * (value - centre[1])
        lines += [f'<path d="M{left} {y:.1f}h-4" class="axes"/>', text(left - 7, y + 4, shown, "end")]
        if value == 0:
            lines.append(f'<path d="M{left} {y:.1f}h{SIDE}" class="zero"/>')
    names = [f"{which} principal component: {100 * share:.1f} % of variance"
             for which, share in zip(("1st", "2nd"), shares)]
    lines.append(text(left + SIDE / 2, bottom + 34, names[0]))
    turn = f' transform="rotate(-90 {left - 48} {top + SIDE // 2})"'
    return lines + [text(left - 48, top + SIDE // 2, names[1], more=turn)]


def draw_panel(left, top, title, x, labels):
    """A panel: embeddings x [n][D] as points on their own two principal components, at their own scale."""
    points, shares = project(x)
    centre, half = window(points)
    accuracy = one_label_accuracy(x, labels)
    lines = [text(left + SIDE / 2, top - 30, title, "title middle"),
             text(left + SIDE / 2, top - 11, f"1 label a class: {100 * accuracy:.1f} % right")]
    lines += draw_axes(left, top, centre, half, shares)
    scale, names = SIDE / (2 * half), list(jepa.PATTERNS)
    # One image of each pattern in turn, so that no pattern covers another.
    for i in sorted(range(len(points)), key=lambda i: labels[:i].count(labels[i])):
        px = left + SIDE / 2 + scale * (points[i][0] - centre[0])
        py = top + SIDE / 2 - scale * (points[i][1] - centre[1])
        lines.append(f'<use href="#m{names.index(labels[i])}" x="{px:.1f}" y="{py:.1f}"/>')
    return lines


def draw_legend():
    """The names of the patterns, each beside its marker, in a row below the panels."""
    lines, (left, y, step) = [], LEGEND
    for i, name in enumerate(jepa.PATTERNS):
        x = left + step * i
        lines += [f'<use href="#m{i}" x="{x}" y="{y}"/>', text(x + 10, y + 4, name, "name")]
    return lines


def figure(before, after, labels, epochs):
    """The figure, as the text of an SVG file."""
    panels = ("before training", before), (f"after {epochs} epochs", after)
    told = "; ".join(f"{title}, {100 * one_label_accuracy(x, labels):.1f} %" for title, x in panels)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
             f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title desc">',
             '<title id="title">Embeddings of held-out images, before and after training</title>',
             f'<desc id="desc">Two scatter plots of the embeddings of {len(labels)} images, each on its own '
             f'first two principal components, with a marker for each pattern: {", ".join(jepa.PATTERNS)}. '
             f'Images whose pattern is told right from 1 label a class: {told}.</desc>',
             f"<style>{STYLE}</style>", "<defs>"]
    lines += [f'<path id="m{i}" class="marker" fill="{colour}" stroke="{colour}" d="{shape}"/>'
              for i, (colour, shape) in enumerate(MARKERS)]
    lines.append("</defs>")
    for (left, top), (title, x) in zip(PANELS, panels):
        lines += draw_panel(left, top, title, x, labels)
    return "\n".join(lines + draw_legend() + ["</svg>"]) + "\n"


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw embeddings before and after training.")
    parser.add_argument("--epochs", type=int, default=jepa.EPOCHS, help="train for so many epochs")
    parser.add_argument("--output", default=os.path.join(ROOT, ".github", "embeddings.svg"), metavar="FILE")
    options = parser.parse_args()
    svg = figure(*embeddings(options.epochs), options.epochs)
    os.makedirs(os.path.dirname(os.path.abspath(options.output)), exist_ok=True)
    with open(options.output, "w", encoding="utf-8", newline="\n") as file:
        file.write(svg)


if __name__ == "__main__":
    main()
