"""The program and its pages: the demo, the command line, sessions, README, RESULTS, scripts."""

import ast, contextlib, io, json, os, re, runpy, signal, subprocess, sys, tempfile, time, unittest, xml.etree.ElementTree
from unittest import mock

import jepa
from tests.support import PROGRAM, ROOT, demo_output, printed, read, run, start_demo

PATTERNS, STUDIES = list(jepa.PATTERNS), os.path.join("tests", "studies")

start_demo()  # on import, so that it runs beside the tests of all files

def blocks(kind):
    """Return the fenced blocks of a kind in the README."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", read("README.md"), re.MULTILINE | re.DOTALL)

def recorded(name, row):
    """Return {figure: (mean, worst, best)} of a row of a recorded study, and its first line."""
    block = re.search(rf"^{re.escape(row)}: .*\n((?:    .*\n)+)", read(STUDIES, "recorded", name), re.M)
    found = re.findall(r"^    (\S.*?)\s+(-?[\d.]+)  worst\s*(-?[\d.]+)  best\s*(-?[\d.]+)", block.group(1), re.M)
    return {figure: tuple(map(float, values)) for figure, *values in found}, block.group(0)

class Demo(unittest.TestCase):
    def test_the_lines_of_the_seed_stand_in_its_order_and_format(self):
        number, epochs, position = r"-?\d+\.\d{3}", jepa.Config().epochs, 0
        for line in ("VibeML Micro JEPA - Learning Representations via Prediction", "={60}",
                     r"Generated 200 training images \(4x4\)", "Architecture: 2x2 patches -> 6-dim embeddings",
                     rf"Training for {epochs} epochs\.\.\.", r"Learning rate: 0.02, EMA momentum: 0\.\d+", "-{60}",
                     r"Epoch    1 \| Loss: \d\.\d{4} \| Pred: \d\.\d{4} \| Var: \d\.\d{4} \| .*R2: -?\d\.\d\d",
                     rf"Epoch {epochs:4} \| Loss: .*", "Representation Quality Test", "={60}",
                     "Embeddings for different patterns:",
                     *[rf"{name:12}: \[ *{number}(, *{number}){{5}}\]" for name in PATTERNS],
                     "Cosine similarities between patterns:", " {12}" + "  ".join(f"{n:>10}" for n in PATTERNS),
                     *[rf"{name:10}( *{number}){{4}}" for name in PATTERNS],
                     r"Linear Probe Test: \d+(\.\d+)?% accuracy on downstream classification! \(.*\)"):
            found = re.compile(f"^{line}$", re.MULTILINE).search(demo_output(), position)
            self.assertIsNotNone(found, line)
            position = found.end()

    def test_it_is_the_recorded_output_on_every_interpreter_and_fits_70_lines_of_ascii(self):
        self.assertEqual(demo_output(), read(STUDIES, "recorded", "demo.txt"))
        self.assertLessEqual(len(demo_output().splitlines()), 70)

    def test_the_loss_falls_R2_rises_and_the_terms_add_up(self):
        lines, cfg = re.findall("^Epoch.*", demo_output(), re.MULTILINE), jepa.Config()
        rows = [[float(v) for v in re.findall(r"(?<!R)-?\d+(?:\.\d+)?(?![\w:])", line)] for line in lines]
        self.assertEqual([row[0] for row in rows[:5]], [1, 2, 5, 10, 20])
        for _, loss, pred, var, cov, _ in rows:
            total = cfg.pred_weight * pred + cfg.var_weight * var + cfg.cov_weight * cov
            self.assertAlmostEqual(loss, total, delta=0.01)
        self.assertTrue(rows[-1][1] < 0.5 * rows[0][1] and rows[-1][-1] > rows[0][-1] + 0.5)

    def test_the_row_of_jepa_beats_pixels_the_untrained_encoder_and_the_baseline(self):
        rows = {name: [float(v) for v in re.findall(r"([\d.]+)%", cells)] for name, cells in re.findall(
            r"^(pixels|untrained|no prediction|JEPA) +(.*%)$", demo_output(), re.MULTILINE)}
        best = rows.pop("JEPA")
        for row in (rows["pixels"], rows["untrained"], rows["no prediction"]):
            self.assertTrue(best[0] > row[0] + 10 and best[1] >= row[1] and best[2] > row[2] and best[3] < row[3])
        probes = re.search(r"Linear Probe Test: ([\d.]+)%.*: ([\d.]+)%", demo_output()).groups()
        for probe, row in zip(probes, (best, rows["untrained"])):
            self.assertAlmostEqual(float(probe), row[1], delta=0.051)

    def test_the_ablation_has_words_for_a_point_a_line_and_a_divergence_and_no_others(self):
        rows = {"untrained": jepa.ABLATION["untrained"], "fine": {}, "gone": {"lr": 1e9},
                "no stop-gradient": jepa.ABLATION["no stop-gradient"],
                "point": {**jepa.ABLATION["prediction alone"], "epochs": 5}}
        with mock.patch.object(jepa, "ABLATION", rows), mock.patch.object(jepa, "few_shot_accuracy", lambda *_: 0.5):
            line = [[float(i), 2.0 * i] for i in range(1600)]
            text = printed(jepa.collapse, jepa.Config(epochs=1), 0)
            with mock.patch.object(jepa, "embed_patches", lambda images, *_: line[: 4 * len(images)]):
                on_a_line = printed(jepa.collapse, jepa.Config(epochs=1), 0)
        for row in (r"untrained .* +1\.00 .*\d%", r"fine .*\d%", "gone +diverged", "point .*  all in one point"):
            self.assertRegex(text, f"(?m)^{row} *$")
        self.assertRegex(on_a_line, r"(?m)^fine .*  on a line$")

class Sessions(unittest.TestCase):
    def test_wrong_options_are_refused_and_a_seed_changes_the_output(self):
        for arguments in (("--seed", "-1"), ("--epochs", "9"), ("--seed", "x")):
            result = run(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertIn(arguments[0], result.stderr.splitlines()[-1])
        texts = []
        for seed in ("0", "1"):
            options, rows = ["jepa.py", "--seed", seed, "--collapse"], {"untrained": {"epochs": 1}}
            with mock.patch.object(sys, "argv", options), mock.patch.object(jepa, "ABLATION", rows):
                texts.append(printed(jepa.main))
        self.assertNotEqual(*texts)

    @unittest.skipIf(os.name == "nt", "signals and pipes of POSIX")
    def test_an_interrupt_and_a_closed_pipe_end_it_quietly(self):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits that it is ignored
        process = subprocess.Popen([sys.executable, "-u", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        self.assertEqual((process.communicate(timeout=60)[1], process.returncode), (b"", 130))
        command = f'"{sys.executable}" "{PROGRAM}" | head -1; exit ${{PIPESTATUS[0]}}'
        piped = run(command=("bash", "-c", command))
        self.assertEqual(piped.stderr, "")
        self.assertNotEqual(piped.returncode, 0)

    def test_a_divergence_ends_the_program_in_one_line(self):
        source = read("jepa.py").replace("lr: float = 0.02", "lr: float = 1e6")
        result = run(command=(sys.executable, "-c", source))
        self.assertEqual((len(result.stderr.splitlines()), result.returncode), (1, 1))
        self.assertIn("diverged", result.stderr)

    def test_every_function_uses_only_functions_above_it(self):
        tree = ast.parse(read("jepa.py"))
        self.assertFalse({"random", "math", "copy"} & set(vars(jepa)), "import * would replace a user's module")
        later = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        for node in tree.body:
            later.discard(getattr(node, "name", ""))
            used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
            self.assertFalse(used & later, getattr(node, "name", ""))

class Pages(unittest.TestCase):
    def assertTable(self, rows, figures, *page):
        """Assert that a page has a table row of each label with the figures of a recorded study."""
        for label, (name, row) in rows.items():
            cells, (values, _) = f"| {label} |", recorded(name, row)
            for figure, factor, digits in figures:
                mean, worst, _ = (factor * v for v in values[figure])
                cells += f" {mean:.{digits}f} ({worst:.{digits}f}) |"
            self.assertIn(cells, read(*page or ["README.md"]))

    def test_the_tables_of_the_pages_have_the_recorded_figures(self):
        study, percent = "study.txt", [("1-shot", 100, 1), ("linear probe", 100, 1)]
        self.assertTable({"pixels": ("fixed_1000.txt", "all 16 pixels"), "untrained encoder": ("fixed_1000.txt", "untrained"),
                          "no prediction": ("baseline_1000.txt", "no prediction"),
                          "**JEPA**": ("jepa_1000.txt", "JEPA")}, percent)
        self.assertTable({"everything (JEPA)": (study, "JEPA"), **{name: (study, name) for name in list(jepa.ABLATION)[2:]}},
                         [("Pred", 1, 5), ("R2", 1, 2), ("std", 1, 2), ("dimensions", 1, 1), ("sign", 100, 1),
                          ("1-shot", 100, 1)])
        rows = re.findall("^(.+): .* diverged$", read(STUDIES, "recorded", study), re.MULTILINE)
        self.assertTable({row: (study, row) for row in rows}, [("1-shot", 100, 1), ("5-shot", 100, 1), *percent[1:]],
                         STUDIES, "RESULTS.md")
        for line in read(STUDIES, "recorded", "digits.txt").splitlines()[1:]:
            name, cells = line[:24].strip(), re.findall(r"[\d.]+ \([\d.]+\)", line)
            if "predictor" not in name:
                label = "**JEPA**" if name == "JEPA" else name
                self.assertIn(f"| {label} | " + " | ".join(cells), read("README.md"))

    def test_the_numbers_in_the_text_are_the_recorded_ones(self):
        text, results, source = read("README.md"), read(STUDIES, "RESULTS.md"), read("jepa.py")
        JEPA, base, untrained = [recorded(name, row)[0] for name, row in (
            ("jepa_1000.txt", "JEPA"), ("baseline_1000.txt", "no prediction"), ("fixed_1000.txt", "untrained"))]
        short, strong, tuned, no_var, stopped = [recorded("study.txt", row)[0] for row in (
            "JEPA", "strong Var", "no prediction, tuned", "no Var", "no EMA, Var or Cov")]
        cfg, (mean, worst, _) = jepa.Config(), stopped["1-shot"]
        at_seed_0 = re.findall("no stop-gradient .*", read(STUDIES, "recorded", "collapse.txt"))[0].split()[5]
        gaps = [f"{100 * (JEPA[figure][0] - other[figure][0]):.0f} points" for figure, other in
                (("1-shot", base), ("1-shot", tuned), ("linear probe", base), ("linear probe", tuned))]
        shares = [f"| {figure} | " + " | ".join(f"{100 * row[figure][0]:.0f}" for row in (untrained, base, JEPA)) + " |"
                  for figure in ("sign", "pattern")]
        slow = recorded("strong_1000.txt", "strong Var")[1].split("below 95 %: ")[1].split()[0]
        for words in (*gaps, *shares, f"{slow} of 1,000 seeds", f"uses {at_seed_0} dimensions", f"{100 * mean:.1f} ({100 * worst:.1f}) %",
                      f"{cfg.pred_weight:g} Pred + {cfg.var_weight:g} Var + {cfg.cov_weight:g} Cov",
                      f"{JEPA['R2'][0]:.2f}", f"{100 * JEPA['retrieved'][0]:.0f} %",
                      f"{100 * strong['sign'][0]:.1f} %", f"{100 * short['sign'][0]:.0f} %",
                      *[f"{100 * value:.0f} %" for value in no_var["1-shot"][:2]]):
            self.assertIn(words, text)
        source = source[source.index("\nABLATION ="):]
        told = re.findall(r"  # std ([\d.]+), dims ([\d.]+), ([\d.]+) %(?:; (\d+) diverged)?\n", source)
        self.assertEqual(len(told), len(jepa.ABLATION))
        for row, cells in zip(jepa.ABLATION, told):
            figures, block = recorded("study.txt", row.replace("everything", "JEPA"))
            self.assertEqual(cells, (f"{figures['std'][0]:.2f}", f"{figures['dimensions'][0]:.1f}",
                                     f"{100 * figures['1-shot'][0]:.1f}", re.sub("^0$", "", block.split(": ")[1].split()[0])), row)
        dims = {row: cells[1] for row, cells in zip(jepa.ABLATION, told)}
        lost = [recorded("no_cov_100.txt", row)[1].split(": ")[1].split()[0] for row in ("no Cov", "no Var, no Cov", "no EMA, Var or Cov")]
        measured = {told[9][0], told[2][2], told[1][2], *lost, min([*dims.values()][5:9]), max([*dims.values()][5:9]),
                    *[dims[row] for row in ("everything", "no EMA", "no stop-gradient", "prediction alone", "strong Var")]}
        for figures in [recorded("study.txt", row)[0] for row in ("no EMA", "no stop-gradient")]:
            measured.add(f"{figures['loss, last epoch'][0]:.2f}")
        line = {"0", "0.1", "2", "4", "6", "5", "30", "0.0005", "100", "0.05", "0.4", "256"}  # what a line costs, 100 seeds
        self.assertEqual({*re.findall(r"\d+(?:\.\d+)?", source[source.index("\n}\n") : source.index("\ndef collapse")])}, measured | line)
        halved, block = recorded("no_cov_lr.txt", "no Cov")
        for page, words in ((text, "{1} of 100.{{9,40}} {2} "), (results, "100 seeds, {} .{{9,40}} {} .{{9,40}} {} ")):
            self.assertRegex(page, "(?s)" + words.format(*lost))
        for words in (re.findall(r"jepa.py +(\d+\.\d s)\n", read(STUDIES, "recorded", "bench.txt"))[0] + " on CPython 3.11", *gaps[:2], *["recorded/" + name for name in os.listdir(os.path.join(ROOT, STUDIES, "recorded"))],
                      "{:.1f} ({:.1f}) %".format(*[100 * v for v in halved["1-shot"]]), "rate none does" if ": 0 of" in block else "rate some"):
            self.assertIn(words, results)

    def test_commands_links_and_pictures_are_real(self):
        for page, folder in (("README.md", ""), (os.path.join(STUDIES, "RESULTS.md"), STUDIES)):
            for target in re.findall(r"\]\(([^)#]+)\)", read(page)):
                self.assertTrue(target.startswith("http") or os.path.exists(os.path.join(ROOT, folder, target)), target)
            for command in set(re.findall(r"python3 ([\w/]+\.py)((?: --[a-z]+)?)", read(page))):
                self.assertIn(command[1].strip() or "help", run("--help", command=(sys.executable, os.path.join(
                    ROOT, command[0]))).stdout)
        for picture in [read(".github", f"{name}.svg") for name in ("data", "embeddings", "collapse")]:
            xml.etree.ElementTree.fromstring(picture)
            self.assertLess(len(picture), 150000)

    def test_the_snippets_run_one_after_the_other_in_one_session_and_the_core_is_jepa_forward(self):
        names, here = {}, os.getcwd()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            os.chdir(folder)
            try:
                for snippet in blocks("python"):
                    with contextlib.suppress(ImportError if "matplotlib" in snippet else ()):
                        exec(snippet, names)
                self.assertEqual(json.loads(read(folder, "model.json")), names["model"])
            finally:
                os.chdir(here)
        image = [[0.1 * row - 0.2 * column for column in range(4)] for row in range(4)]
        for masks in (([0, 1, 2], [3]), ([3, 1], [0, 2])):
            self.assertAlmostEqual(names["jepa_forward"](image, *masks), jepa.jepa_forward(image, *masks), 14)

    def test_the_scripts_run_and_each_exercise_finds_its_line(self):
        with tempfile.TemporaryDirectory() as folder:
            for script, words in (("study.py --seeds 1 --epochs 1 --only JEPA --set gamma=0.2", "gamma=0.2"),
                                  (f"figure.py --epochs 1 --output {folder}", ""), ("bench.py --rounds 1", "jepa.py")):
                name, *options = script.split()
                result = run(*options, command=(sys.executable, os.path.join(ROOT, STUDIES, name)))
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn(words, result.stdout)
            self.assertEqual(len(os.listdir(folder)), 3)
        exercises = runpy.run_path(os.path.join(ROOT, STUDIES, "exercises.py"))
        for name in exercises["EXERCISES"]:
            exercises["changed"](name)
