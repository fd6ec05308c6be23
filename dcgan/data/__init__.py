"""Images from files, and the batches that are drawn from them.

sources.py     the sources that --data names
names.py       the names that need no file
sets.py        known sets, found in a folder
mnist.py, idx.py, cifar.py, arrays.py   the digits of the package, files of many images
folder.py, archive.py   the image files in a folder and in a .zip
imagefiles.py, kinds.py, decoded.py   image files: decoded, told by their names, kept
fit.py         images cut and scaled to the size of a recipe
scale.py       numbers of any range as bytes
channels.py    grey, RGB and alpha
limits.py, budget.py, jpeg.py   the limits on what is decoded
batches.py     the batch of each step
feed.py        the next batch on the device, ahead of time
"""
