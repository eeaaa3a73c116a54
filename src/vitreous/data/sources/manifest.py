"""A table that lists images: CSV or Parquet, one file, or one for each part (`train.parquet`, `test.parquet`).

The image column holds paths relative to the table, encoded bytes, or the struct {bytes, path} that Hugging Face writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from vitreous.data.sources.cells import ParquetCells
from vitreous.data.sources.source import PART_NAMES, BadFile, Listing, Sample, folder_name, natural_order
from vitreous.errors import DataError
from vitreous.inputs import ImageSource

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv")
IMAGE_COLUMNS = ("path", "file", "image", "filename", "file_name")
LABEL_COLUMNS = ("label", "class", "target")
PART_COLUMNS = ("split", "part")


@dataclass(frozen=True)
class _Table:
    """One manifest file, read but for its image bytes."""

    file: Path
    part: str | None
    images: Callable[[int], Any]
    """The image cell of a row: str, bytes, {bytes, path} or None."""
    holds_paths: bool
    labels: list[Any]
    names: list[str | None] | None
    """The column `label_name`, or the class names in Hugging Face's metadata."""
    unlabelled: int | None
    """The integer that stands for "no label", where the file's metadata define one."""
    groups: list[str | None] | None
    parts: list[Any] | None
    columns: tuple[str, ...]


def read_manifest(files: Sequence[tuple[Path, str | None]], root: Path, *, group: str | None = None) -> Listing:
    """Images listed by tables, each with the part its name stands for (or None, when a column may say it).

    group: column that names the groups; the column `group`, where there is one, when None.
    Raises DataError for tables that cannot be read, lack columns, or contradict themselves.
    """
    tables = [_read(file, part, group) for file, part in files]
    label_of, classes = _classes(tables)
    samples: list[Sample] = []
    unusable: list[BadFile] = []
    cells: list[tuple[_Table, int]] = []
    for table in tables:
        for row, value in enumerate(table.labels):
            path = _sample_path(table, row, root)
            if path is None:
                unusable.append(BadFile(f"{table.file.name}#{row}", "has neither a path nor bytes"))
            elif value is None or value == table.unlabelled:
                unusable.append(BadFile(path, "has no label"))
            else:
                part = table.part or _part(table, row)
                samples.append(Sample(path, label_of[value], table.groups[row] if table.groups else None, part))
                cells.append((table, row))
    return Listing(
        name=folder_name(files[0][0] if len(files) == 1 else root),
        kind="manifest",
        root=str(root),
        samples=samples,
        classes=classes,
        notes=_notes(tables, samples, unusable, group),
        reader=lambda index: _open(*cells[index]),
        unusable=unusable,
        columns=tables[0].columns,
    )


def _read(file: Path, part: str | None, group: str | None) -> _Table:
    try:
        if file.suffix.lower() == ".parquet":
            return _read_parquet(file, part, group)
        return _from_columns(file, part, group, _read_csv(file), None)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{str(file)!r} cannot be read as {file.suffix.lstrip('.').upper()}: {reason}.",
            "Save it as comma-separated UTF-8, or as Parquet.",
        ) from error


def _read_csv(file: Path) -> pa.Table:
    """All columns as text, so that a label "007" stays what it is and only an empty cell is missing."""
    with file.open(encoding="utf-8-sig") as handle:
        header = handle.readline()
    delimiter = max(",;\t", key=header.count)
    fields = [name.strip().strip('"') for name in header.strip("\r\n").split(delimiter)]
    return pyarrow.csv.read_csv(
        file,
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(fields, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    )


def _read_parquet(file: Path, part: str | None, group: str | None) -> _Table:
    """Read everything but image bytes, which stay in the file until the first one is asked for."""
    parquet = pq.ParquetFile(file, memory_map=True)
    schema = parquet.schema_arrow
    image = _image_column(schema, file)
    light = [name for name in schema.names if name != image and _is_plain(schema.field(name).type)]
    paths = pa.types.is_string(schema.field(image).type) or pa.types.is_large_string(schema.field(image).type)
    if paths:
        return _from_columns(file, part, group, parquet.read(columns=[image, *light]), None)
    return _from_columns(file, part, group, parquet.read(columns=light), ParquetCells(file, image), schema)


def _from_columns(
    file: Path,
    part: str | None,
    group: str | None,
    table: pa.Table,
    cells: ParquetCells | None,
    schema: pa.Schema | None = None,
) -> _Table:
    columns = {name.strip(): table.column(index) for index, name in enumerate(table.schema.names)}
    found = [name.strip() for name in (schema or table.schema).names]
    label = _find(columns, LABEL_COLUMNS)
    path = None if cells else _find(columns, IMAGE_COLUMNS)
    if label is None or (cells is None and path is None):
        raise _missing(file, found)
    labels = _labels(columns[label], file, label)
    class_names = _class_label_names((schema or table.schema).metadata, label)
    names = _text(columns["label_name"]) if "label_name" in columns else None
    if names is None and class_names is not None:
        names = [class_names[v] if isinstance(v, int) and 0 <= v < len(class_names) else None for v in labels]
    chosen = group if group in columns else "group" if group is None and "group" in columns else None
    part_column = _find(columns, PART_COLUMNS)
    return _Table(
        file=file,
        part=part,
        images=cells if cells is not None else columns[path or ""].to_pylist().__getitem__,
        holds_paths=cells is None,
        labels=labels,
        names=names,
        unlabelled=-1 if class_names is not None else None,
        groups=_text(columns[chosen]) if chosen else None,
        parts=columns[part_column].to_pylist() if part_column and part is None else None,
        columns=tuple(columns),
    )


def _image_column(schema: pa.Schema, file: Path) -> str:
    """The column with bytes where there is one, else the one with paths."""
    candidates = [name for name in schema.names if name.lower() in IMAGE_COLUMNS]
    heavy = [name for name in candidates if not _is_plain(schema.field(name).type)]
    if not candidates:
        raise _missing(file, schema.names)
    column = heavy[0] if heavy else min(candidates, key=lambda name: IMAGE_COLUMNS.index(name.lower()))
    kind = schema.field(column).type
    struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (struct or text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"The column {column!r} of {str(file)!r} is of type {kind}.",
            "It must hold paths (string), encoded images (binary) or the struct {bytes, path}.",
        )
    return column


def _is_plain(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _find(columns: dict[str, Any], wanted: tuple[str, ...]) -> str | None:
    lowered = {name.lower(): name for name in reversed(list(columns))}
    return next((lowered[name] for name in wanted if name in lowered), None)


def _missing(file: Path, found: Sequence[str]) -> DataError:
    return DataError(
        f"{str(file)!r} has the columns {', '.join(found) or '(none)'}; it needs one of {', '.join(IMAGE_COLUMNS)} "
        f"and one of {', '.join(LABEL_COLUMNS)}.",
        "Rename the columns. Optional ones: label_name, group, split (train, val or test).",
    )


def _labels(column: pa.ChunkedArray, file: Path, name: str) -> list[Any]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind):
        values = column.to_pylist()
        if any(value is not None and value == value and value != int(value) for value in values):
            raise DataError(
                f"The column {name!r} of {str(file)!r} holds fractions; a class is a name or a whole number."
            )
        return [None if value is None or value != value else int(value) for value in values]
    if pa.types.is_integer(kind):
        return column.to_pylist()
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"The column {name!r} of {str(file)!r} is of type {kind}; one name or whole number is needed.")
    return _text(column)


def _text(column: pa.ChunkedArray) -> list[Any]:
    """Cells as text; blank ones as None."""
    values = column.to_pylist()
    return [None if value is None or not str(value).strip() else str(value).strip() for value in values]


def _class_label_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str] | None:
    """Class names that Hugging Face's `datasets` keeps in the schema's metadata."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
        return [str(name) for name in feature["names"]]
    except (KeyError, ValueError, TypeError):
        return None


def _classes(tables: Sequence[_Table]) -> tuple[dict[Any, str], list[str]]:
    """{label as stored: class name} and the class names in order. Integers keep numeric order, names natural order."""
    numbers: dict[Any, int | None] = {}
    names: dict[Any, str] = {}
    for table in tables:
        for row, value in enumerate(table.labels):
            if value is None or value == table.unlabelled:
                continue
            numbers.setdefault(value, int(value) if re.fullmatch(r"-?\d+", str(value)) else None)
            name = table.names[row] if table.names else None
            if name is not None and names.setdefault(value, name) != name:
                raise DataError(
                    f"The label {value!r} is called {names[value]!r} and {name!r} in the column 'label_name' of {table.file.name!r}.",
                    "Give each label one name.",
                )
    if len({type(value) for value in numbers}) > 1:
        raise DataError(
            "The tables do not agree: labels are whole numbers in one and names in another.",
            "Write the labels in the same form in each.",
        )
    if any(number is None for number in numbers.values()):  # labels are names themselves
        return {value: str(value) for value in numbers}, natural_order(str(value) for value in numbers)
    label_of = {value: names.get(value, str(value)) for value in numbers}
    ordered = [label_of[value] for value, _ in sorted(numbers.items(), key=lambda item: (item[1], str(item[0])))]
    if len(set(ordered)) < len(ordered):
        twice = next(name for name in ordered if ordered.count(name) > 1)
        raise DataError(f"Two labels are called {twice!r} in the column 'label_name'.", "Give each label its own name.")
    return label_of, ordered


def _part(table: _Table, row: int) -> str | None:
    value = table.parts[row] if table.parts else None
    if value is None or not str(value).strip():
        return None
    part = PART_NAMES.get(str(value).strip().lower())
    if part is None:
        raise DataError(
            f"Row {row + 1} of {table.file.name!r} is in the part {value!r}; known are train, val and test.",
            "Correct the column, or rename it so that it is not read.",
        )
    return part


def _sample_path(table: _Table, row: int, root: Path) -> str | None:
    if not table.holds_paths:
        inside = table.file.relative_to(root) if table.file.is_relative_to(root) else Path(table.file.name)
        return f"{inside.as_posix()}#{row}"
    path = table.images(row)
    if path is None or not path.strip():
        return None
    path = path.strip().replace("\\", "/")
    return path.removeprefix("./") if table.file.parent == root else _below(table.file.parent / path, root)


def _below(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _open(table: _Table, row: int) -> ImageSource:
    cell = table.images(row)
    if isinstance(cell, dict):
        cell = cell["bytes"] if cell.get("bytes") else cell.get("path")
    if isinstance(cell, str):
        return str(table.file.parent / cell.strip().replace("\\", "/"))
    return cell or b""


def _notes(
    tables: Sequence[_Table], samples: Sequence[Sample], unusable: Sequence[BadFile], group: str | None
) -> list[str]:
    files = ", ".join(table.file.name for table in tables)
    stored = "paths" if tables[0].holds_paths else "encoded images"
    notes = [f"{'Tables' if len(tables) > 1 else 'A table'} of {stored}: {files}, {len(samples):,} labelled rows."]
    if unusable:
        notes.append(f"{len(unusable):,} rows cannot be used; the first {unusable[0].reason}.")
    groups = {sample.group for sample in samples} - {None}
    if groups:
        notes.append(f"Groups come from the column {group or 'group'!r}: {len(groups):,} groups.")
    return notes
