"""GPUs: CuPy, cuBLAS and CUDA kernels. Only `backend` and the modules under it import CuPy."""
