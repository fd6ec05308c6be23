"""The package for programs and notebooks: `dcgan.fit`, `dcgan.load`, and what they return.

fit.py        training
run.py        a trained run
images.py     images, pictures and animations, which a notebook displays
evaluating.py the measures of a run's samples

`dcgan/__init__.py` has the names that are public.
"""
