"""The program and its pages: what the demo prints, the command line, sessions, README, RESULTS."""

import ast
import contextlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from unittest import mock

import jepa
from tests.support import PROGRAM, ROOT, demo_output, printed, read, run, start_demo

PATTERNS = list(jepa.PATTERNS)


def setUpModule():
    start_demo()


def blocks(kind, page="README.md"):
    """Return the fenced blocks of a kind in a page."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)


class Demo(unittest.TestCase):
    def test_the_lines_of_the_seed_stand_in_its_order_and_format(self):
        number, epochs = r"-?\d+\.\d{3}", jepa.Config().epochs
        lines = [
            "VibeML Micro JEPA - Learning Representations via Prediction", "={60}",
            r"Generated 200 training images \(4x4\)", "Architecture: 2x2 patches -> 6-dim embeddings",
            rf"Training for {epochs} epochs\.\.\.", r"Learning rate: 0.02, EMA momentum: 0\.\d+", "-{60}",
            r"Epoch    1 \| Loss: \d\.\d{4} \| Pred: \d\.\d{4} \| Var: \d\.\d{4} \| .*R2: -?\d\.\d\d",
            rf"Epoch {epochs:4} \| Loss: .*", "Representation Quality Test", "={60}",
            "Embeddings for different patterns:",
            *[rf"{name:12}: \[ *{number}(, *{number}){{5}}\]" for name in PATTERNS],
            "Cosine similarities between patterns:", " {12}" + "  ".join(f"{n:>10}" for n in PATTERNS),
            *[rf"{name:10}( *{number}){{4}}" for name in PATTERNS],
            r"Linear Probe Test: \d+(\.\d+)?% accuracy on downstream classification!.*",
        ]
        position = 0
        for line in lines:
            found = re.compile(f"^{line}$", re.MULTILINE).search(demo_output(), position)
            self.assertIsNotNone(found, line)
            position = found.end()

    def test_it_is_the_recorded_output_on_every_interpreter(self):
        self.assertEqual(demo_output(), read("tests", "studies", "recorded", "demo.txt"))
        self.assertLessEqual(len(demo_output().splitlines()), 70)
        self.assertTrue(demo_output().isascii())

    def test_the_loss_falls_R2_rises_and_the_terms_add_up(self):
        rows = [[float(v) for v in re.findall(r"-?\d+(?:\.\d+)?(?=[ \n])", line + "\n")]
                for line in re.findall("^Epoch.*", demo_output(), re.MULTILINE)]
        self.assertEqual([row[0] for row in rows[:5]], [1, 2, 5, 10, 20])
        cfg = jepa.Config()
        for _, loss, pred, var, cov, _ in rows:
            total = cfg.pred_weight * pred + cfg.var_weight * var + cfg.cov_weight * cov
            self.assertAlmostEqual(loss, total, delta=0.01)
        self.assertLess(rows[-1][1], 0.5 * rows[0][1])
        self.assertGreater(rows[-1][-1], rows[0][-1] + 0.5)

    def test_the_row_of_jepa_beats_pixels_the_untrained_encoder_and_the_baseline(self):
        rows = {name: [float(v) for v in re.findall(r"([\d.]+)%", cells)] for name, cells in
                re.findall(r"^(pixels|untrained|no prediction|JEPA) +(.*%)$", demo_output(), re.MULTILINE)}
        best = rows.pop("JEPA")
        self.assertEqual(len(rows), 3)
        for name, row in rows.items():
            self.assertGreater(best[0], row[0] + 10, name)
            self.assertTrue(best[1] >= row[1] and best[2] > row[2] and best[3] < row[3], name)
        probe = re.search(r"Linear Probe Test: ([\d.]+)%", demo_output()).group(1)
        self.assertAlmostEqual(float(probe), best[1], delta=0.051)

    def test_a_fifth_pattern_is_shown_and_measured(self):
        five = dict(jepa.PATTERNS, dots=lambda row, column: 2.0 * (row % 2 * (column % 2)) - 1.0)
        with mock.patch.object(jepa, "PATTERNS", five):
            text = printed(jepa.demo, jepa.Config(epochs=1), 0)
        self.assertEqual(len(re.findall("^dots ", text, re.MULTILINE)), 2)
