"""Optuna's samplers as proposers."""
