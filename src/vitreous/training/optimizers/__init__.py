"""Optimisers that torch does not have, or not in this form; `training.optim` makes the one a configuration names.

All their state lies in tensors beside each parameter, so that a checkpoint holds it and gives it back bit for bit.
"""
