"""The package for programs and notebooks: `dcgan.fit`, `dcgan.load`, and what they return.

fit.py        training
training.py   callbacks, Ctrl-C, and a run that goes on
run.py        a trained run
generator.py  the checkpoint under it, which draws
images.py     images, pictures and animations, which a notebook displays
checks.py     checks of arguments
ledger.py     one step of a recipe, watched
evaluating.py the measures of a run's samples

`dcgan/__init__.py` has the names that are public.
"""
