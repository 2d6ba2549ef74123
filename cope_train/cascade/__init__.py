"""Stages, votes and the engine that runs them. Knows models and tasks by protocol only."""
