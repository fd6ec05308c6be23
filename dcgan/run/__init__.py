"""One training run: the loop, and every file that it writes, saves and resumes from.

training.py     the loop over the steps, and the writing on the way
learner.py      the networks, and all that their next step depends on
images.py       the images, and the batches that the recipe makes of them
directory.py    the files of a run, and who may write them
checkpoint.py   the file that training continues from
resume.py       the choice of the checkpoint to continue from
trained.py      the networks of a finished run, opened again
schedule.py     the times at which checkpoints and measurements are due
step_log.py, evaluations.py, checkup.py   the logs of steps, of evaluations and of vital signs
logs.py         the logs of steps and of vital signs as values, to be read and shown
tensorboard.py  the log for TensorBoard, which follows what is written
tags.py         what it shows, by name
outputs.py      the pictures that are written meanwhile
progress.py     the bar or the lines that a person sees; widget_bar.py   the bar of a notebook
ending.py       the report at the end
shadow.py       training with every operation done again on another device
divergence.py   the search for the first number that is not finite
ema.py          the moving average of the generator's weights
"""
