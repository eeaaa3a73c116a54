"""Frozen typed settings, one file per stage. Standard library only, so that help is instant."""
