"""One table that lists images, read but for the image bytes: which column holds what."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from vitreous.data.sources.cells import ParquetCells
from vitreous.data.sources.labels import LABEL_COLUMNS
from vitreous.data.sources.metadata import WEIGHT_COLUMN, read_weights
from vitreous.data.sources.source import PART_NAMES
from vitreous.errors import DataError

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv")
IMAGE_COLUMNS = ("path", "file", "image", "filename", "file_name")
PART_COLUMNS = ("split", "part")
NAME_COLUMN = "label_name"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one file, or of one split of a dataset."""

    name: str
    """The file's name, for messages."""
    folder: Path
    """What the paths in it are relative to."""
    images: Callable[[int], Any]
    """The image cell of a row: str, bytes, {bytes, path} or None."""
    holds_paths: bool
    label_column: str
    labels: Sequence[Any]
    """str, int, a tuple of these for a column of lists, or None."""
    names: Sequence[str | None] | None
    """The column `label_name`."""
    class_names: Sequence[str] | None
    """Names of the labels 0, 1 ... in Hugging Face's metadata; then -1 stands for "no label"."""
    groups: Sequence[str | None] | None
    parts: Sequence[str | None] | None
    weights: Sequence[float] | None
    metadata: Mapping[str, pa.ChunkedArray]
    """The columns left."""
    columns: tuple[str, ...]
    """The columns that `--group` may name."""

    @property
    def unlabelled(self) -> int | None:
        """The integer that stands for "no label", where the metadata define one."""
        return None if self.class_names is None else -1


def read_table(file: Path, part: str | None, group: str | None) -> Table:
    """Read a CSV, TSV or Parquet file.

    part: the part all rows are in, where the file's name says so. group: column that names the groups.
    Raises DataError for a file that cannot be read or lacks columns.
    """
    try:
        if file.suffix.lower() == ".parquet":
            return _read_parquet(file, part, group)
        return make_table(_read_csv(file), file=file, part=part, group=group)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{str(file)!r} cannot be read as {file.suffix.lstrip('.').upper()}: {reason}.",
            "Save it as comma-separated UTF-8, or as Parquet.",
        ) from error


def make_table(
    table: pa.Table,
    *,
    file: Path,
    part: str | None,
    group: str | None,
    cells: Callable[[int], Any] | None = None,
    all_columns: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Table:
    """Find the columns of a table by their names.

    table: all columns but those with bytes. cells: the image cell of a row, where images are no paths in `table`.
    all_columns: names of all columns, for messages, where `table` holds only some.
    """
    columns = {name.strip(): table.column(index) for index, name in enumerate(table.schema.names)}
    label = _find(columns, LABEL_COLUMNS)
    path = None if cells else _find(columns, IMAGE_COLUMNS)
    if label is None or (cells is None and path is None):
        raise missing_columns(file, [name.strip() for name in all_columns or table.schema.names])
    weight, part_column = _find(columns, (WEIGHT_COLUMN,)), _find(columns, PART_COLUMNS)
    plain = tuple(name for name, column in columns.items() if is_plain(column.type))
    chosen = group if group in plain else "group" if group is None and "group" in plain else None
    used = {label, path, weight, part_column, chosen, NAME_COLUMN}
    names = class_names or _class_label_names(table.schema.metadata, label)
    return Table(
        name=file.name,
        folder=file.parent,
        images=cells or columns[path or ""].to_pylist().__getitem__,
        holds_paths=cells is None,
        label_column=label,
        labels=_labels(columns[label], file, label),
        names=_text(columns[NAME_COLUMN]) if NAME_COLUMN in columns else None,
        class_names=names,
        groups=_text(columns[chosen]) if chosen else None,
        parts=_parts(columns[part_column], file) if part_column and part is None else [part] * len(table),
        weights=read_weights(columns[weight].to_pylist(), file.name) if weight else None,
        metadata={name: column for name, column in columns.items() if name not in used and is_plain(column.type)},
        columns=plain,
    )


def is_plain(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_label_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of names or of whole numbers."""
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return lists and (pa.types.is_integer(kind.value_type) or _is_text(kind.value_type))


def missing_columns(file: Path, found: Sequence[str]) -> DataError:
    return DataError(
        f"{str(file)!r} has the columns {', '.join(found) or '(none)'}; it needs one of {', '.join(IMAGE_COLUMNS)} "
        f"and one of {', '.join(LABEL_COLUMNS)}.",
        "Rename the columns. Optional ones: label_name, group, split (train, val or test), weight.",
    )


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


def _read_parquet(file: Path, part: str | None, group: str | None) -> Table:
    """Read everything but image bytes, which stay in the file until the first one is asked for."""
    parquet = pq.ParquetFile(file, memory_map=True)
    schema = parquet.schema_arrow
    image = _image_column(schema, file)
    light = [
        name
        for name in schema.names
        if name != image
        and (
            is_plain(kind := schema.field(name).type) or (name.strip().lower() in LABEL_COLUMNS and is_label_list(kind))
        )
    ]
    if _is_text(schema.field(image).type):
        return make_table(parquet.read(columns=[image, *light]), file=file, part=part, group=group)
    cells = ParquetCells(file, image)
    table = parquet.read(columns=light).replace_schema_metadata(schema.metadata)
    return make_table(table, file=file, part=part, group=group, cells=cells, all_columns=schema.names)


def _image_column(schema: pa.Schema, file: Path) -> str:
    """The column with bytes where there is one, else the one with paths."""
    candidates = [name for name in schema.names if name.lower() in IMAGE_COLUMNS]
    heavy = [name for name in candidates if not is_plain(schema.field(name).type)]
    if not candidates:
        raise missing_columns(file, schema.names)
    column = heavy[0] if heavy else min(candidates, key=lambda name: IMAGE_COLUMNS.index(name.lower()))
    kind = schema.field(column).type
    struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (struct or _is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"The column {column!r} of {str(file)!r} is of type {kind}.",
            "It must hold paths (string), encoded images (binary) or the struct {bytes, path}.",
        )
    return column


def _find(columns: Mapping[str, Any], wanted: tuple[str, ...]) -> str | None:
    lowered = {name.lower(): name for name in reversed(list(columns))}
    return next((lowered[name] for name in wanted if name in lowered), None)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _labels(column: pa.ChunkedArray, file: Path, name: str) -> Sequence[Any]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if is_label_list(kind):
        return [None if value is None else _tuple(value) for value in column.to_pylist()]
    if pa.types.is_floating(kind):
        values = column.to_pylist()
        if any(value is not None and value == value and value != int(value) for value in values):
            raise DataError(
                f"The column {name!r} of {str(file)!r} holds fractions; a class is a name or a whole number."
            )
        return [None if value is None or value != value else int(value) for value in values]
    if pa.types.is_integer(kind):
        return column.to_pylist()
    if not (_is_text(kind) or pa.types.is_boolean(kind)):
        raise DataError(
            f"The column {name!r} of {str(file)!r} is of type {kind}; one name or whole number is needed, or a list of these."
        )
    return _text(column)


def _tuple(values: Sequence[Any]) -> tuple[Any, ...]:
    stripped = (value.strip() if isinstance(value, str) else value for value in values)
    return tuple(value for value in stripped if value is not None and value != "")


def _text(column: pa.ChunkedArray) -> list[Any]:
    """Cells as text; blank ones as None."""
    if _is_text(column.type):
        return [value or None for value in pc.call_function("utf8_trim_whitespace", [column]).to_pylist()]
    return [None if value is None or not str(value).strip() else str(value).strip() for value in column.to_pylist()]


def _parts(column: pa.ChunkedArray, file: Path) -> list[str | None]:
    """train, val, test or None for each row. Raises DataError naming the first row with anything else."""
    values = _text(column)
    known: dict[str | None, str | None] = {
        value: None if value is None else PART_NAMES.get(value.lower()) for value in set(values)
    }
    strange = {value for value, part in known.items() if value is not None and part is None}
    if strange:
        row = next(row for row, value in enumerate(values) if value in strange)
        raise DataError(
            f"Row {row + 1} of {file.name!r} is in the part {values[row]!r}; known are train, val and test.",
            "Correct the column, or rename it so that it is not read.",
        )
    return [known[value] for value in values]


def _class_label_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str] | None:
    """Class names that Hugging Face's `datasets` keeps in the schema's metadata."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return [str(name) for name in feature["names"]]
    except (KeyError, ValueError, TypeError, IndexError, AttributeError):
        return None
