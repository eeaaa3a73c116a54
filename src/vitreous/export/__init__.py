"""Models for other programs, each proven to agree with eager PyTorch before it is written. No torch at module level."""

from vitreous.export.export import EXPORTERS, ExportResult, export_run
from vitreous.export.parity import Parity, prove

__all__ = ["EXPORTERS", "ExportResult", "Parity", "export_run", "prove"]
