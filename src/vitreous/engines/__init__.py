"""What executes a forward pass: `packed`, `eager` and `onnxruntime` behind one protocol. No torch at module level."""

from vitreous.engines.protocol import Engine, Outputs
from vitreous.engines.select import ENGINES, engine_for, load_engine

__all__ = ["ENGINES", "Engine", "Outputs", "engine_for", "load_engine"]
