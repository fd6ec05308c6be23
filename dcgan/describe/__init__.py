"""Recipes described to people.

table.py    all recipes in a table
ledger.py   the events of one real step, watched
step.py     the same step in words, and as a table in notebooks
"""
