"""The CPU: NumPy on slices of the batch, memory that is used again, and the forms of a convolution."""
