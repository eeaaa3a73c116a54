"""Writing an export and its proof into the run folder: all of it, or nothing. No torch at module level."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitreous.config.convert import from_dict
from vitreous.engines.onnxruntime import OnnxRuntimeEngine
from vitreous.engines.protocol import Engine
from vitreous.errors import GateError, MissingExtraError, UsageError, unknown_name
from vitreous.export.parity import Parity, prove
from vitreous.runs.atomic import sha256_file, storage_error, write_json
from vitreous.runs.folder import EXPORTS, RUN_JSON, RunFolder, read_facts

if TYPE_CHECKING:
    from torch import nn

PROOF = "parity.json"


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote, or found already written."""

    files: tuple[Path, ...]
    """The main file first, the proof last."""
    parity: Parity
    """How far the export is from eager PyTorch."""
    run: RunFolder
    """The run as it now is, knowing of the export."""
    reused: bool
    """True where an equal export was there already, and nothing was written."""

    def to_dict(self) -> dict[str, Any]:
        return {"files": [str(file) for file in self.files], "parity": self.parity.to_dict(), "reused": self.reused}


@dataclass(frozen=True)
class ExportFormat:
    """One way to write a model."""

    file: str
    """Name of the main file."""
    require: Callable[[], None]
    """Raises MissingExtraError where a package it needs is absent."""
    write: Callable[[nn.Module, RunFolder, Path], Engine]
    """Writes the main file at a path and returns the engine that runs it."""


def export_run(run: RunFolder, format: str, *, out: Path | None = None, overwrite: bool = False) -> ExportResult:
    """Export a run, proven against eager PyTorch at batch 1, 3 and 8.

    Writes `exports/<format>/` in the run folder and records it in `run.json`; with `out`, writes into that folder and
    leaves the run as it is. An export of the same weights that is there already is returned as it is.

    Raises UsageError for an unknown format or another export in the way, MissingExtraError before any work,
    GateError (nothing written) when the export disagrees, RunError when the disk refuses.
    """
    if format not in EXPORTERS:
        raise unknown_name("export format", format, EXPORTERS)
    exporter = EXPORTERS[format]
    exporter.require()
    # Another verb may have added to the run since the caller opened it.
    run = RunFolder(run.path, read_facts(run.path / RUN_JSON))
    folder = Path(out) if out is not None else run.path / EXPORTS / format
    if not overwrite:
        found = _existing(run, folder, exporter.file)
        if found is not None:
            return found if out is not None else _recorded(found, run, format)

    from vitreous.engines.eager import EagerEngine
    from vitreous.models.load import load_model

    model = load_model(run)
    try:
        with _workspace(folder) as workspace:
            candidate = exporter.write(model, run, workspace / exporter.file)
            parity = prove(EagerEngine(model), candidate, run.spec)
            if not parity.passed:
                raise _disagrees(format, parity)
            del candidate  # an open model file cannot be moved on Windows
            _write_proof(workspace, run, exporter.file, parity)
            if out is None:
                # From here until the end the run vouches for no export, so that a crash between leaves it whole.
                run = _forget(run, format)
            files = _move(workspace, folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    main = folder / exporter.file
    result = ExportResult((main, *(file for file in files if file != main)), parity, run, reused=False)
    return result if out is not None else _recorded(result, run, format)


def _require_onnx() -> None:
    for package, extra in (("torch", "train"), ("onnx", "export"), ("onnxscript", "export")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("Export to ONNX", extra, package)


def _write_onnx(model: nn.Module, run: RunFolder, path: Path) -> Engine:
    from vitreous.export.onnx import export_onnx

    export_onnx(model, run.spec, path, onnx_metadata(run))
    return OnnxRuntimeEngine(path)


def onnx_metadata(run: RunFolder) -> dict[str, str]:
    """What a program that has only the .onnx file needs to know, as JSON texts under keys `vitreous.*`."""
    return {
        "vitreous.input": json.dumps(run.spec.to_dict()),
        "vitreous.classes": json.dumps(run.classes, ensure_ascii=False),
        "vitreous.version": run.version,
        "vitreous.temperature": json.dumps(run.temperature),
    }


def _existing(run: RunFolder, folder: Path, file: str) -> ExportResult | None:
    """The export that is in the folder already. Raises UsageError unless it is whole and of these very weights."""
    if not (folder / file).exists():
        return None
    try:
        proof = json.loads((folder / PROOF).read_text(encoding="utf-8"))
        whole = proof["sha256"] == sha256_file(folder / file)
        same = proof["version"] == run.version
        parity = from_dict(Parity, proof["parity"])
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        whole, same, parity = False, False, None
    if parity is None or not whole or not same:
        what = "another model's" if whole and not same else "not as its proof describes it"
        raise UsageError(
            f"There is an export at {str(folder / file)!r} already, and it is {what}.",
            "Replace it with --overwrite, or write elsewhere with --out DIR.",
        )
    others = sorted(entry for entry in folder.glob(f"{file}.*") if entry.is_file())
    return ExportResult((folder / file, *others, folder / PROOF), parity, run, reused=True)


def _recorded(result: ExportResult, run: RunFolder, format: str) -> ExportResult:
    """The same result, with the export in `run.json`; nothing is written where it is there already."""
    names = [file.relative_to(run.path).as_posix() for file in result.files]
    entry = {"file": names[0], "version": run.version, "parity": result.parity.to_dict()}
    exports = run.facts.get("exports", {})
    if exports.get(format) != entry or any(name not in run.facts.get("files", {}) for name in names):
        run = run.with_files(*names, exports={**exports, format: entry})
    return ExportResult(result.files, result.parity, run, result.reused)


def _forget(run: RunFolder, format: str) -> RunFolder:
    """The run without any record of this export."""
    exports, files = run.facts.get("exports", {}), run.facts.get("files", {})
    prefix = f"{EXPORTS}/{format}/"
    if format not in exports and not any(name.startswith(prefix) for name in files):
        return run
    return run.updated(
        exports={name: entry for name, entry in exports.items() if name != format},
        files={name: digest for name, digest in files.items() if not name.startswith(prefix)},
    )


def _write_proof(workspace: Path, run: RunFolder, file: str, parity: Parity) -> None:
    proof = {
        "file": file,
        "sha256": sha256_file(workspace / file),
        "version": run.version,
        "reference": "eager",
        "parity": parity.to_dict(),
    }
    write_json(workspace / PROOF, proof)


@contextlib.contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """An empty folder on the same disk as the destination; gone afterwards, with every parent made for it that stayed empty."""
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
        for parent in made:  # innermost first
            with contextlib.suppress(OSError):
                parent.rmdir()


def _move(workspace: Path, folder: Path) -> list[Path]:
    """Put every file of the workspace in place, the proof last, replacing what has the same name."""
    folder.mkdir(exist_ok=True)
    moved = []
    for file in sorted(workspace.iterdir(), key=lambda entry: (entry.name == PROOF, entry.name)):
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
        moved.append(file.replace(folder / file.name))
    return moved


def _disagrees(format: str, parity: Parity) -> GateError:
    return GateError(
        f"The {format} export disagrees with eager PyTorch: the largest difference is {parity.max_abs_difference:.2g} "
        f"({parity.relative:.2g} of the largest value; allowed {parity.tolerance:.2g}), and "
        f"{parity.top1_agreement:.1%} of the images have the same best class. Nothing was written.",
        "Please report it with the output of: vitreous doctor",
    )


EXPORTERS: dict[str, ExportFormat] = {"onnx": ExportFormat("model.onnx", _require_onnx, _write_onnx)}
