#!/usr/bin/env python3
"""Draw the README's three figures from jepa.py with seed 0.

python3 tests/studies/figure.py   into .github/

data.svg: the patterns, and images with the signs of their patches and a hidden patch.
embeddings.svg: embeddings of new images from epoch 0 to the end, animated by CSS. Where CSS does
not animate it shows the last epoch, and epoch 0 as faint dots. collapse.svg: four figures over time.
"""

import argparse, math, os, random, sys
from dataclasses import replace

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, ROOT)
import jepa  # noqa: E402

SEED, SECONDS = 0, 9
RUNS = {"prediction alone": "prediction alone", "everything": "JEPA"}
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]  # of Okabe and Ito, for color-blind people
SHAPES = ["M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z", "M-3-3h6v6h-6z", "M0-4.4L3.8 2.2h-7.6z",
          "M-4-1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z"]
STYLE = """
text{font:13px -apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#6e7781}
.title{font-size:15px;font-weight:600}.small{font-size:11px}.middle{text-anchor:middle}.end{text-anchor:end}
.frame,.grid{fill:none;stroke:#6e7781;stroke-opacity:.6}.grid{stroke-opacity:.2}
.line{fill:none;stroke-width:2}.r0{stroke-dasharray:5 3}
@media(prefers-color-scheme:dark){text{fill:#9198a1}.frame,.grid{stroke:#9198a1}}
"""

def observe(name, epochs):
    """Train one run of the ablation. Return what is seen at epoch 0 and after some epochs."""
    rng = random.Random(SEED)
    images, _, _ = jepa.draw_dataset(50, rng)
    test_images, _, labels = jepa.draw_dataset(100, rng)
    cfg = replace(jepa.Config(epochs=epochs), **jepa.ABLATION[name])
    points = []

    def look(epoch, losses, model):
        if epoch in (0, 1, 2, epochs) or epoch % 5 == 0:
            x = jepa.embed(test_images, model, cfg)
            rows = jepa.embed_patches(test_images, model, cfg)
            accuracy = jepa.few_shot_accuracy(jepa.nearest_centroid, x, labels, 1, random.Random(SEED))
            points.append({"epoch": epoch, "x": x, "1-shot": 100 * accuracy, "Pred": losses.get("pred"),
                           "std": jepa.embedding_std(rows), "dimensions": jepa.participation_ratio(rows)})

    rng = random.Random(SEED)
    model = jepa.init_model(cfg, rng)
    look(0, {}, model)
    jepa.train(images, cfg, rng, model, on_epoch=look)
    for point in reversed(points):
        point["std"] /= points[0]["std"]
    return points, labels

def center(x):
    """Return the rows of x, each minus their mean."""
    return jepa.add(x, [jepa.average(x)] * len(x), -1.0)

def principal_components(frames):
    """Return the first two principal components of all frames together, by power iteration."""
    columns = jepa.centered_columns([row for frame in frames for row in center(frame)])
    C = jepa.matmul(columns, jepa.transpose(columns))
    axes = []
    for _ in range(2):
        axis = [1.0 / (i + 1) for i in range(len(C))]
        for _ in range(500):
            axis = [jepa.dot(row, axis) for row in C]
            axis = [v / math.hypot(*axis) for v in axis]
        axes.append(axis)
        size = jepa.dot(axis, [jepa.dot(row, axis) for row in C])
        C = [[v - size * a * b for v, b in zip(row, axis)] for row, a in zip(C, axis)]
    return axes

def text(x, y, content, kind=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{content}</text>'

def path(d, more):
    return f'<path d="{d}" {more}/>'

def svg(width, height, title, style, lines):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
    head += f' height="{height}" role="img"><title>{title}</title><style>{STYLE}{style}</style>'
    return "\n".join([head, *lines, "</svg>"]) + "\n"

def draw_embeddings(seen, labels):
    """Return embeddings.svg: two panels with the axes of JEPA, and 25 images of each pattern."""
    side, top = 300, 62
    axes = jepa.transpose(principal_components([point["x"][:100] for point in seen["everything"]]))
    frames = {name: [jepa.matmul(center(point["x"][:100]), axes) for point in seen[name]] for name in RUNS}
    scale = 0.47 * side / max(abs(v) for run in frames.values() for f in run for place in f for v in place)
    steps = len(seen["everything"])
    times = [round(75 * k / (steps - 1), 1) for k in range(steps)] + [100]  # % of the loop, then a rest
    style, lines = [f"use{{animation:{SECONDS}s linear infinite}}"], ["<defs>"]
    for k, shape in enumerate(SHAPES):
        lines.append(path(shape, f'id="m{k}" fill="{COLORS[k]}" fill-opacity=".75"'))
    lines.append("</defs>")
    for r, name in enumerate(RUNS):
        left = 10 + r * (side + 30)
        x, y = left + side / 2, top + side / 2
        lines += [text(x, 18, RUNS[name], "title middle"), text(x, top + side + 16, "PC 1", "small middle"),
                  text(left + 4, top + 13, "PC 2", "small"),
                  path(f"M{left} {top}h{side}v{side}h-{side}z", 'class="frame"')]
        for k, point in enumerate(seen[name]):
            words = "epoch {epoch}: 1-shot accuracy {1-shot:.0f} %, std {std:.2f}".format(**point)
            lines.append(f'<g id="t{r}_{k}">{text(x, 42, words, "middle")}</g>')
            style.append(f"#t{r}_{k}{{opacity:{int(k == steps - 1)};animation:t{r}_{k} {SECONDS}s step-end infinite}}"
                         f"@keyframes t{r}_{k}{{0%{{opacity:{int(k == 0)}}}{times[k]}%{{opacity:1}}"
                         + (f"{times[k + 1]}%{{opacity:0}}" if k < steps - 1 else "") + "}")
        for i in range(100):
            kind = list(jepa.PATTERNS).index(labels[i])
            places = [(x + scale * f[i][0], y - scale * f[i][1]) for f in frames[name]]
            begin, end = [f"{place[0]:.0f},{place[1]:.0f}" for place in (places[0], places[-1])]
            moves = "".join(f"{t}%{{transform:translate({a:.0f}px,{b:.0f}px)}}" for t, (a, b) in zip(times, places))
            style.append(f"#p{r}_{i}{{animation-name:p{r}_{i}}}@keyframes p{r}_{i}{{{moves}}}")
            lines.append(f'<circle r="2" fill="{COLORS[kind]}" opacity=".25" transform="translate({begin})"/>')
            lines.append(f'<use id="p{r}_{i}" href="#m{kind}" transform="translate({end})"/>')
    for kind, pattern in enumerate(jepa.PATTERNS):
        place = f'transform="translate({20 + 110 * kind},{top + side + 40})"'
        lines.append(path(SHAPES[kind], f'fill="{COLORS[kind]}" {place}'))
        lines.append(text(30 + 110 * kind, top + side + 44, pattern))
    lines.append(text(630, top + side + 44, f"seed {SEED}; faint: epoch 0", "small end"))
    still = "@media(prefers-reduced-motion:reduce){use,g{animation:none!important}}"
    return svg(650, top + side + 56, "Embeddings of new images during training", "".join(style) + still, lines)

def draw_collapse(seen):
    """Return collapse.svg: four figures over the epochs, for both runs."""
    lines, last = [], seen["everything"][-1]["epoch"]
    for r, name in enumerate(RUNS):
        lines.append(path(f"M{60 + 170 * r} 14h26", f'class="line r{r}" stroke="{COLORS[1 - r]}"'))
        lines.append(text(92 + 170 * r, 18, RUNS[name]))
    for c, (key, title, ticks) in enumerate((
            ("Pred", "Pred (log scale)", [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]), ("std", "std (untrained: 1)", [0, 0.5, 1]),
            ("dimensions", "dimensions", [0, 2, 4, 6]), ("1-shot", "1-shot, %", [0, 25, 50, 75, 100]))):
        left, top, size = 60 + 200 * c, 62, 120
        log = math.log10 if key == "Pred" else float
        place = lambda v: top + size - size * (log(v) - log(ticks[0])) / (log(ticks[-1]) - log(ticks[0]))
        lines.append(text(left, top - 16, title, "title"))
        for tick in ticks:
            lines.append(path(f"M{left} {place(tick):.1f}h{size}", 'class="grid"'))
            lines.append(text(left - 6, place(tick) + 4, f"{tick:g}", "small end"))
        for at, words in ((0, 0), (size / 2, "epoch"), (size, last)):
            lines.append(text(left + at, top + size + 18, words, "small middle"))
        for r, name in enumerate(RUNS):
            points = [(left + size * p["epoch"] / last, place(p[key])) for p in seen[name] if p[key] is not None]
            d = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            lines.append(path(f"M{d}", f'class="line r{r}" stroke="{COLORS[1 - r]}"'))
    return svg(810, 210, "Collapse: a low error, and nothing learned", "", lines)

def draw_data():
    """Return data.svg: a row of patterns, and a row of images with signs and a hidden patch."""
    images, signs, _ = jepa.draw_dataset(1, random.Random(SEED))
    lines = [text(10, 92, "pattern"), text(10, 232, "image")]
    for c, pattern in enumerate(jepa.PATTERNS):
        for r, image in enumerate((jepa.clean_image(pattern), images[c])):
            left, top = 90 + 140 * c, 30 + 140 * r
            for i, pixel in enumerate(pixel for row in image for pixel in row):
                level = round(255 * min(1, max(0, (pixel + 1) / 2)))
                d = f"M{left + 26 * (i % 4)} {top + 26 * (i // 4)}h26v26h-26z"
                lines.append(path(d, f'fill="rgb({level},{level},{level})"'))
            lines.append(path(f"M{left} {top}h104v104h-104z", 'class="frame"'))
        words = "signs " + " ".join("+" if sign > 0 else "\u2212" for sign in signs[c])
        lines += [path(f"M{left + 52} {top + 52}h52v52h-52z", 'fill="#9a6700"'),
                  f'<text x="{left + 78}" y="{top + 84}" class="title middle" style="fill:#fff">?</text>',
                  text(left + 52, top + 122, words, "small middle"), text(left + 52, 20, pattern, "middle")]
    return svg(650, 304, "Four patterns, and images whose patches have random signs", "", lines)

def main():
    parser = argparse.ArgumentParser(description="Draw the README's figures.")
    parser.add_argument("--epochs", type=int, default=50, help="of each training (default 50)")
    parser.add_argument("--output", default=os.path.join(ROOT, ".github"), metavar="FOLDER")
    options = parser.parse_args()
    runs = {name: observe(name, options.epochs) for name in RUNS}
    seen, labels = {name: points for name, (points, _) in runs.items()}, runs["everything"][1]
    for name, content in (("data.svg", draw_data()), ("embeddings.svg", draw_embeddings(seen, labels)),
                          ("collapse.svg", draw_collapse(seen))):
        with open(os.path.join(options.output, name), "w", encoding="utf-8", newline="\n") as file:
            file.write(content)

if __name__ == "__main__":
    main()
