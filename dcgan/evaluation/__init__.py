"""The quality of samples, held against real images.

classifier.py   the classifier of digits, and its training
judges.py       the networks that turn images into features
measures.py     distances between sets of features
comparison.py   samples against real images, and the result
monitor.py      the evaluations during training
line.py         their lines in evaluations.jsonl
show.py         an evaluation as a table and a picture
"""
