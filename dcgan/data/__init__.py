"""Images from files, and the batches that are drawn from them.

sources.py     the sources that --data names
mnist.py, folder.py, arrays.py, idx.py   the digits of the package, folders of images, files of many images
fit.py         images cut and scaled to the size of a recipe
scale.py       numbers of any range as bytes
channels.py    grey, RGB and alpha
limits.py, budget.py, jpeg.py   the limits on what is decoded
batches.py     the batch of each step
feed.py        the next batch on the device, ahead of time
"""
