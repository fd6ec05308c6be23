"""The quality of samples: a classifier of digits, features of images, and distances between sets of them."""
