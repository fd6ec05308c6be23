"""The vital signs of training: whether both players still learn.

values.py     the numbers of one step, to JSON and from it
measure.py    their measurement
diagnosis.py  the signs of trouble in them, with remedies
line.py       both as a line of vitals.jsonl
picture.py    the lines as curves
"""
