"""What executes a forward pass: `eager` and `onnxruntime` behind one protocol. No torch at module level."""

from vitreous.engines.protocol import Engine, Outputs
from vitreous.engines.select import ENGINES, load_engine

__all__ = ["ENGINES", "Engine", "Outputs", "load_engine"]
