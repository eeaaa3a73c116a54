"""After the last step: calibrate on validation, score the test part once, write the run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from vitreous.config.convert import to_dict
from vitreous.data import PixelStore
from vitreous.engines import Engine, Outputs
from vitreous.engines.select import engine_for
from vitreous.evaluation.abstention import Abstention, choose_threshold
from vitreous.evaluation.calibration import Temperature, fit_label_temperature, fit_temperature
from vitreous.evaluation.chance import chance_note
from vitreous.evaluation.evaluate import PartResult, evaluate_part, metrics_document
from vitreous.evaluation.fitted import Fitted, fit
from vitreous.evaluation.multilabel import evaluate_labels, fit_label_thresholds
from vitreous.evaluation.strangeness import fit_strangeness, with_looks
from vitreous.evaluation.words import counted
from vitreous.models.lora import without_lora
from vitreous.runs.atomic import sha256_file, write_json, write_with
from vitreous.runs.decision import energies, probabilities, sigmoids
from vitreous.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    METRICS,
    MODEL,
    PREDICTIONS,
    RUN_JSON,
    SCHEMA_VERSION,
    SPLITS,
    STRANGENESS,
    RunFolder,
    read_facts,
    read_history,
)
from vitreous.training.checkpoint import BEST, TrainState, save_weights
from vitreous.training.loop import NEARLY_ALL
from vitreous.training.utilisation import FLOPS_PER_MAC, product_rate, utilisation
from vitreous.workflows.environment import processor, versions
from vitreous.workflows.pages import Usual, write_pages
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.score import outputs_and_looks
from vitreous.workflows.setup import FEATURES_FROM, Setup


@dataclass(frozen=True)
class Scored:
    """One part run through the finished model."""

    store: PixelStore
    labels: np.ndarray
    groups: list[str]
    outputs: Outputs
    looks: np.ndarray
    """`inputs.looks` of every image (n, s)."""


def finish(path: Path, state: TrainState, setup: Setup, data: str, reporter: Reporter, began: float) -> RunFolder:
    """Write everything a run folder holds, `run.json` last. Returns the finished run."""
    model = state.ema.model
    load_best(model, path, reporter)
    state.ema.model = model = without_lora(model)
    engine = engine_for(model, setup.spec.shape, setup.device)
    save_weights(model, path / MODEL)

    val = _score("val", setup.val, engine, setup, reporter)
    chosen = _choose(engine, val, setup, _fit_strangeness(path, engine, setup, val, reporter))

    # From here on nothing is chosen any more: the test part may be opened, once.
    with setup.material.source.unlocked("scoring the test part"):
        return _measure(path, state, setup, data, reporter, began, chosen)


def load_best(model: nn.Module, path: Path, reporter: Reporter) -> None:
    """Put the best weights of a run into the model; it keeps its own, with a warning, where they cannot be read."""
    try:
        model.load_state_dict(load_file(path / CHECKPOINTS / BEST))
    except (SafetensorError, OSError, RuntimeError) as error:
        reporter.warn(f"{BEST} cannot be read ({type(error).__name__}); the last weights are kept in its place.")


@dataclass(frozen=True)
class _Chosen:
    """What was settled on the validation part."""

    engine: Engine
    val: Scored
    temperature: Temperature
    abstention: Abstention | None
    """None where images may have several labels."""
    fitted: Fitted
    thresholds: Mapping[str, float] | None
    """Of each label where there may be several."""
    usual: Usual

    def judge(self, scored: Scored, setup: Setup) -> PartResult:
        """Every number of a part."""
        logits, classes, value, seed = (
            scored.outputs.logits,
            setup.spec.classes,
            self.temperature.value,
            setup.config.seed,
        )
        if self.thresholds is None:
            return evaluate_part(logits, scored.labels, scored.groups, classes, value, seed, self.fitted)
        thresholds = np.array([self.thresholds[name] for name in classes])
        return evaluate_labels(logits, scored.labels, scored.groups, classes, value, thresholds, seed)


def _choose(engine: Engine, val: Scored, setup: Setup, usual: Usual) -> _Chosen:
    logits, labels, classes = val.outputs.logits, val.labels, setup.spec.classes
    if setup.facts.several_labels:
        temperature = fit_label_temperature(logits, labels)
        thresholds = fit_label_thresholds(sigmoids(logits, temperature.value), labels, classes)
        return _Chosen(engine, val, temperature, None, Fitted(), thresholds, usual)
    temperature = fit_temperature(logits, labels)
    scores = probabilities(logits, temperature.value)
    aims = setup.config.decide
    abstention = choose_threshold(scores.max(axis=1), scores.argmax(axis=1) == labels, aims.accuracy)
    fitted = replace(fit(scores, labels, classes, aims), abstain_below=abstention.threshold)
    return _Chosen(engine, val, temperature, abstention, fitted, None, usual)


def _measure(
    path: Path, state: TrainState, setup: Setup, data: str, reporter: Reporter, began: float, chosen: _Chosen
) -> RunFolder:
    """Score the test part and write what remains of the run folder."""
    engine, val, temperature, abstention = chosen.engine, chosen.val, chosen.temperature, chosen.abstention
    threads = setup.config.threads or setup.facts.cores
    test = _score("test", setup.material.store("test", setup.spec, threads, reporter), engine, setup, reporter)
    results = {name: chosen.judge(part, setup) for name, part in (("val", val), ("test", test))}
    spent = timing(path, state, began)
    spent |= _utilised(path, setup, reporter)
    leaks = setup.material.split.leak_count
    notes = [leak_note(leaks)] if leaks else []
    notes += [note for note in (temperature.note, abstention.note if abstention else "") if note]
    notes += [note for note in (chance_note(results["val"]), *state.notes) if note]
    document = metrics_document(results, spent, notes)
    write_json(path / METRICS, document)

    facts = _facts(path, state, setup, data, document)
    facts |= {
        "calibration": {"temperature": temperature.value, "fitted_on": "val", "n": len(val.labels)},
        "abstention": abstention.to_dict() if abstention else {"threshold": 0.0},
        "operating_points": chosen.fitted.to_dict(),
        **({"thresholds": dict(chosen.thresholds)} if chosen.thresholds is not None else {}),
    }
    run = RunFolder(path, facts)
    _write_predictions(run, {"val": val, "test": test}, setup)
    write_pages(run, engine, setup, results, document, test.store, test.outputs, chosen.usual, reporter)
    vouched = (MODEL, CONFIG, SPLITS, METRICS, PREDICTIONS, STRANGENESS)
    facts["files"] = {name: sha256_file(path / name) for name in vouched}
    facts["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path / RUN_JSON, facts)
    return RunFolder.open(path)


def leak_note(leaks: int) -> str:
    """What every number measured on a part that leaks has to say with it. leaks: pairs of images."""
    return (
        f"The parts were given and leak: {counted(leaks, 'pair')} of images in different parts are the same, so numbers of "
        "the later part flatter."
    )


def _score(part: str, store: PixelStore, engine: Engine, setup: Setup, reporter: Reporter) -> Scored:
    with reporter.task(f"scoring {part}", "images") as progress:
        found, seen = outputs_and_looks(engine, store, progress.update)
    groups = [setup.material.split.groups[row] for row in store.indices]
    return Scored(store, setup.labels(store), groups, found, seen)


def _fit_strangeness(path: Path, engine: Engine, setup: Setup, val: Scored, reporter: Reporter) -> Usual:
    threads = setup.config.threads or setup.facts.cores
    store = setup.material.store("train", setup.spec, threads, reporter, most=FEATURES_FROM)
    with reporter.task("learning what is usual", "images") as progress:
        found, seen = outputs_and_looks(engine, store, progress.update)
    features = found.features
    # Images with several labels belong to no one class: what is usual is then one cloud.
    kinds = np.zeros(len(features), np.int64) if setup.facts.several_labels else setup.labels(store)
    fitted = fit_strangeness(features, kinds, val.outputs.features, len(setup.spec.classes))
    fitted = with_looks(fitted, seen, val.looks, val.outputs.features, val.outputs.logits)
    write_with(path / STRANGENESS, fitted.save)
    return Usual(store, fitted.whitened(features))


def timing(path: Path, state: TrainState, began: float) -> dict[str, Any]:
    rows = read_history(path)
    rates = [row["images_per_s"] for row in rows]
    return {
        "train_seconds": round(state.seconds, 2),
        "total_seconds": round(time.monotonic() - began, 2),
        "images_per_s": round(float(np.median(rates)), 1) if rates else None,
        "steps": state.step,
        "best_step": state.best_step,
        "peak_memory_bytes": max((row.get("peak_memory_bytes") or 0 for row in rows), default=0) or None,
        "processor": processor(),
    }


def _utilised(path: Path, setup: Setup, reporter: Reporter) -> dict[str, Any]:
    """Share of the processor's matrix products that training made use of, where the arithmetic of a step is known.

    Of the steps on images of full size. Empty where part of the model was frozen, a teacher ran beside it, patches were left out,
    or each step was taken twice.
    """
    config, sizes = setup.config, setup.sizes
    rates = [
        row["images_per_s"]
        for row in read_history(path)
        if sizes is None or sizes.at(row["step"] - 1, config.steps or 1) == sizes.sizes[-1]
    ]
    if not rates or config.method != "full" or setup.teacher or config.net.patch_dropout or config.optim.sam:
        return {}
    try:
        rate = setup.team.size * product_rate(setup.device, config.precision)
    except (MemoryError, RuntimeError):  # a figure beside the result is not worth losing the result for
        return {}
    images_per_s = float(np.median(rates))
    share = utilisation(setup.macs, images_per_s, rate)
    reporter.say(
        f"training made {images_per_s * FLOPS_PER_MAC * setup.macs / 1e12:.3g} TFLOP/s, {share:.0%} of what plain "
        f"{config.precision} matrix products reach here ({rate / 1e12:.3g})"
    )
    return {"model_flops_utilisation": round(share, 4), "product_flops_per_s": round(rate)}


def _facts(path: Path, state: TrainState, setup: Setup, data: str, document: dict[str, Any]) -> dict[str, Any]:
    """What `run.json` says, without the sha256 of files that are still to be written."""
    facts = facts_of_training(path, state, setup, data)
    return {
        **facts,
        "classes": list(setup.spec.classes),
        "task": "multi_label" if setup.facts.several_labels else "single_label",
        "data": {**facts["data"], "leaks": setup.material.split.leak_count},
        **({"teacher": setup.teacher.facts} if setup.teacher else {}),
        "test_scored": 1,
        "test_log": [{"when": datetime.now(UTC).isoformat(timespec="seconds"), "by": "train"}],
        "headline": {"part": "test", "accuracy": document["test"]["accuracy"]},
        "files": {MODEL: sha256_file(path / MODEL)},
    }


def facts_of_training(path: Path, state: TrainState, setup: Setup, data: str) -> dict[str, Any]:
    """What `run.json` says of any finished training, whatever was learned."""
    before = read_facts(path / RUN_JSON)
    split, config = setup.material.split, setup.config
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "created": before["created"],
        "versions": versions(),
        "architecture": setup.start.architecture.to_dict(),
        "parameters": setup.parameters,
        "macs": setup.macs,
        "input": to_dict(setup.spec),
        "input_sha256": setup.spec.digest(),
        "data": {
            "source": data,
            "kind": setup.material.source.kind,
            "counts": {part: len(setup.material.rows(part)) for part in ("train", "val", "test")},
            "fingerprint": split.digest(),
            "set_aside": len(split.set_aside),
            "bad_files": len(setup.material.scan.bad),
        },
        "split_sha256": split.digest(),
        "seed": config.seed,
        "weights": setup.start.weights,
        "training": {
            "steps": state.step,
            "best_step": state.best_step,
            "seconds": round(state.seconds, 2),
            "precision": config.precision,
            "stopped_early": bool(config.steps and state.step < NEARLY_ALL * config.steps),
        },
        "exports": {},
    }


def _write_predictions(run: RunFolder, parts: dict[str, Scored], setup: Setup) -> None:
    """Every validation and test image: what was said of it, and how sure and how strange."""
    rows: list[dict[str, Any]] = []
    strangeness = run.strangeness
    assert strangeness is not None
    split, classes = setup.material.split, setup.spec.classes
    for part, scored in parts.items():
        scores, thresholds = run.scores(scored.outputs.logits), run.thresholds
        assert strangeness.beside is not None
        distances = strangeness.distances(scored.outputs.features)
        strange = strangeness.beside.score(distances, scored.looks, energies(scored.outputs.logits))
        for row, index in enumerate(scored.store.indices):
            best = int(scores[row].argmax())
            rows.append(
                {
                    "path": split.paths[index],
                    "part": part,
                    "label": split.labels[index],
                    "group": split.groups[index],
                    "predicted": classes[best]
                    if thresholds is None
                    else "|".join(classes[k] for k in np.flatnonzero(scores[row] >= thresholds)),
                    "score": float(scores[row, best]),
                    "probabilities": scores[row].tolist(),
                    "ood": float(strange[row]),
                    "abstain": bool(scores[row, best] < run.abstain_below or strange[row] >= 1),
                }
            )
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"classes": json.dumps(list(classes))})
    write_with(run.path / PREDICTIONS, lambda temporary: pq.write_table(table, temporary))
