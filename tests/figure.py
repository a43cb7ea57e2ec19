#!/usr/bin/env python3
"""Draw the README's two figures, from one run of jepa.py with seed 0.

    python3 tests/figure.py                          write .github/embeddings.svg and collapse.svg
    python3 tests/figure.py --epochs 5 --output .    shorter trainings, another folder

embeddings.svg: held-out images as the untrained encoder embeds them, one trained without any guard
against collapse, and JEPA. collapse.svg: what --collapse prints of the last two, over the epochs.
With every Python they are the same to the last byte: if not, jepa.py has changed what it learns.
"""
import argparse
import math
import os
import random
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import jepa  # noqa: E402

SEED, EVERY = 0, 5     # the lines of collapse.svg have a point every so many epochs
WIDTH, SIDE, GAP, TOP = 800, 244, 28, 70    # in pixels; embeddings.svg has squares, GAP apart
PLOT_LEFT, PLOT_TOP, PLOT_WIDTH, PLOT_HEIGHT = 46, 70, 120, 120  # of a chart, in its column
LINES = ("m1", "no guard against collapse"), ("m0", "JEPA")      # of collapse.svg: class, name

# A shape for each pattern, about 7 pixels wide. Their colours, m0 to m3 below, are Okabe and Ito's
# for colour-blind people, those that have a contrast of 3 or more to white and to GitHub's dark.
SHAPES = ["M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z", "M-3-3h6v6h-6z",  # circle, square
          "M0-4.4L3.8 2.2h-7.6z",                                               # triangle, plus
          "M-4-1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z"]
STYLE = """
text { font: 12px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #59636e }
.title, .head, .value { font-size: 13px; font-weight: 600 } .title { font-size: 15px }
.small, .value { font-size: 11px } .value { fill: currentColor }
.middle { text-anchor: middle } .end { text-anchor: end }
.axis, .grid { fill: none; stroke: #59636e; stroke-opacity: .7 } .grid { stroke-opacity: .2 }
.marker { fill: currentColor; fill-opacity: .6; stroke: currentColor; stroke-width: .8 }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round }
.line.m1 { stroke-dasharray: 5 2.5 }
.m0 { color: #0072b2 } .m1 { color: #d55e00 } .m2 { color: #009e73 } .m3 { color: #cc79a7 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 } .value { fill: currentColor } .axis, .grid { stroke: #9198a1 }
.m0 { color: #56b4e9 } }
"""


def observe(epoch, losses, model, data):
    """The losses; spread, rank and accuracy with 1 label a pattern, as --collapse has them, but
    spread not yet as a share of the untrained; the embeddings x [400][D] of held-out images."""
    _, held_out, _, labels = data
    patches = [jepa.embed_patches(img, model) for img in held_out]
    rows, x, rng = sum(patches, []), [jepa.average(four) for four in patches], random.Random(SEED)
    accuracy = 100 * jepa.few_label_accuracy(jepa.nearest_mean, x, labels, 1, rng)
    return {"epoch": epoch, **losses, "spread": jepa.spread(rows), "x": x,
            "rank": jepa.effective_rank(rows), "accuracy": accuracy}


def run(epochs=None):
    """Train without guards and with. Returns what was observed of each, from the untrained model to
    the end of the first training, then at the end of its own; and the labels of held-out images."""
    data = images, _, _, labels = jepa.draw_data(SEED)
    seen, until = [], epochs or jepa.EPOCHS
    for off, last in (("prediction alone", until), ("everything on", epochs or jepa.EPOCHS)):
        model = jepa.init_model(2, 4, jepa.EMBED_DIM, jepa.HIDDEN_DIM, random.Random(SEED))
        line = [observe(0, {}, model, data)]

        def report(epoch, losses, model):
            if epoch in (1, until, last) or epoch % EVERY == 0 and epoch < until:
                line.append(observe(epoch, losses, model, data))
        jepa.fit(SEED, images, last, report, **jepa.VARIANTS[off])
        seen.append([{**point, "spread": point["spread"] / line[0]["spread"]} for point in line])
    return seen, labels


def principal_components(C):
    """The first two axes of a covariance matrix C [D][D]: [2][D]; and the variance of each.
    Power iteration: multiplied by C again and again, any vector turns to the axis of the largest
    variance. Deflation: take this axis out of C, and the next one is the largest. The sign of an
    axis is free: here, its number farthest from 0 is positive."""
    axes, variances = [], []
    for _ in range(2):
        axis = [1.0 / (i + 1) for i in range(len(C))]
        for _ in range(1000):
            axis = [jepa.dot(row, axis) for row in C]
            length = math.sqrt(jepa.dot(axis, axis)) or 1.0
            axis = [v / length for v in axis]
        sign = -1.0 if max(axis, key=abs) < 0.0 else 1.0
        axes.append([sign * v for v in axis])
        variances.append(jepa.dot(axis, [jepa.dot(row, axis) for row in C]))
        C = [[v - variances[-1] * a * b for v, b in zip(row, axis)] for row, a in zip(C, axis)]
    return axes, variances


def project(x):
    """Embeddings x [n][D] -> their places on the first two components [n][2], from the middle of
    the square that holds them; half of its side; the share of the variance that these two show."""
    centered, C = jepa.covariance(x)
    axes, variances = principal_components(C)
    places = [[jepa.dot(row, axis) for axis in axes] for row in centered]
    ends = [(min(values), max(values)) for values in zip(*places)]
    places = [[v - sum(end) / 2 for v, end in zip(place, ends)] for place in places]
    share = sum(variances) / (sum(C[d][d] for d in range(len(C))) or 1.0)
    return places, max(high - low for low, high in ends) / 2, share


def round_step(length, most):
    """The smallest of ... 0.1, 0.2, 0.5, 1, 2, 5 ... of which at most so many fit into length."""
    steps = (float(f"{digit}e{power}") for power in range(-9, 99) for digit in (1, 2, 5))
    return next(step for step in steps if length < (most + 1) * step)


# Elements of an SVG file, at places in pixels: a line of text, a line, the marker of pattern i.
text = lambda x, y, content, kind: f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{content}</text>'
path = lambda d, kind: f'<path d="{d}" class="{kind}"/>'
marker = lambda i, x, y: f'<use href="#m{i}" x="{x:.1f}" y="{y:.1f}"/>'


def svg(height, title, description, lines):
    """The text of an SVG file."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{title}</title>', f'<desc id="desc">{description}</desc>',
        f"<style>{STYLE}</style>", *lines, "</svg>"]) + "\n"


def draw_panel(left, title, seen, labels, places, share, scale):
    """A panel of embeddings.svg: places [n][2], scale pixels to 1, below what was observed."""
    x, y, bottom = left + SIDE / 2, TOP + SIDE / 2, TOP + SIDE
    lines = [text(x, 18, title, "title middle"),
             text(x, 38, f"1 label a pattern: {seen['accuracy']:.1f} % right", "middle"),
             text(x, 56, "{epoch} epochs, spread {spread:.2f}, rank {rank:.1f} of {}".format(
                 jepa.EMBED_DIM, **seen), "middle"),
             path(f"M{left} {TOP}h{SIDE}v{SIDE}h-{SIDE}z", "axis")]
    radius = 11 + scale * max(math.hypot(*place) for place in places)
    if radius < SIDE / 10:  # then help to find it
        lines += [f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" class="axis"/>',
                  path(f"M{x} {y + radius:.1f}V{y + 46}", "axis"),
                  text(x, y + 61, f"all {len(places)} images are here", "middle")]
    # One image of each pattern in turn, so that no pattern covers another.
    for i in sorted(range(len(places)), key=lambda i: labels[:i].count(labels[i])):
        across, up = [scale * v for v in places[i]]
        lines.append(marker(list(jepa.PATTERNS).index(labels[i]), x + across, y - up))
    bar, shown = round_step(SIDE / scale, 9), f"axes show {100 * share:.0f} % of variance"
    return lines + [path(f"M{left} {bottom + 8}v8m0-4h{scale * bar:.1f}m0-4v8", "axis"),
                    text(left + scale * bar + 6, bottom + 16, f"{bar:g}", "small"),
                    text(left + SIDE, bottom + 16, shown, "small end")]


def draw_embeddings(seen, labels):
    """embeddings.svg: three panels at one scale, and below them the legend."""
    panels = ("untrained", seen[0][0]), (LINES[0][1], seen[0][-1]), (LINES[1][1], seen[1][-1])
    projected, y = [project(point["x"]) for _, point in panels], TOP + SIDE + 46
    scale = 0.46 * SIDE / max(half for _, half, _ in projected)
    lines = [f'<defs><path id="m{i}" class="marker m{i}" d="{shape}"/></defs>'
             for i, shape in enumerate(SHAPES)]
    for i, ((title, point), (places, _, share)) in enumerate(zip(panels, projected)):
        lines += draw_panel(6 + i * (SIDE + GAP), title, point, labels, places, share, scale)
    for i, name in enumerate(jepa.PATTERNS):
        x = 12 + 34 * i + 6.5 * len("".join(list(jepa.PATTERNS)[:i]))
        lines += [marker(i, x, y - 4), text(x + 10, y, name, "name")]
    lines.append(text(WIDTH - 6, y, "one scale for all three panels", "end"))
    told = "; ".join(f"{title}, {p['accuracy']:.1f} %, {p['spread']:.2f}" for title, p in panels)
    return svg(y + 14, "Embeddings of held-out images: untrained, collapsed, JEPA",
               f"{len(labels)} images three times, each on its own first two principal axes, one "
               f"scale. Right with 1 label a pattern, and spread: {told}.", lines)


def draw_chart(left, title, key, digits, top, step, seen):
    """A chart of collapse.svg: what was observed as key, over the epochs, from 0 to top (None: the
    largest value) with a line every step (None: a round one); Pred by powers of 10."""
    log, last, bottom = key == "pred", seen[0][-1]["epoch"], PLOT_TOP + PLOT_HEIGHT
    series = [[(point["epoch"], math.log10(point[key]) if log else point[key])
               for point in line if key in point and point["epoch"] <= last] for line in seen]
    values, low = [value for line in series for _, value in line], 0
    top, step = top or max(values), step or round_step(top or max(values), 3)
    if log:
        low, top, step = math.floor(min(values)), math.ceil(max(values)), 1
    show = lambda v: f"{10.0 ** v:.{max(0, -math.floor(v))}f}" if log else f"{v:.{digits}f}"
    x = lambda epoch: left + PLOT_WIDTH * epoch / last
    y = lambda value: bottom - PLOT_HEIGHT * (value - low) / (top - low)
    drawn = [text(left, PLOT_TOP - 18, title, "head")]
    for value in [low + step * n for n in range(int((top - low) / step) + 1)]:
        drawn += [path(f"M{left} {y(value):.1f}h{PLOT_WIDTH}", "grid" if value > low else "axis"),
                  text(left - 6, y(value) + 4, show(value) if log else f"{value:g}", "small end")]
    for epoch in range(0, last + 1, max(1, int(round_step(last, 5)))):
        drawn += [path(f"M{x(epoch):.1f} {bottom}v4", "axis"),
                  text(x(epoch), bottom + 17, epoch, "small middle")]
    if key == "accuracy":
        drawn.append(text(left + 4, y(100 / len(jepa.PATTERNS)) + 13, "chance", "small"))
    for (kind, _), line in zip(LINES, series):
        drawn += [path("M" + "L".join(f"{x(epoch):.1f} {y(v):.1f}" for epoch, v in line),
                       f"line {kind}"),
                  text(x(last) + 4, y(line[-1][1]) + 4, show(line[-1][1]), f"value {kind}")]
    return drawn


def draw_collapse(seen):
    """collapse.svg: Pred, spread, rank and accuracy of both over the epochs of --collapse."""
    last = seen[0][-1]["epoch"]
    drawn = [text(WIDTH - 6, 18, f"epochs 0 to {last} of training", "end")]
    for (kind, name), left in zip(LINES, (PLOT_LEFT + 90, PLOT_LEFT)):
        drawn += [path(f"M{left} 14h24", f"line {kind}"), text(left + 31, 18, name, "name")]
    for i, chart in enumerate((("Pred, log scale", "pred", None, None, None),
                               ("spread (untrained: 1)", "spread", 2, None, None),
                               (f"rank (of {jepa.EMBED_DIM})", "rank", 1, jepa.EMBED_DIM, None),
                               ("% right with 1 label", "accuracy", 1, 100, 25))):
        drawn += draw_chart(PLOT_LEFT + i * WIDTH // 4, *chart, seen)
    told = "; ".join("{}: {pred:.5f}, {spread:.2f}, {rank:.1f}, {accuracy:.1f}".format(
        name, **{p["epoch"]: p for p in line}[last]) for (_, name), line in zip(LINES, seen))
    return svg(PLOT_TOP + PLOT_HEIGHT + 26, "The lowest Pred is that of the dead model", "Charts "
               f"over {last} epochs. At the end Pred, spread, rank, % right: {told}.", drawn)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the README's two figures.")
    parser.add_argument("--epochs", type=int, help="of both trainings (default: those of jepa.py)")
    parser.add_argument("--output", default=os.path.join(ROOT, ".github"), metavar="FOLDER")
    options = parser.parse_args()
    seen, labels = run(options.epochs)
    os.makedirs(options.output, exist_ok=True)
    for name, content in (("embeddings.svg", draw_embeddings(seen, labels)),
                          ("collapse.svg", draw_collapse(seen))):
        with open(os.path.join(options.output, name), "w", encoding="utf-8", newline="\n") as file:
            file.write(content)


if __name__ == "__main__":
    main()
