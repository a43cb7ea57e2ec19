#!/usr/bin/env python3
"""Draw the README's three figures from jepa.py with seed 0.

python3 tests/studies/figure.py                       into .github/
python3 tests/studies/figure.py --epochs 5 --output .

data.svg: the patterns, and images with the signs of their patches and a hidden patch.
embeddings.svg: embeddings of new images from epoch 0 to the end, animated by CSS. Where CSS does not
animate it shows the last epoch, and epoch 0 as faint dots. collapse.svg: four figures over the epochs.
"""

import argparse
import math
import os
import random
import sys
from dataclasses import replace

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, ROOT)
import jepa  # noqa: E402

SEED = 0
RUNS = ("prediction alone", "everything")
NAMES = {"everything": "JEPA", "prediction alone": "prediction alone"}
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]  # Okabe and Ito: for color-blind people, too
SHAPES = [
    "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",
    "M-3-3h6v6h-6z",
    "M0-4.4L3.8 2.2h-7.6z",
    "M-4-1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z",
]
STYLE = """
text{font:13px -apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#59636e}
.title{font-size:15px;font-weight:600}.small{font-size:11px}.middle{text-anchor:middle}.end{text-anchor:end}
.frame,.grid{fill:none;stroke:#59636e;stroke-opacity:.6}.grid{stroke-opacity:.2}
.line{fill:none;stroke-width:2}.r0{stroke-dasharray:5 3}
@media(prefers-color-scheme:dark){text{fill:#9198a1}.frame,.grid{stroke:#9198a1}}
"""


def observe(name, epochs, every):
    """Train one run of the ablation. Return what is seen at epoch 0 and after some epochs."""
    rng = random.Random(SEED)
    images, _, _ = jepa.draw_dataset(50, rng)
    test_images, _, labels = jepa.draw_dataset(100, rng)
    cfg = replace(jepa.Config(epochs=epochs), **jepa.ABLATION[name])
    points = []

    def look(epoch, losses, model):
        if epoch in (0, 1, 2, epochs) or epoch % every == 0:
            patch_rows = jepa.embed_patches(test_images, model, cfg)
            x = jepa.embed(test_images, model, cfg)
            accuracy = jepa.few_shot_accuracy(jepa.nearest_centroid, x, labels, 1, random.Random(SEED))
            std = jepa.embedding_std(patch_rows)
            point = {"epoch": epoch, "x": x, "1-shot": 100 * accuracy, "std": std}
            point["dimensions"] = jepa.participation_ratio(patch_rows)
            points.append({**point, "Pred": losses.get("pred")})

    rng = random.Random(SEED)
    model = jepa.init_model(cfg, rng)
    look(0, {}, model)
    jepa.train(images, cfg, rng, model, on_epoch=look)
    for point in reversed(points):
        point["std"] /= points[0]["std"]
    return points, labels


def principal_components(frames):
    """Return the first two principal axes of all frames together, by power iteration."""
    rows = []
    for x in frames:
        mean = jepa.average(x)
        rows += [[v - m for v, m in zip(row, mean)] for row in x]
    C = jepa.covariance(rows)
    axes = []
    for _ in range(2):
        axis = [1.0 / (i + 1) for i in range(len(C))]
        for _ in range(500):
            axis = [jepa.dot(row, axis) for row in C]
            length = math.hypot(*axis)
            axis = [v / length for v in axis]
        axes.append(axis)
        size = jepa.dot(axis, [jepa.dot(row, axis) for row in C])
        C = [[v - size * a * b for v, b in zip(row, axis)] for row, a in zip(C, axis)]
    return axes


def project(frames):
    """Return for each frame the places [n][2] of its embeddings, from their mean."""
    axes = principal_components(frames)
    places = []
    for x in frames:
        mean = jepa.average(x)
        centered = [[v - m for v, m in zip(row, mean)] for row in x]
        places.append([[jepa.dot(row, axis) for axis in axes] for row in centered])
    return places


def text(x, y, content, kind=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{content}</text>'


def svg(width, height, title, style, lines):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
    head += f' height="{height}" role="img"><title>{title}</title><style>{STYLE}{style}</style>'
    return "\n".join([head, *lines, "</svg>"]) + "\n"


def draw_embeddings(seen, labels):
    """Return embeddings.svg: two panels, one scale, moving from epoch 0 to the end."""
    chosen = [i for i in range(len(labels)) if i < 100]  # 25 images of each pattern
    side, top, seconds = 300, 62, 9
    frames = {name: project([[p["x"][i] for i in chosen] for p in seen[name]]) for name in RUNS}
    reach = max(abs(v) for run in frames.values() for frame in run for place in frame for v in place)
    scale = 0.47 * side / reach
    steps = len(seen["everything"])
    times = [round(75 * k / (steps - 1), 1) for k in range(steps)]  # % of the loop; then it rests
    style = [f"use{{animation:{seconds}s linear infinite}}"]
    lines = ["<defs>"]
    for k, shape in enumerate(SHAPES):
        lines.append(f'<path id="m{k}" d="{shape}" fill="{COLORS[k]}" fill-opacity=".75"/>')
    lines.append("</defs>")
    for r, name in enumerate(RUNS):
        left = 10 + r * (side + 30)
        x, y = left + side / 2, top + side / 2
        last = seen[name][-1]
        lines.append(text(x, 18, NAMES[name], "title middle"))
        lines.append(f'<path d="M{left} {top}h{side}v{side}h-{side}z" class="frame"/>')
        lines.append(text(x, top + side + 16, "PC 1", "small middle"))
        lines.append(text(left + 4, top + 13, "PC 2", "small"))
        for k, point in enumerate(seen[name]):
            begin, end = times[k], times[k + 1] if k + 1 < steps else 100
            words = f"epoch {point['epoch']}: 1-shot accuracy {point['1-shot']:.0f} %, std {point['std']:.2f}"
            style.append(f"#t{r}_{k}{{opacity:{int(point is last)};animation:t{r}_{k} {seconds}s step-end infinite}}")
            on = f"{begin}%{{opacity:1}}" + (f"{end}%{{opacity:0}}" if end < 100 else "")
            style.append(f"@keyframes t{r}_{k}{{0%{{opacity:{int(k == 0)}}}{on}}}")
            lines.append(f'<g id="t{r}_{k}">{text(x, 42, words, "middle")}</g>')
        for i, index in enumerate(chosen):
            kind = list(jepa.PATTERNS).index(labels[index])
            path = [(x + scale * f[i][0], y - scale * f[i][1]) for f in frames[name]]
            lines.append(f'<circle cx="{path[0][0]:.0f}" cy="{path[0][1]:.0f}" r="2" fill="{COLORS[kind]}" opacity=".25"/>')
            moves = "".join(f"{t}%{{transform:translate({a:.0f}px,{b:.0f}px)}}" for t, (a, b) in zip(times, path))
            style.append(f"#p{r}_{i}{{animation-name:p{r}_{i}}}@keyframes p{r}_{i}{{{moves}}}")
            place = f"{path[-1][0]:.0f},{path[-1][1]:.0f}"
            lines.append(f'<use id="p{r}_{i}" href="#m{kind}" transform="translate({place})"/>')
    for kind, pattern in enumerate(jepa.PATTERNS):
        lines.append(f'<path d="{SHAPES[kind]}" fill="{COLORS[kind]}" transform="translate({20 + 110 * kind},{top + side + 40})"/>')
        lines.append(text(30 + 110 * kind, top + side + 44, pattern))
    lines.append(text(630, top + side + 44, f"seed {SEED}; one scale", "small end"))
    still = "@media(prefers-reduced-motion:reduce){use,g{animation:none!important}}"
    return svg(650, top + side + 56, "Embeddings of new images during training", "".join(style) + still, lines)


def draw_collapse(seen):
    """Return collapse.svg: four figures over the epochs, for both runs."""
    lines = []
    for r, name in enumerate(RUNS):
        lines.append(f'<path d="M{60 + 170 * r} 14h26" class="line r{r}" stroke="{COLORS[1 - r]}"/>')
        lines.append(text(92 + 170 * r, 18, NAMES[name]))
    last = seen["everything"][-1]["epoch"]
    for c, (key, ticks) in enumerate((("Pred", [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]), ("std", [0, 0.5, 1]),
                                      ("dimensions", [0, 2, 4, 6]), ("1-shot", [0, 25, 50, 75, 100]))):
        left, top, width, height = 60 + 200 * c, 62, 120, 120
        log = math.log10 if key == "Pred" else float
        low, high = log(ticks[0]), log(ticks[-1])
        place = lambda v: top + height - height * (log(v) - low) / (high - low)
        title = {"Pred": "Pred (log scale)", "std": "std (untrained: 1)", "1-shot": "1-shot, %"}.get(key, key)
        lines.append(text(left, top - 16, title, "title"))
        for tick in ticks:
            lines.append(f'<path d="M{left} {place(tick):.1f}h{width}" class="grid"/>')
            lines.append(text(left - 6, place(tick) + 4, f"{tick:g}", "small end"))
        for epoch in (0, last):
            lines.append(text(left + width * epoch / last, top + height + 18, epoch, "small middle"))
        lines.append(text(left + width / 2, top + height + 18, "epoch", "small middle"))
        for r, name in enumerate(RUNS):
            points = [(left + width * p["epoch"] / last, place(p[key])) for p in seen[name] if p[key] is not None]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            lines.append(f'<path d="M{path}" class="line r{r}" stroke="{COLORS[1 - r]}"/>')
    return svg(810, 210, "Collapse: the lowest error, and nothing learned", "", lines)


def draw_data():
    """Return data.svg: a row of patterns, and a row of images with signs and a hidden patch."""
    rng = random.Random(SEED)
    images, signs, _ = jepa.draw_dataset(1, rng)
    lines = [text(10, 92, "pattern"), text(10, 232, "image")]
    for c, pattern in enumerate(jepa.PATTERNS):
        for r, image in enumerate((jepa.clean_image(pattern), images[c])):
            left, top = 90 + 140 * c, 30 + 140 * r
            for row in range(4):
                for column in range(4):
                    level = round(255 * min(1, max(0, (image[row][column] + 1) / 2)))
                    place = f'x="{left + 26 * column}" y="{top + 26 * row}" width="26" height="26"'
                    lines.append(f'<rect {place} fill="rgb({level},{level},{level})"/>')
            lines.append(f'<path d="M{left} {top}h104v104h-104z" class="frame"/>')
            if r:
                lines.append(f'<rect x="{left + 52}" y="{top + 52}" width="52" height="52" fill="#bf8700"/>')
                lines.append(f'<text x="{left + 78}" y="{top + 84}" class="title middle" style="fill:#fff">?</text>')
                words = "signs " + " ".join("+" if sign > 0 else "\u2212" for sign in signs[c])
                lines.append(text(left + 52, top + 122, words, "small middle"))
            else:
                lines.append(text(left + 52, 20, pattern, "middle"))
    return svg(650, 304, "Four patterns, and images whose patches have random signs", "", lines)


def main():
    parser = argparse.ArgumentParser(description="Draw the README's figures.")
    parser.add_argument("--epochs", type=int, default=50, help="of each training (default 50)")
    parser.add_argument("--output", default=os.path.join(ROOT, ".github"), metavar="FOLDER")
    options = parser.parse_args()
    runs = {name: observe(name, options.epochs, 5) for name in RUNS}
    seen, labels = {name: points for name, (points, _) in runs.items()}, runs["everything"][1]
    drawings = {"data.svg": draw_data(), "embeddings.svg": draw_embeddings(seen, labels), "collapse.svg": draw_collapse(seen)}
    for name, content in drawings.items():
        with open(os.path.join(options.output, name), "w", encoding="utf-8", newline="\n") as file:
            file.write(content)


if __name__ == "__main__":
    main()
