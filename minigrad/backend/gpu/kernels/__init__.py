"""The CUDA sources of the GPU backend, and what makes functions of them."""
