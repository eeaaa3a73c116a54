from __future__ import annotations

import base64
import functools
import hashlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.errors import RunError
from vitreous.evaluation import words
from vitreous.evaluation.card import render_card, write_model_card
from vitreous.evaluation.evaluate import evaluate_part, metrics_document
from vitreous.evaluation.facts import DataSummary, HeatMap, Mistake, ModelSummary, Neighbour, ReportFacts
from vitreous.evaluation.fitted import fit
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import proportion
from vitreous.evaluation.learning import learning_curve
from vitreous.evaluation.plots import coverage_risk, draw_pictures, training_curves
from vitreous.evaluation.report import render_report, write_report
from vitreous.evaluation.subgroups import by_column
from vitreous.runs.decision import probabilities

NASTY = '<script>alert("$1")</script>'
HISTORY: list[dict[str, Any]] = [
    {"step": 10, "epoch": 1, "loss": 2.0, "lr": 1e-3},
    {"step": 20, "epoch": 1, "loss": 1.0, "lr": 1e-4, "val_loss": 1.1, "val_accuracy": 0.7},
]
VOID = {"meta", "img", "line", "br"}


def document(classes: list[str]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = np.arange(12 * len(classes)) % len(classes)
    logits = 2.0 * np.eye(len(classes))[labels] + rng.normal(size=(len(labels), len(classes)))
    part = evaluate_part(logits, labels, None, classes, 1.2, fitted=fit(probabilities(logits, 1.2), labels, classes))
    return metrics_document({"val": part, "test": part}, {"train_seconds": 125.0})


def png(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 60)).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def full() -> ReportFacts:
    metrics = document(["hat", NASTY, "shoe"])
    return ReportFacts(
        title=f"photos {NASTY}",
        metrics=metrics,
        warnings=[f"leak {NASTY}"],
        data=DataSummary(
            source=NASTY,
            counts={"train": {NASTY: 3, "hat": 4}, "test": {NASTY: 1}},
            modes={NASTY: 3},
            sizes=NASTY,
            bad_files=[(NASTY, NASTY)] * 25,
        ),
        model=ModelSummary(name=NASTY, parameters=5_717_416, macs=1_080_000_000, image_size=224, initial_weights=NASTY),
        decisions=[NASTY],
        abstention={
            "threshold": 0.6,
            "target": 0.95,
            "coverage": 0.8,
            "accuracy": 0.9,
            "low": 0.85,
            "high": 0.94,
            "note": NASTY,
        },
        pictures=draw_pictures(metrics, HISTORY, "test"),
        mistakes=[
            Mistake(
                image=png(),
                true=NASTY,
                predicted="hat",
                score=0.9,
                path=NASTY,
                neighbours=[Neighbour(image=png(), label=NASTY)] * 3,
            )
        ],
        heat_maps=[HeatMap(image=png(), overlay=png(), true="hat", predicted=NASTY, score=0.9, method=NASTY)],
        environment={NASTY: NASTY},
        command=f"vitreous train {NASTY}",
        next_commands=[(NASTY, NASTY)],
    )


class Page(HTMLParser):
    """Tags in order, with their attributes; fails on one that is closed out of turn."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(markup)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def sections(self) -> list[str | None]:
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]


def test_the_report_is_well_formed_and_shows_names_as_text():
    page = render_report(full())
    parsed = Page(page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_the_report_needs_nothing_from_outside_and_forbids_it():
    page = render_report(full())
    for tag, attributes in Page(page).tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
        assert "style" not in attributes  # the policy allows the one style sheet only
    assert "url(" not in page
    css = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert css is not None
    digest = base64.b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in page


def test_the_number_the_interval_and_its_part_head_the_report():
    facts = full()
    page = render_report(facts)
    found = facts.metrics["test"]["accuracy"]
    head = page[: page.index("</header>")]
    assert f"{100 * found['value']:.1f}<small> %</small>" in head
    assert f"{100 * found['low']:.1f} to {100 * found['high']:.1f}" in head
    assert "of the test images" in head
    assert "used for choosing" not in head


def test_a_part_used_for_choosing_says_so_even_in_the_headline():
    facts = full()
    assert render_report(facts).count("used for choosing</span>") == 1
    chosen = render_report(replace(facts, headline_part="val"))
    assert "used for choosing" in chosen[: chosen.index("</header>")]
    assert "used for choosing" not in render_report(replace(facts, chosen_on=()))


def test_sections_come_and_go_with_their_facts():
    everything = [
        "results",
        "classes",
        "mistakes",
        "confidence",
        "acting-on-scores",
        "explanations",
        "training",
        "data",
        "model",
        "reproduce",
    ]
    assert Page(render_report(full())).sections() == everything
    metrics = document(["a", "b"])
    bare = render_report(ReportFacts(title="bare", metrics={**metrics, "timing": {}, "decisions": {}}))
    assert Page(bare).sections() == ["results", "classes", "mistakes", "confidence"]
    assert "Before you trust" not in bare
    assert "<img" not in bare


def test_acting_on_scores_tells_of_every_class_and_of_faults_where_a_class_means_none():
    without = render_report(full())
    assert "nearest in training" in without
    assert "Sets that hold the truth" in without and "Operating points" in without
    assert "Escapes at fixed overkill" not in without
    inspected = render_report(ReportFacts(title="parts", metrics=document(["bent", "good", "torn"])))
    assert "Escapes at fixed overkill" in inspected
    assert inspected.count("at most 5") >= 3
    Page(inspected)


def test_undefined_numbers_are_dashes():
    rng = np.random.default_rng(0)
    part = evaluate_part(rng.normal(size=(5, 3)), np.zeros(5, dtype=np.int64), None, ["a", "b", "c"], 1.0)
    facts = ReportFacts(title="few", metrics=metrics_document({"test": part}, {}))
    for written in (render_report(facts), render_card(facts)):
        assert "None" not in written
        assert "nan" not in written
        assert words.NO_NUMBER in written


def test_long_lists_are_folded_or_cut():
    facts = full()
    assert "and 5 more, listed in bad_files.csv" in render_report(facts)
    assert "<details>" not in render_report(facts)
    assert "<details>" in render_report(ReportFacts(title="many", metrics=document([f"kind {n}" for n in range(40)])))


def test_the_commonest_confusions_come_first():
    facts = ReportFacts(
        title="pairs",
        metrics={"per_class": {"test": {"a": {}, "b": {}}}, "confusion": {"test": [[5, 2], [7, 3]]}, "test": {}},
    )
    assert facts.confused_pairs() == [("b", "a", 7, 10), ("a", "b", 2, 7)]


def test_report_and_card_are_written_where_asked(tmp_path: Path):
    write_report(tmp_path / "report.html", full())
    write_model_card(tmp_path / "README.md", full())
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(RunError):
        write_report(tmp_path / "report.html" / "below.html", full())


def test_the_card_is_markdown_that_names_cannot_break():
    card = render_card(full())
    outside_code = re.sub(r"```.*?```", "", card, flags=re.DOTALL)
    assert card.startswith("# photos")
    assert "<script>" not in outside_code.replace("\\<script\\>", "")
    table = [line for line in card.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in table if "%" in line and line.count("|") == 4}) == 1
    assert "used for choosing" in card
    assert "abstains" in card


@pytest.mark.parametrize("num_classes", [2, 10, 50, 60])
def test_figures_are_png_of_a_width_that_fits_the_page(num_classes: int):
    names = [f"a rather long class name, number {n} of $many$ <b>" for n in range(num_classes)]
    pictures = draw_pictures(document(names), HISTORY, "test")
    assert set(pictures) == {"confusion", "recall", "reliability", "coverage_risk", "curves"}
    for picture in pictures.values():
        with Image.open(io.BytesIO(picture)) as image:
            assert image.format == "PNG"
            assert 300 <= image.width <= 2400


def test_figures_survive_names_the_font_lacks_and_curves_with_gaps():
    draw_pictures(document(["猫", "犬"]), [], "test")
    training_curves([{"step": 1, "loss": 2.0}])
    coverage_risk({"threshold": [0.5], "coverage": [1.0], "risk": [0.0]}, 0.4)


def test_drawing_leaves_pyplot_alone():
    code = "import sys, vitreous.evaluation.plots as p; p.training_curves([{'step': 1, 'loss': 2.0}]); print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.412, "0.41 s"), (32, "32 s"), (512.3, "8 min 32 s"), (7500, "2 h 5 min")]
)
def test_durations_read_well(seconds: float, said: str):
    assert words.duration(seconds) == said


def test_amounts_read_well():
    assert words.amount(5_717_416) == "5.72 million"
    assert words.amount(1.08e9) == "1.08 billion"
    assert words.amount(94_210) == "94,210"
    assert words.counted(1, "image") == "1 image"
    assert words.counted(1200, "class") == "1,200 classes"


def evaluated() -> dict[str, Any]:
    """A document as `vitreous evaluate` writes it with everything asked for."""
    rng = np.random.default_rng(4)
    found = document(["a", "b", "c"])
    part = "test"
    grouping = Grouping.of(None, 60)
    table = by_column("camera", [("old", "<new>")[k % 2] for k in range(60)], rng.random(60) < 0.7, grouping)
    share = proportion(rng.random(60) < 0.7, grouping).to_dict()
    ways = {
        name: {"kind": kind, "mean": 0.4, "severities": [share] * 5}
        for name, kind in (("fog", "weather"), ("shot noise", "noise"))
    }
    hits = {count: [rng.random(60) < 0.5 + count / 1000 for _ in range(3)] for count in (50, 100, 200, 400)}
    learned = learning_curve(hits, np.zeros(60, int), grouping)
    return {
        **found,
        "subgroups": {part: {"camera": table.to_dict()}},
        "costs": {part: {"likeliest": {**share, "value": 1.5}, "cheapest": share, "changed": 0.1}},
        "robustness": {part: {"n": 60, "clean": share, "mean": share, "drop": share, "corruptions": ways}},
        "learning": {part: {**learned, "measure": "accuracy", "note": "A note."}},
    }


def test_what_was_asked_of_an_evaluation_is_shown_with_tables_and_curves() -> None:
    metrics, part = evaluated(), "test"
    pictures = draw_pictures(metrics, [], part)
    assert {"robustness", "learning"} <= pictures.keys()
    written = render_report(ReportFacts(title="asked", metrics=metrics, pictures=pictures, kept_in="x.json"))
    found = Page(written).sections()
    assert [name for name in found if name in ("subgroups", "costs", "robustness", "more-labels", "timing")] == [
        "subgroups",
        "costs",
        "robustness",
        "more-labels",
        "timing",
    ]
    assert "training" not in found
    assert "&lt;new&gt;" in written and "<new>" not in written
    assert metrics["subgroups"][part]["camera"]["verdict"].split(":")[0] in written
    assert metrics["learning"][part]["verdict"] in written
    assert "costs 1.5 (" in written and "Worst is fog: 40.0" in written
    assert "for programs: x.json" in written
    without = {
        name: each for name, each in metrics.items() if name not in ("subgroups", "robustness", "learning", "costs")
    }
    assert not {"subgroups", "robustness", "more-labels"} & set(
        Page(render_report(ReportFacts(title="-", metrics=without))).sections()
    )
