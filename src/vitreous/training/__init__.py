"""The loop, losses, parameter groups, schedules, averaging, checkpoints.

Everything is imported by name. `signals` needs no torch, so that prediction without torch can use it.
"""
