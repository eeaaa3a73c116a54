"""`vitreous predict`: files, folders, globs and manifests to a table, in bounded memory, resumable. No torch here."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.data.sources.folder import IMAGE_SUFFIXES, is_bare_dicom
from vitreous.errors import DataError, ImageError, StoppedError, UsageError
from vitreous.inputs.decode import FILE_FORMATS
from vitreous.runs import Prediction
from vitreous.runs.atomic import storage_error, write_text, write_with
from vitreous.serving.predictor import Predictor, check_top
from vitreous.training.signals import stop_on_signal
from vitreous.workflows.reporter import Reporter, Silent

TABLES = (".csv", ".parquet")
PATH_COLUMNS = ("path", "file", "image", "filename", "file_name")
CHUNK = 32
Answers = tuple[list[Prediction], list[tuple[str, str]]]
"""What became of one chunk of images: the answers, and (path, reason) of those that cannot be used."""


@dataclass
class Predictions:
    """What was predicted; empty of rows when they went to a file."""

    rows: list[Prediction] = field(default_factory=list)
    bad_files: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    """Images answered, in this session or before."""
    out: Path | None = None


def predict(
    predictor: Predictor,
    inputs: Sequence[str],
    *,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    top: int = 5,
    threads: int = 1,
    reporter: Reporter | None = None,
) -> Predictions:
    """Label every image the inputs name.

    out: a .csv, .parquet or .jsonl file; rows gather in a file beside it until all are there, so that an interrupted
    run is continued with `resume`. With `overwrite` too, what cannot be continued is begun anew.
    Raises UsageError for inputs that do not exist, for `top` below 1, and for `resume` on the answers of another model,
    of another `top` or of other images; DataError when no image is usable; StoppedError when SIGINT or SIGTERM ended
    a run that can be continued.
    """
    check_top(top)
    reporter = reporter or Silent()
    paths = expand(inputs)
    if out is None:
        found = Predictions()
        with closing(_answers(predictor, paths, top, threads, reporter)) as answers:
            for rows, bad in answers:
                found.rows += rows
                found.bad_files += bad
        found.count = len(found.rows)
        return _checked(found, paths)
    if out.suffix.lower() not in WRITERS:
        raise UsageError(f"--out {out.name!r} has no known ending.", f"Use one of {', '.join(WRITERS)}.")
    if out.exists() and not (resume or overwrite):
        raise UsageError(f"{str(out)!r} exists already.", "Replace it with --overwrite, or name another file.")
    part = _Part(out.with_name(f"{out.name}.part"), _head(predictor, top))
    if resume and not overwrite and out.exists() and not part.path.exists():
        return _finished(predictor, paths, out, reporter)
    before = part.rows(replaceable=overwrite) if resume else []
    return _checked(_to_file(predictor, paths, out, part, before, threads, reporter), paths)


def expand(inputs: Iterable[str]) -> list[str]:
    """Files, folders (searched for images), globs and manifests to image paths, in order, each once."""
    inputs, found = list(inputs), dict[str, None]()
    if not inputs:
        raise UsageError("No images were named.", "Name files, folders, globs, or a CSV or Parquet file of paths.")
    for entry in inputs:
        path = Path(entry)
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if _is_image(file, path)]
            if not inside:
                raise UsageError(
                    f"The folder {entry!r} holds no images.", f"Looked for {', '.join(IMAGE_SUFFIXES[:8])} ..."
                )
            found |= dict.fromkeys(str(file) for file in inside)
        elif path.is_file() and path.suffix.lower() in TABLES:
            found |= dict.fromkeys(_listed(path))
        elif path.exists():
            found[entry] = None
        elif glob.has_magic(entry):
            matches = sorted(glob.glob(entry, recursive=True))  # noqa: PTH207 - patterns may be absolute
            if not matches:
                raise UsageError(f"Nothing matches {entry!r}.", "Check the pattern; quote it so that it arrives whole.")
            found |= dict.fromkeys(match for match in matches if Path(match).is_file())
        else:
            raise UsageError(f"There is no file or folder {entry!r}.", "Check the path.")
    return list(found)


def _is_image(file: Path, root: Path) -> bool:
    """As in training: by its name, or a DICOM file without a suffix, and no hidden one. A file that is named itself is
    tried whatever its name.
    """
    inside = file.relative_to(root).parts
    if any(name.startswith(".") or name == "__MACOSX" for name in inside) or not file.is_file():
        return False
    suffix = file.suffix.lower()
    return suffix in IMAGE_SUFFIXES or is_bare_dicom(str(file), suffix)


def _listed(table: Path) -> list[str]:
    """Paths in a manifest, relative to where it lies."""
    try:
        columns, values = _read_csv(table) if table.suffix.lower() == ".csv" else _read_parquet(table)
    except (ValueError, OSError, csv.Error) as error:  # pyarrow's errors are ValueErrors or OSErrors
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{str(table)!r} cannot be read as a table: {reason}.", "Save it again.") from error
    column = next((name for name in columns if name.lower() in PATH_COLUMNS), None)
    if column is None:
        raise UsageError(
            f"{str(table)!r} has no column of paths; it has {', '.join(columns) or 'none'}.",
            f"Name it one of {', '.join(PATH_COLUMNS)}.",
        )
    empty = next((row for row, value in enumerate(values[column]) if not isinstance(value, str) or not value), None)
    if empty is not None:
        raise UsageError(
            f"The column {column!r} of {str(table)!r} holds no path in row {empty + 1}.", "Write one there."
        )
    return [str(table.parent / value) for value in values[column]]


def _read_csv(table: Path) -> tuple[list[str], dict[str, list[Any]]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        cells = list(rows)
        columns = list(rows.fieldnames or [])
    return columns, {name: [row[name] for row in cells] for name in columns}


def _read_parquet(table: Path) -> tuple[list[str], dict[str, list[Any]]]:
    import pyarrow.parquet as pq

    columns = pq.read_schema(table).names
    wanted = [name for name in columns if name.lower() in PATH_COLUMNS]
    return columns, pq.read_table(table, columns=wanted).to_pydict()


def _answers(
    predictor: Predictor, paths: Sequence[str], top: int, threads: int, reporter: Reporter
) -> Generator[Answers, None, None]:
    """Chunks of answers and of bad files. While one chunk is in the model, the next is being decoded."""
    remaining, done = iter(paths), 0
    with (
        ThreadPoolExecutor(max(1, threads), "vitreous-decode") as pool,
        reporter.task("predicting", "images") as progress,
    ):

        def decode(path: str) -> np.ndarray | str:
            try:
                return predictor.decode(path, formats=FILE_FORMATS)
            except ImageError as error:
                return error.message  # alone: the error holds on to all that its decoder had in memory

        def start() -> list[Any]:
            return [(path, pool.submit(decode, path)) for path in islice(remaining, CHUNK)]

        chunk = start()
        while chunk:
            following = start()
            good, arrays, bad = [], [], []
            for path, future in chunk:
                decoded = future.result()
                if isinstance(decoded, str):
                    bad.append((path, decoded))
                else:
                    arrays.append(decoded)
                    good.append(path)
            answers = predictor.predict_arrays(np.stack(arrays), top, good) if arrays else []
            done += len(chunk)
            progress.update(done, len(paths))
            yield answers, bad
            chunk = following


@dataclass(frozen=True)
class _Part:
    """Answers so far, one to a line, below a line that says whose they are."""

    path: Path
    head: dict[str, Any]
    """What must be the same for answers to stand in one table: the model's version and `top`."""

    def rows(self, *, replaceable: bool = False) -> list[dict[str, Any]]:
        """The answers in it. Those of another run are none where `replaceable`, and a UsageError elsewhere."""
        head, *rows = _read_lines(self.path) or [self.head]
        if head == self.head:
            return rows
        if replaceable:
            return []
        asked = ", ".join(f"{name} {value}" for name, value in self.head.items())
        kept = ", ".join(f"{name} {head[name]}" for name in self.head if name in head) or "an unknown run"
        raise UsageError(
            f"{str(self.path)!r} holds answers of {kept}, and asked for are those of {asked}.",
            "Delete it, or begin anew with --overwrite.",
        )

    def write(self, rows: list[dict[str, Any]]) -> None:
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in (self.head, *rows)))


def _head(predictor: Predictor, top: int) -> dict[str, Any]:
    point = {} if predictor.point is None else {"point": list(predictor.point)}
    return {"version": predictor.run.version, "top": top, **point}


def _finished(predictor: Predictor, paths: list[str], out: Path, reporter: Reporter) -> Predictions:
    """Nothing is left to do where `out` holds every image asked for that can be used; UsageError where it does not."""
    held = _paths_in(out)
    missing, bad = [path for path in paths if path not in held], []
    for path in missing:
        try:
            predictor.decode(path, formats=FILE_FORMATS)
        except ImageError as error:
            bad.append((path, error.message))
            continue
        raise UsageError(
            f"{str(out)!r} is finished, and {len(missing):,} of the {len(paths):,} images asked for are not in it.",
            "Name another file, or replace it with --overwrite.",
        )
    count = len(paths) - len(missing)
    reporter.say(f"{out} is finished and holds all {count:,} images; nothing to do.")
    return _checked(Predictions(bad_files=bad, count=count, out=out), paths)


def _paths_in(out: Path) -> set[str]:
    """The images that a finished file answers."""
    try:
        if out.suffix.lower() == ".csv":
            return set(_read_csv(out)[1]["path"])
        if out.suffix.lower() == ".parquet":
            return set(_read_parquet(out)[1]["path"])
        return {row["path"] for row in _read_lines(out)}
    except (ValueError, KeyError, TypeError, OSError, csv.Error, DataError) as error:
        raise UsageError(
            f"{str(out)!r} is not a table of answers, so it cannot be continued.",
            "Name another file, or replace it with --overwrite.",
        ) from error


def _to_file(
    predictor: Predictor,
    paths: list[str],
    out: Path,
    part: _Part,
    before: list[dict[str, Any]],
    threads: int,
    reporter: Reporter,
) -> Predictions:
    known = {row["path"] for row in before}
    bad = [(row["path"], row["reason"]) for row in before if "reason" in row]
    remaining = [path for path in paths if path not in known]
    if before:
        reporter.say(f"{len(known):,} images are answered already; {len(remaining):,} remain.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Written anew: the last line of an interrupted run may have been cut off.
        part.write(before)
        # Closed, so that after a signal no thread goes on decoding.
        with closing(_answers(predictor, remaining, part.head["top"], threads, reporter)) as answers:
            bad += _append(part.path, answers, len(paths) - len(remaining), len(paths))
    except OSError as error:
        raise storage_error(out, error) from error
    order = {path: number for number, path in enumerate(paths)}
    rows = [row for row in part.rows() if "reason" not in row and row["path"] in order]
    rows.sort(key=lambda row: order[row["path"]])
    if rows:
        WRITERS[out.suffix.lower()](out, rows, predictor.classes)
    part.path.unlink()
    return Predictions(bad_files=bad, count=len(rows), out=out)


def _append(part: Path, answers: Iterator[Answers], done: int, total: int) -> list[tuple[str, str]]:
    """Add rows to the file as they come; returns the bad ones. A signal ends it after the chunk in hand."""
    bad: list[tuple[str, str]] = []
    with part.open("a", encoding="utf-8") as file, stop_on_signal() as stop:
        for rows, worse in answers:
            file.writelines(json.dumps(row.to_dict()) + "\n" for row in rows)
            file.writelines(json.dumps({"path": path, "reason": reason}) + "\n" for path, reason in worse)
            file.flush()
            bad += worse
            done += len(rows) + len(worse)
            if stop and done < total:
                raise StoppedError(
                    f"Stopped by {stop.signal_name} after {done:,} of {total:,} images; they are kept in {str(part)!r}.",
                    "Run the same command again with --resume.",
                )
    return bad


def _read_lines(part: Path) -> list[dict[str, Any]]:
    if not part.is_file():
        return []
    lines = part.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:  # only the last line may have been cut off
                raise DataError(
                    f"{str(part)!r} is damaged in line {number + 1}.", "Delete it and run again."
                ) from error
    return rows


def _checked(found: Predictions, paths: list[str]) -> Predictions:
    if found.count == 0:
        path, reason = found.bad_files[0] if found.bad_files else (paths[0] if paths else "", "no images were named")
        raise DataError(f"None of {len(paths):,} images can be used; the first: {path} {reason}.")
    return found


def _write_csv(out: Path, rows: list[dict[str, Any]], classes: list[str]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    more = [name for name in ("labels", "set") if rows and name in rows[0]]
    writer.writerow(("path", "label", "score", "abstain", "ood", "top", *more))
    for row in rows:
        given = ["|".join(_names(row[name])) for name in more]
        top = "; ".join(f"{entry['label']}={entry['score']:.4f}" for entry in row["top"])
        writer.writerow(
            (row["path"], row["label"], f"{row['score']:.6f}", row["abstain"], f"{row['ood']:.4f}", top, *given)
        )
    write_text(out, text.getvalue())


def _names(entries: list[Any]) -> list[str]:
    """Of labels with or without their scores."""
    return [entry if isinstance(entry, str) else entry["label"] for entry in entries]


def _write_jsonl(out: Path, rows: list[dict[str, Any]], classes: list[str]) -> None:
    write_text(out, "".join(json.dumps(row) + "\n" for row in rows))


def _write_parquet(out: Path, rows: list[dict[str, Any]], classes: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows)
    write_with(out, lambda temporary: pq.write_table(table, temporary))


WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
