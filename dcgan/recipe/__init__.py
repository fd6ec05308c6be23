"""Recipes: their fields and layers, and what follows from them without any training.

preset.py   every field of a recipe, and its checks
layers.py   the layers that a recipe lists
family.py   the general DCGAN, from which networks of any size follow
plan.py     the length of a run
chain.py    the sizes of layers that follow each other
sizes.py    the shapes and the parameter counts of the networks
shown.py    a recipe as HTML, for notebooks
memory.py   the memory that a command needs, and the limit on it
"""
