// A copy of images in the other memory order, (N, C, H, W) to (N, H, W, C) or back: must equal Backend.reshape, which
// copies them so. It is a transposition of N matrices (A, B), of which one axis is C and the other H * W.
//
// A block moves tiles of 32 x 32 through shared memory, so that a warp reads neighbouring numbers of x, and writes
// neighbouring numbers of y. The rows of the tile are 33 long, or a column of it would lie in one bank.
// Launch: grid (ceil(B / 32), ceil(A / 32), matrices, but at most 65535), block (32, 8).
// Bytes: reads x once, writes y once. Operations: none.

#define TILE 32
#define ROWS 8

template <typename T>
__global__ void transpose(const T* x, T* y, long long matrices, long long a, long long b) {
    __shared__ T tile[TILE][TILE + 1];
    long long left = (long long)blockIdx.x * TILE, top = (long long)blockIdx.y * TILE;
    for (long long n = blockIdx.z; n < matrices; n += gridDim.z) {
        long long start = n * a * b;
        long long column = left + threadIdx.x;
        for (int k = threadIdx.y; k < TILE; k += ROWS)
            if (top + k < a && column < b) tile[k][threadIdx.x] = x[start + (top + k) * b + column];
        __syncthreads();
        long long row = top + threadIdx.x;
        for (int k = threadIdx.y; k < TILE; k += ROWS)
            if (left + k < b && row < a) y[start + (left + k) * a + row] = tile[threadIdx.x][k];
        __syncthreads();
    }
}
