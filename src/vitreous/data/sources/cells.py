"""Random access to the image column of a Parquet file, which by itself can only be read in long runs of rows."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KEEP_BYTES = 2 * 1024**3
"""A column up to this size is held in memory; a larger one is unpacked once into a temporary file and mapped."""


class ParquetCells:
    """The cells of one column, by row number. Nothing is read before the first call, and nothing is read twice."""

    def __init__(self, file: Path, column: str) -> None:
        self.file = file
        self.column = column
        self._cells: pa.ChunkedArray | None = None
        self._lock = threading.Lock()

    def __call__(self, row: int) -> Any:
        with self._lock:
            cells = self._cells = self._load() if self._cells is None else self._cells
        return cells[row].as_py()

    def _load(self) -> pa.ChunkedArray:
        parquet = pq.ParquetFile(self.file, memory_map=True)
        if _column_bytes(parquet.metadata, self.column) <= KEEP_BYTES:
            return parquet.read(columns=[self.column]).column(0)
        folder = tempfile.mkdtemp(prefix="vitreous-")
        # Windows cannot remove a file that is still mapped; its own clean-up of temporary files will.
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        unpacked = str(Path(folder) / "images.arrow")
        batches = parquet.iter_batches(batch_size=256, columns=[self.column])
        first = next(batches)
        with pa.OSFile(unpacked, "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(unpacked)).read_all().column(0)


def _column_bytes(metadata: pq.FileMetaData, column: str) -> int:
    """Unpacked size of a column, of all its leaves where it is a struct."""
    total = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            if chunk.path_in_schema.split(".")[0] == column:
                total += chunk.total_uncompressed_size
    return total
