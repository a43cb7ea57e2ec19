"""The command line: the real program, run as a subprocess, in every kind of surroundings."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

import jepa
from tests.interpreters import find_interpreters
from tests.support import HERE, PROGRAM, ROOT, demo_output, run, start_demo

SHORT = ("--seed", "1", "--epochs", "2")
with open(os.path.join(HERE, "expected_seed_1_epochs_2.txt"), encoding="ascii") as expected_file:
    EXPECTED = expected_file.read()


def setUpModule():
    start_demo()


class TheDemo(unittest.TestCase):
    def test_a_short_run_prints_the_recorded_text(self):
        result = run(*SHORT)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(result.stdout, EXPECTED)

    def test_another_seed_prints_another_text(self):
        self.assertNotEqual(run("--seed", "2", "--epochs", "2").stdout, EXPECTED)

    def test_every_interpreter_found_here_prints_the_same_bytes(self):
        outputs = {}

        def collect(path, name):
            result = subprocess.run(
                [path, PROGRAM, *SHORT],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
            )
            outputs[name] = result.stdout.decode("ascii").replace("\r\n", "\n") + result.stderr.decode()

        waiting = find_interpreters()
        while waiting:
            threads = [
                threading.Thread(target=collect, args=waiting.pop()) for _ in range(min(2, len(waiting)))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertGreaterEqual(len(outputs), 1)
        for name, output in outputs.items():
            self.assertEqual(output, EXPECTED, name)

    def test_the_lines_of_the_seed_stand_in_its_order_and_format(self):
        text = demo_output()
        number = r"-?\d+\.\d{3}"
        patterns = [
            r"^VibeML Micro JEPA - Learning Representations via Prediction$",
            r"^={60}$",
            r"^Generated 200 training images \(4x4\)$",
            r"^Architecture: 2x2 patches -> 6-dim embeddings$",
            r"^Training for 500 epochs\.\.\.$",
            r"^Learning rate: 0\.02, EMA momentum: 0\.99$",
            r"^-{60}$",
            r"^Epoch   50"
            + "".join(rf" \| {term}: \d+\.\d{{4}}" for term in ("Loss", "Pred", "Var", "Cov"))
            + r" \| Rank: \d\.\d\d$",
            r"^Epoch  500 \| Loss: ",
            r"^Representation Quality Test$",
            r"^={60}$",
            r"^Embeddings for different patterns:$",
        ]
        patterns += [rf"^{name:12}: \[ *{number}(, *{number}){{5}}\]$" for name in jepa.PATTERNS]
        patterns += [
            r"^Cosine similarities between patterns:$",
            r"^            h_gradient  v_gradient     checker     uniform$",
        ]
        patterns += [rf"^{name:10}( *{number}){{4}}$" for name in jepa.PATTERNS]
        patterns += [r"^Linear Probe Test: \d+(\.\d+)?% accuracy on downstream classification!$"]
        position = 0
        for pattern in patterns:
            found = re.compile(pattern, re.MULTILINE).search(text, position)
            self.assertIsNotNone(found, pattern)
            position = found.end()

    def epochs(self):
        """The numbers of the Epoch lines: [(epoch, loss, pred, var, cov, rank)]."""
        return [
            tuple(map(float, re.findall(r"\d+(?:\.\d+)?", line)))
            for line in demo_output().splitlines()
            if line.startswith("Epoch")
        ]

    def test_a_line_every_50_epochs_whose_terms_add_up_to_a_falling_loss(self):
        lines = self.epochs()
        self.assertEqual([int(line[0]) for line in lines], list(range(50, 501, 50)))
        for _, loss, pred, var, cov, rank in lines:
            self.assertAlmostEqual(loss, pred + var + cov, delta=0.00021)
            self.assertTrue(1.0 <= rank <= 6.0)
        self.assertLess(lines[-1][1], lines[0][1])
        self.assertGreater(lines[-1][5], 5.0)

    def test_the_last_epoch_has_a_line_even_where_50_does_not_divide_it(self):
        self.assertIn("\nEpoch    2 | Loss: ", EXPECTED)
        self.assertNotIn("\nEpoch    1 |", EXPECTED)

    def test_the_printed_loss_is_the_loss_that_training_returns(self):
        images, _, _, _ = jepa.draw_data(1)
        model = jepa.init_model(rng=random.Random(1))
        history = jepa.train(
            images,
            2,
            rng=random.Random(1),
            model=model,
            on_epoch=lambda epoch, losses: jepa.round_weights(model),
        )
        losses = history[-1]
        self.assertIn(
            f"Loss: {losses['loss']:.4f} | Pred: {jepa.PRED_WEIGHT * losses['pred']:.4f} "
            f"| Var: {jepa.VAR_WEIGHT * losses['var']:.4f} | Cov: {jepa.COV_WEIGHT * losses['cov']:.4f} |",
            EXPECTED,
        )

    def table(self, title):
        """The numbers of a table's rows, by the name of the row."""
        rows = demo_output().split(title)[1]
        found = re.findall(r"^(pixels \(16\)|untrained encoder|JEPA) +(.*)$", rows, re.MULTILINE)
        return {name: [float(cell.rstrip("%")) for cell in cells.split()] for name, cells in reversed(found)}

    def test_one_label_is_enough_for_jepa_and_not_for_pixels_or_the_untrained_encoder(self):
        rows = self.table("Accuracy on held-out images")
        for name in ("pixels (16)", "untrained encoder"):
            self.assertGreater(rows["JEPA"][0], rows[name][0] + 40)
        probe = re.search(r"Linear Probe Test: ([\d.]+)%", demo_output()).group(1)
        self.assertAlmostEqual(float(probe), rows["JEPA"][3], delta=0.051)

    def test_training_keeps_the_pattern_and_drops_the_brightness(self):
        rows = self.table("What it keeps and what it drops")
        self.assertGreater(rows["JEPA"][0], rows["untrained encoder"][0] + 0.2)
        self.assertLess(rows["JEPA"][1], rows["untrained encoder"][1] - 0.2)

    def test_patterns_that_were_one_blur_before_training_have_directions_of_their_own_after(self):
        before, after = [
            [
                float(v)
                for v in re.findall(r"-?\d\.\d{3}", part.split("Each patch")[0].split("Training for")[0])
            ]
            for part in demo_output().split("Cosine similarities between patterns:")[1:]
        ]
        self.assertEqual((len(before), len(after)), (16, 16))
        off_diagonal = [(b, a) for i, (b, a) in enumerate(zip(before, after)) if i % 5]
        self.assertGreater(min(b for b, _ in off_diagonal), 0.8)
        self.assertLess(max(a for _, a in off_diagonal), 0.8)

    def test_it_prints_plain_ascii_and_no_line_is_wider_than_100_characters(self):
        for text in (
            demo_output(),
            EXPECTED,
            run("--help").stdout,
            run("--collapse", "--epochs", "1").stdout,
        ):
            self.assertTrue(text.isascii())
            self.assertTrue(text.endswith("\n"))
            self.assertLessEqual(max(map(len, text.splitlines())), 100)


class Options(unittest.TestCase):
    def test_help_says_what_each_option_does(self):
        result = run("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for words in (
            "--seed N",
            "--epochs N",
            "--collapse",
            "default: 0",
            "default: 500",
            "take parts away",
        ):
            self.assertIn(words, result.stdout)

    def test_wrong_options_are_refused_in_one_line_with_exit_code_2(self):
        for arguments in (
            ["--speed"],
            ["--seed"],
            ["--seed", "x"],
            ["--seed", "-1"],
            ["--seed", "1.5"],
            ["--seed", "\u00b2"],
            ["--epochs", "-1"],
            ["--epochs", "many"],
            ["--epochs", ""],
            ["--epo", "3"],
            ["3"],
            ["--collapse", "--epochs", "0"],
            ["--seed", "1\n2"],
        ):
            with self.subTest(arguments):
                result = run(*arguments)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                self.assertTrue(result.stderr.startswith("jepa.py: ") and result.stderr.isascii())

    def test_no_epochs_show_the_untrained_encoder_twice(self):
        text = run("--epochs", "0").stdout
        self.assertNotIn("Epoch ", text)
        rows = re.findall(r"^(?:untrained encoder|JEPA) +(.*)$", text, re.MULTILINE)
        self.assertEqual(len(rows), 6)
        self.assertEqual(rows[::2], rows[1::2])

    def test_collapse_prints_a_row_for_each_variant_after_the_rule_of_the_verdict(self):
        result = run("--collapse", "--seed", "0", "--epochs", "15")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        rule, table = result.stdout.split("verdict\n")
        self.assertIn("below 10% of the untrained", rule)
        self.assertIn("below 2.5 of 6", rule)
        rows = table.split("\n\n")[0].splitlines()
        self.assertEqual([row[:24].strip() for row in rows], [name for name, _ in jepa.VARIANTS])
        verdicts = {row[:24].strip(): row.split("%  ")[-1] for row in rows}
        self.assertEqual(verdicts["everything on"], "alive")
        self.assertEqual(verdicts["none of the four"], "TOTAL COLLAPSE")
        for row in rows:
            name, verdict = row[:24].strip(), row.split("%  ")[-1]
            share, rank = row[24:].split()[2:4]
            share, rank = float(share.rstrip("%")), float(rank)
            expected = "TOTAL COLLAPSE" if share < 10 else "DIMENSIONAL COLLAPSE" if rank < 2.5 else "alive"
            self.assertEqual(verdict, expected, name)


class Surroundings(unittest.TestCase):
    def check(self, arguments, **options):
        """A short run in these surroundings prints the recorded text, and nothing on stderr."""
        result = subprocess.run(
            arguments + list(SHORT), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, **options
        )
        self.assertEqual(result.stderr.decode(), "")
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stdout.decode("ascii").replace("\r\n", "\n"), EXPECTED)

    def test_it_runs_isolated_with_an_empty_environment(self):
        environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        self.check([sys.executable, "-I", "-S", PROGRAM], env=environment)

    def test_it_runs_optimised_without_docstrings_and_with_warnings_as_errors(self):
        self.check([sys.executable, "-OO", "-W", "error", "-X", "utf8", "-B", PROGRAM])
        self.check([sys.executable, "-O", PROGRAM])

    def test_it_prints_on_consoles_that_know_only_ascii_or_cp1252(self):
        for settings in (
            {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
            {"PYTHONIOENCODING": "cp1252"},
        ):
            self.check([sys.executable, PROGRAM], env=dict(os.environ, **settings))

    def test_it_is_read_from_standard_input(self):
        with open(PROGRAM, "rb") as source:
            self.check([sys.executable, "-"], stdin=source, env=dict(os.environ, LC_ALL="C"))

    def test_it_runs_from_a_folder_that_it_may_not_write_to_and_leaves_no_file(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(PROGRAM, folder)
            os.chmod(folder, 0o555)
            try:
                self.check([sys.executable, "jepa.py"], cwd=folder)
                self.assertEqual(os.listdir(folder), ["jepa.py"])
            finally:
                os.chmod(folder, 0o755)

    @unittest.skipUnless(hasattr(sys, "addaudithook"), "this interpreter has no audit hooks")
    def test_it_writes_no_file_and_opens_no_socket(self):
        watch = (
            "import runpy, sys\n"
            "def hook(event, arguments):\n"
            "    named = ('os.mkdir', 'os.remove', 'os.rename', 'subprocess.Popen')\n"
            "    if event.startswith('socket') or event in named:\n"
            "        sys.exit('forbidden: ' + event)\n"
            "    if event != 'open':\n"
            "        return\n"
            "    mode, flags = arguments[1:]\n"
            "    if set(mode) & set('wxa+') if mode else flags & 3:\n"
            "        sys.exit('forbidden: writing %s' % arguments[0])\n"
            f"sys.argv = ['jepa.py', *{SHORT!r}]\n"
            "sys.addaudithook(hook)\n"
            f"runpy.run_path({PROGRAM!r}, run_name='__main__')\n"
        )
        result = subprocess.run(
            [sys.executable, "-B", "-c", watch], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.assertEqual(result.stderr.decode(), "")
        self.assertEqual(result.stdout.decode("ascii").replace("\r\n", "\n"), EXPECTED)

    def test_importing_it_prints_nothing_draws_nothing_and_reads_no_argument_parser(self):
        code = (
            "import random, sys; random.seed(1); state = random.getstate(); import jepa; "
            "assert random.getstate() == state; "
            "print(sorted(set(sys.modules) & {'argparse', 'numpy', 'json'}))"
        )
        result = subprocess.run(
            [sys.executable, "-B", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        self.assertEqual((result.stdout.decode().strip(), result.stderr.decode()), ("[]", ""))


@unittest.skipIf(os.name == "nt", "POSIX signals and pipes")
class Endings(unittest.TestCase):
    def test_a_closed_pipe_ends_it_quietly(self):
        process = subprocess.Popen(
            [sys.executable, PROGRAM, "--epochs", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.assertTrue(process.stdout.readline().startswith(b"VibeML"))
        process.stdout.close()
        self.assertEqual(process.stderr.read().decode(), "")
        process.stderr.close()
        self.assertEqual(process.wait(60), 141)

    def test_closed_streams_are_no_trouble(self):
        command = f'"{sys.executable}" "{PROGRAM}" --epochs 1'
        for redirection in ("<&-", ">&-", "<&- >&-"):
            result = subprocess.run(
                f"{command} {redirection}", shell=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            self.assertEqual((result.returncode, result.stderr.decode()), (0, ""), redirection)

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_a_full_disk_is_told_in_one_line(self):
        with open("/dev/full", "wb") as full:
            result = subprocess.run(
                [sys.executable, PROGRAM, "--epochs", "1"], stdout=full, stderr=subprocess.PIPE
            )
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr.decode().count("\n"), 1, result.stderr.decode())

    def test_ctrl_c_ends_it_with_one_line_and_exit_code_130_at_any_moment(self):
        rng = random.Random(1)
        for arguments in ([], ["--collapse"], ["--epochs", "0"], []):
            process = subprocess.Popen(
                [sys.executable, PROGRAM, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it may be ignored here
            )
            process.stdout.read(1)  # it has begun
            timer = threading.Timer(rng.uniform(0.0, 0.3), process.send_signal, [signal.SIGINT])
            timer.start()
            _, errors = process.communicate(timeout=60)
            timer.join()
            self.assertEqual(
                (process.returncode, errors.decode()), (130, "jepa.py: interrupted\n"), arguments
            )

    def test_ctrl_c_ends_the_study_and_its_workers_with_one_line(self):
        study = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "study.py"), "--seeds", "30", "--epochs", "20"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        progress = study.stderr.read(2)  # it has begun
        os.killpg(study.pid, signal.SIGINT)
        output, errors = study.communicate(timeout=60)
        lines = (progress + errors).decode().replace("\r", "\n").strip().splitlines()
        self.assertEqual((study.returncode, output, lines[-1]), (130, b"", "study.py: interrupted"))
        self.assertNotIn("Traceback", "".join(lines))


if __name__ == "__main__":
    unittest.main()
