"""Traces in, a report out: statistics, costs, replay of thresholds, reference lines."""
