"""Honest numbers: metrics with intervals, calibration, abstention, strangeness, paired comparison, plots, the report."""
