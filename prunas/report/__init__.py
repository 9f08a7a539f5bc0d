"""Figures for people: drawn from checked values, readable in print and without colour. Needs no torch."""
