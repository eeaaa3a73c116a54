"""An audit of a small set in which every finding was planted, and what its corrections do to training."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from vitreous.config.audit import AuditConfig
from vitreous.data import load_source
from vitreous.data.audit.shortcuts import ShortcutProbe
from vitreous.errors import StoppedError
from vitreous.workflows import audit as auditing
from vitreous.workflows.audit import apply_corrections, audit, gate
from vitreous.workflows.audit_facts import Audit, audit_text

IDENTICAL = ["train/red/00.png", "test/red/leak.png"]
SIMILAR = ["train/red/01.png", "test/red/near.jpg"]
MIRRORED = ["train/blue/02.png", "train/blue/flipped.png"]
TWO_LABELS = ["train/blue/03.png", "train/red/other.png"]
BAD = {"train/red/empty.png", "train/red/cut.png", "test/blue/text.jpg"}


def picture(seed: int, channel: int) -> Image.Image:
    """Patches no other picture has, tinted in the colour of the class."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((96, 80), Image.Resampling.BICUBIC)).astype(float)
    pixels[..., channel] += 60
    return Image.fromarray(np.clip(pixels + generator.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8))


def plant(root: Path, train: int, test: int) -> Path:
    """Two parts of two classes with one of each of the faults above."""
    number = 0
    for part, count in (("train", train), ("test", test)):
        for channel, name in ((0, "red"), (2, "blue")):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                picture(number, channel).save(root / part / name / f"{index:02d}.png")
                number += 1
    (root / "test/red/leak.png").write_bytes((root / "train/red/00.png").read_bytes())
    Image.open(root / "train/red/01.png").save(root / "test/red/near.jpg", quality=85)
    ImageOps.mirror(Image.open(root / "train/blue/02.png")).save(root / "train/blue/flipped.png")
    Image.open(root / "train/blue/03.png").save(root / "train/red/other.png", compress_level=1)
    (root / "train/red/empty.png").write_bytes(b"")
    whole = (root / "train/red/04.png").read_bytes()
    (root / "train/red/cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "test/blue/text.jpg").write_text("no image")
    return root


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 good images, and 7 files with faults. Read only."""
    return plant(tmp_path_factory.mktemp("audited") / "planted", 6, 3)


@pytest.fixture(scope="module")
def audited(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Audit, Path]:
    return audit(planted, AuditConfig(threads=1, out=tmp_path_factory.mktemp("out") / "audit"))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_fixes_table(path: Path) -> dict[str, tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["path"]: (row["action"], row["reason"]) for row in csv.DictReader(file)}


def test_every_planted_fault_is_found_and_no_other(audited: tuple[Audit, Path]) -> None:
    found = read_json(audited[1] / "audit.json")
    assert found["images"] == 25 and found["readable"] == 22
    assert {entry["path"] for entry in found["bad_files"]} == BAD
    assert found["classes"] == {"blue": 11, "red": 14}
    assert found["parts"] == {"train": {"blue": 7, "red": 7}, "test": {"blue": 3, "red": 5}}
    assert found["duplicates"] == {
        "exact": {"sets": 2, "across_parts": 1, "across_labels": 1},
        "near": {"sets": 2, "across_parts": 1, "across_labels": 0},
    }
    assert sorted(found["leaks"]) == sorted([IDENTICAL, SIMILAR])
    assert dict(zip(found["leak_reasons"], found["leaks"], strict=True)) == {
        "identical pixels": IDENTICAL,
        "near-duplicate": SIMILAR,
    }
    assert sorted(sorted(entry["paths"]) for entry in found["near_duplicates"]) == [sorted(SIMILAR), MIRRORED]
    assert [sorted(paths) for paths in found["label_conflicts"]] == [TWO_LABELS]


def test_bad_files_are_listed_with_reasons(audited: tuple[Audit, Path]) -> None:
    with (audited[1] / "bad_files.csv").open(newline="", encoding="utf-8") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert set(reasons) == BAD
    assert "empty" in reasons["train/red/empty.png"] and "truncated" in reasons["train/red/cut.png"]


def test_the_proposed_corrections_keep_what_measures_and_ask_where_eyes_are_needed(
    audited: tuple[Audit, Path],
) -> None:
    fixes = read_fixes_table(audited[1] / "fixes.csv")
    assert {path for path, (action, _) in fixes.items() if action == "remove"} == {*BAD, IDENTICAL[0]}
    assert {path for path, (action, _) in fixes.items() if action == "review"} == {*TWO_LABELS, SIMILAR[0]}


def test_the_page_shows_the_findings_and_asks_nothing_of_the_network(audited: tuple[Audit, Path]) -> None:
    page = (audited[1] / "audit.html").read_text(encoding="utf-8")
    for name in (*IDENTICAL, *SIMILAR, *MIRRORED, *TWO_LABELS, *BAD):
        assert name in page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)|url\((?!["']?data:)|@import|https?://""", page)
    assert page.count("data:image/") >= 8


def test_strictness_names_the_leak_and_the_bad_files(audited: tuple[Audit, Path]) -> None:
    said = gate(audited[0])
    assert "2 pairs" in said and "3 files cannot be used" in said
    assert gate(replace(audited[0], leak_count=0, leaks=[], bad_files=[])) == ""


def test_a_test_part_that_lies_elsewhere_is_compared_with_the_training_images(planted: Path, tmp_path: Path) -> None:
    config = AuditConfig(threads=1, out=tmp_path / "audit", test=planted / "test")
    found, folder = audit(planted / "train", config)
    assert found.leak_count == 2 and gate(found)
    assert found.sizes == {"train": 14, "test": 8}
    again = f"--test {planted / 'test'} --fixes fixes.csv"
    assert again in (folder / "audit.html").read_text(encoding="utf-8")


def test_a_second_audit_knows_every_file(planted: Path, audited: tuple[Audit, Path], tmp_path: Path) -> None:
    told: list[str] = []
    second, _ = audit(planted, AuditConfig(threads=1, out=tmp_path / "audit"), Told(told))
    assert any(line.startswith("25 of 25 images are known from before") for line in told)
    assert {**second.to_dict(), "seconds": 0} == {**audited[0].to_dict(), "seconds": 0}


def test_a_stopped_audit_says_how_to_go_on_and_writes_nothing(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(auditing, "_judge", stop)
    with pytest.raises(StoppedError) as caught:
        audit(planted, AuditConfig(threads=1, out=tmp_path / "audit"))
    assert "remembered" in caught.value.message
    assert not (tmp_path / "audit").exists()


def test_corrections_become_a_manifest_without_leaks_or_bad_files(
    planted: Path, audited: tuple[Audit, Path], tmp_path: Path
) -> None:
    table = tmp_path / "fixes.csv"
    text = (audited[1] / "fixes.csv").read_text(encoding="utf-8")
    table.write_text(text.replace(f"{SIMILAR[0]},review", f"{SIMILAR[0]},remove"), encoding="utf-8")
    manifest, count, _ = apply_corrections(planted, AuditConfig(apply=table, out=tmp_path / "corrected.csv"))
    assert count == 25 - 5 == len(load_source(manifest).samples)
    found, _ = audit(manifest, AuditConfig(threads=1, out=tmp_path / "audit"))
    assert (found.bad_files, found.leak_count) == ([], 0) and gate(found) == ""
    assert found.sizes == {"train": 12, "test": 8}


def test_training_takes_the_corrections_and_keeps_them_with_the_run(
    planted: Path, audited: tuple[Audit, Path], tmp_path: Path, tiny: dict[str, Any]
) -> None:
    import vitreous

    fixes = audited[1] / "fixes.csv"
    run = vitreous.train(planted, out=tmp_path / "run", fixes=fixes, **{**tiny, "epochs": 1}).path
    facts = read_json(run / "run.json")
    assert (facts["data"]["bad_files"], facts["data"]["leaks"]) == (0, 1)  # the one that still says review
    assert (run / "fixes.csv").read_bytes() == fixes.read_bytes()
    assert IDENTICAL[0] not in (run / "splits.csv").read_text(encoding="utf-8")
    note = "The parts were given and leak: 1 pair"
    assert any(note in line for line in read_json(run / "metrics.json")["notes"])
    for file in ("report.html", "README.md"):
        assert "flatter" in (run / file).read_text(encoding="utf-8")
    assert any("leak" in line for line in vitreous.load(run).evaluate(split="test")["notes"])
    # The corrections that a run keeps can be used to replace that very run.
    again = vitreous.train(planted, out=run, overwrite=True, fixes=run / "fixes.csv", **{**tiny, "epochs": 1}).path
    assert (again / "fixes.csv").read_bytes() == fixes.read_bytes()


def test_several_labels_count_images_once(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    root = make_images(tmp_path / "images", 3)
    rows = [f"images/{path.parent.name}/{path.name},{path.parent.name}|any" for path in sorted(root.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("path,labels\n" + "\n".join(rows) + "\n")
    found, _ = audit(tmp_path / "list.csv", AuditConfig(threads=1, out=tmp_path / "audit"))
    assert found.images == found.sizes["images"] == 9
    assert found.counts["images"]["any"] == 9
    assert re.search(r"^all +9$", audit_text(found), re.MULTILINE)


def test_the_terminal_says_each_thing_once_and_counts_near_duplicates_of_two_labels(
    tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    found, _ = audit(make_images(tmp_path / "images", 3), AuditConfig(threads=1, out=tmp_path / "audit"))
    probe = ShortcutProbe(
        name="border",
        what="the border",
        balanced_accuracy=0.9,
        low=0.8,
        high=1.0,
        chance=0.5,
        baseline=0.6,
        images=9,
        suspicious=True,
        verdict="The border tells the class.",
    )
    text = audit_text(replace(found, shortcuts=[probe], near_across_labels=7))
    assert text.count(probe.verdict) == 1 and f"! {probe.verdict}" in text
    assert re.search(r"^pairs of near-duplicates.*\n.*\n  of these under several labels +7$", text, re.MULTILINE)


def test_showing_augmentation_tells_why_the_preset_was_chosen(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    pytest.importorskip("torch")
    from vitreous.workflows.audit_augmented import show_augmented

    lines: list[str] = []
    config = AuditConfig(threads=1, out=tmp_path / "audit")
    _, preset, _ = show_augmented(make_images(tmp_path / "images", 6), config, Told(lines))
    assert any(line.startswith(f"preset {preset}: ") for line in lines)


class Told:
    """A reporter that keeps what was said."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def task(self, name: str, unit: str) -> Any:
        from vitreous.workflows.reporter import Silent

        return Silent().task(name, unit)
