"""The vital signs of training: whether both players still learn.

measure.py    the measurements of one step
diagnosis.py  the signs of trouble in them, with remedies
picture.py    the measurements as curves
"""
