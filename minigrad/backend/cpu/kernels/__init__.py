"""The CPU's kernels: C, compiled at first use (`..native`)."""
