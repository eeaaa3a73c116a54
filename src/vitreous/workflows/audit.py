"""`vitreous audit`: what is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.config.audit import AuditConfig
from vitreous.data import load_source
from vitreous.data.audit.features import VISUAL_BLOCKS, visual_features
from vitreous.data.audit.fixes import apply_fixes, read_fixes, write_fixes, write_manifest
from vitreous.data.audit.labels import describe, find_label_issues
from vitreous.data.audit.outliers import find_outliers, statistics
from vitreous.data.audit.probe import out_of_fold
from vitreous.data.audit.shortcuts import ShortcutProbe, probe_shortcuts
from vitreous.data.sources.locate import in_words
from vitreous.data.sources.source import PARTS, Sample
from vitreous.data.splitting.leaks import find_leaks
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import DataError, StoppedError, UsageError
from vitreous.runs.atomic import write_json, write_text
from vitreous.runs.folder import BAD_FILES, RunFolder
from vitreous.workflows.audit_facts import Audit, DoubtfulLabel, LabelReport
from vitreous.workflows.audit_fixes import propose_fixes
from vitreous.workflows.audit_page import render_audit
from vitreous.workflows.inspection import Inspection, inspect
from vitreous.workflows.reporter import Reporter, Silent

AUDITS = Path("audits")
FEWEST = 10
"""Images of a class, on average, below which a probe would only guess."""


def audit(data: object, config: AuditConfig | None = None, reporter: Reporter | None = None) -> tuple[Audit, Path]:
    """Look at every image of a data set; write audit.html, audit.json, fixes.csv and bad_files.csv.

    Returns what was found and the folder written. What was learnt of each file is remembered by its content, so an
    interrupted audit, run again, goes on where it was. Raises DataError for data that hold no image, UsageError for flags
    that do not fit them, StoppedError when a signal ended it.
    """
    config, reporter = config or AuditConfig(), reporter or Silent()
    began = time.monotonic()
    model = RunFolder.open(config.model) if config.model is not None else None
    with _stopped_in_words(data):
        found = inspect(
            data,
            reporter,
            group=config.group,
            val=config.val,
            test=config.test,
            ignore_classes=config.ignore_classes,
            decode=config.decode,
            threads=config.threads,
            cache=config.cache,
            offline=config.offline,
            trainable=False,
            embed=None if model is None else lambda source: _embed(model, source, config, reporter),
        )
        facts = _judge(found, in_words(data), config, reporter, began)
        folder = numbered_folder(config.out, found.source.name, config.overwrite)
        write_audit(facts, found, folder, config, reporter)
    return facts, folder


def write_audit(facts: Audit, found: Inspection, folder: Path, config: AuditConfig, reporter: Reporter) -> None:
    """The page, the JSON and the tables."""
    with reporter.task("drawing the page", "pictures") as progress:
        page = render_audit(facts, found, config, progress.update)
    write_text(folder / "audit.html", page)
    write_fixes(folder / "fixes.csv", facts.fixes)
    found.scan.write_bad_files(folder / BAD_FILES)
    write_json(folder / "audit.json", facts.to_dict())


def gate(facts: Audit) -> str:
    """What `--strict` refuses, in a sentence: parts that leak, files that cannot be used. Empty where there is nothing."""
    reasons = []
    if facts.leak_count:
        first = facts.leaks[0]
        reasons.append(
            f"{facts.leak_count:,} {'pair leaks' if facts.leak_count == 1 else 'pairs leak'} across parts, such as {first.first} and {first.second}"
        )
    if facts.bad_files:
        reasons.append(f"{len(facts.bad_files):,} files cannot be used, such as {facts.bad_files[0].path}")
    return f"--strict: {'; '.join(reasons)}. Carry out fixes.csv, or leave out --strict." if reasons else ""


def apply_corrections(data: object, config: AuditConfig) -> tuple[Path, int, str]:
    """Write a manifest of the data as the corrections leave them: (path, images, what was done). No image is touched.

    Raises UsageError for corrections that do not fit the data, or a manifest that exists already.
    """
    assert config.apply is not None and config.out is not None
    if config.out.exists() and not config.overwrite:
        raise UsageError(f"{str(config.out)!r} exists already.", "Name another file, or add --overwrite.")
    source = load_source(
        data,
        group=config.group,
        val=config.val,
        test=config.test,
        ignore_classes=config.ignore_classes,
        trainable=False,
        offline=config.offline,
    )
    corrected = apply_fixes(source, read_fixes(config.apply))
    write_manifest(corrected, config.out)
    return config.out, len(corrected.samples), corrected.notes[-1]


def _judge(found: Inspection, data: str, config: AuditConfig, reporter: Reporter, began: float) -> Audit:
    source, scan, listed = found.source, found.scan, found.listed
    samples = source.samples
    paths = [sample.path for sample in samples]
    sets = scan.duplicates
    near = [(paths[pair.first], paths[pair.second], pair) for pair in found.similar.pairs]
    near.sort(key=lambda entry: _harmless(samples[entry[2].first], samples[entry[2].second]))
    pairs = [(pair.first, pair.second) for pair in found.similar.pairs]
    leaks, leak_count = find_leaks(samples, scan.hashes, [sample.part or "" for sample in samples], pairs)
    try:
        labels, shortcuts, notes = _probe(found, config, reporter)
    except DataError as error:  # too few images that are independent of each other
        labels, shortcuts, notes = None, [], [f"Labels and shortcuts were not probed: {error.message}"]
    outliers = {name: [paths[row] for row in rows] for name, rows in find_outliers(scan.findings).items()}
    summary = asdict(statistics(scan.findings, found.labels, source.classes))
    misnamed = [paths[row] for row in summary.pop("wrong_suffix")]
    if misnamed:
        outliers["named for another format"] = misnamed
    conflicts = [rows for rows in sets if len({samples[row].label for row in rows}) > 1]
    return Audit(
        name=source.name,
        data=data,
        images=len(listed.samples) + len(listed.unusable),
        classes=_count(listed.samples, listed.classes),
        counts={name: _count(samples, source.classes) for name, samples in _by_part(found).items()},
        sizes={name: len(samples) for name, samples in _by_part(found).items()},
        bad_files=scan.bad,
        exact_sets=[[paths[row] for row in rows] for rows in sets],
        exact_across_parts=sum(len({samples[row].part for row in rows} - {None}) > 1 for rows in sets),
        conflicts=[[paths[row] for row in rows] for rows in conflicts],
        near=near,
        near_across_parts=sum(_differ(samples[a].part, samples[b].part) for a, b in pairs),
        near_across_labels=sum(samples[a].label != samples[b].label for a, b in pairs),
        leaks=leaks,
        leak_count=leak_count,
        labels=labels,
        shortcuts=shortcuts,
        statistics=summary,
        outliers=outliers,
        fixes=propose_fixes(found, labels),
        notes=notes,
        seconds=time.monotonic() - began,
    )


def _harmless(a: Sample, b: Sample) -> tuple[bool, bool]:
    """Sort key: pairs that cross parts first, then those that disagree about the label."""
    return not _differ(a.part, b.part), a.label == b.label


def _differ(a: str | None, b: str | None) -> bool:
    return a is not None and b is not None and a != b


def _count(samples: Sequence[Any], classes: Sequence[str]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for sample in samples:
        counted.update(sample.labels if sample.labels is not None else (sample.label,))
    return {name: counted[name] for name in classes}


def _by_part(found: Inspection) -> Mapping[str, list[Sample]]:
    """Readable images of each part that is given, and those of none; "images" where no part is given."""
    parted: dict[str | None, list[Sample]] = {part: [] for part in (*PARTS, None)}
    for sample in found.source.samples:
        parted[sample.part].append(sample)
    if len(parted[None]) == len(found.source.samples):
        return {"images": parted[None]}
    return {part or "no part": samples for part, samples in parted.items() if samples}


def _probe(
    found: Inspection, config: AuditConfig, reporter: Reporter
) -> tuple[LabelReport | None, list[ShortcutProbe], list[str]]:
    """Doubtful labels and shortcuts, by quick classifiers that never judge an image they have seen."""
    source = found.source
    if source.task == "multi_label":
        return None, [], ["Labels and shortcuts were not probed: images carry several labels."]
    if len(source.classes) < 2 or len(source.samples) < FEWEST * len(source.classes):
        return None, [], [f"Labels and shortcuts were not probed: fewer than {FEWEST} images a class."]
    labels, classes = found.labels, source.classes
    units = found.units
    thumbnails = found.scan.thumbnails
    if found.embeddings is not None:
        features, blocks, probe = found.embeddings, (), f"the features of {config.model}"
    else:
        features, blocks, probe = visual_features(thumbnails), VISUAL_BLOCKS, "edges and colours of thumbnails"
    with reporter.task("probing labels", "images") as progress:
        scores = out_of_fold(
            features,
            labels,
            units,
            len(classes),
            seed=config.seed,
            kernel="linear" if found.embeddings is not None else "gaussian",
            blocks=blocks,
            progress=progress.update,
        )
    issues = find_label_issues(scores, labels)
    doubtful = [
        DoubtfulLabel(
            path=source.samples[row].path,
            label=classes[labels[row]],
            suggested=classes[int(suggested)],
            confidence=round(float(scores[row, suggested]), 4),
        )
        for row, suggested in zip(issues.indices, issues.suggested, strict=True)
    ]
    with reporter.task("probing shortcuts", "probes") as progress:
        shortcuts = probe_shortcuts(
            thumbnails, found.scan.findings, labels, classes, units, seed=config.seed, progress=progress.update
        )
    report = LabelReport(
        probe=probe,
        agreement=issues.agreement,
        estimated=issues.estimated,
        verdict=describe(issues, classes),
        doubtful=doubtful,
    )
    return report, list(shortcuts), []


def _embed(run: RunFolder, source: Any, config: AuditConfig, reporter: Reporter) -> np.ndarray:
    """float32 (n, d): what a trained model makes of each image."""
    from vitreous.data import PixelStore
    from vitreous.engines import load_engine
    from vitreous.workflows.environment import available_memory, require
    from vitreous.workflows.score import outputs

    require("Features of a model", "train")
    threads = config.threads or available_cores()
    store = PixelStore(
        source, np.arange(len(source.samples)), run.spec, threads=threads, max_bytes=available_memory() // 4
    )
    with reporter.task("reading features", "images") as progress:
        return outputs(load_engine(run, "auto", threads), store, progress.update).features


def numbered_folder(out: Path | None, name: str, overwrite: bool) -> Path:
    """Where to write: `out`, or audits/NAME; a numbered sibling of what exists, unless it may be replaced."""
    wanted = out if out is not None else AUDITS / name
    if wanted.exists() and not wanted.is_dir():
        raise UsageError(f"--out {str(wanted)!r} is a file.", "Name a folder.")
    folder, number = wanted, 1
    while not overwrite and folder.is_dir() and any(folder.iterdir()):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


@contextlib.contextmanager
def _stopped_in_words(data: object) -> Iterator[None]:
    """SIGINT and SIGTERM end an audit with exit code 75: nothing learnt is lost."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    handled = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if handled else None
    try:
        yield
    except KeyboardInterrupt as error:
        raise StoppedError(
            "The audit was stopped; what was learnt of each file is remembered.",
            f"Go on with the same command: vitreous audit {shlex.quote(in_words(data))}",
        ) from error
    finally:
        if handled:
            signal.signal(signal.SIGTERM, before)
