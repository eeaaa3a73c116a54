"""The parts that a Vision Transformer is put together from, one idea a file."""
