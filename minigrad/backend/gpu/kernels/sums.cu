// Sums or means of the columns of rows (M, C): must equal Backend.sum and Backend.mean along all axes but those that
// lie innermost in memory. C is 1 where an array is summed as a whole.
//
// A block has `blockDim.x` neighbouring columns and a chunk of rows; thread (tx, ty) takes column tx and every
// `blockDim.y`-th row of the chunk, so that a warp reads neighbouring numbers: the shape of batch_norm.cu, but that a
// block of few columns takes more rows at a time. Few columns of many rows are cut into hundreds of chunks, enough
// for every multiprocessor of a large GPU; many columns of few rows are one chunk.
// Launch: grid (ceil(C / columns of a block), chunks), block (columns, 256 / columns), both powers of two. With
// several chunks there is a second launch, in one chunk, for the sums (chunks, C) of the first.
// Order: a thread adds up its rows from the first to the last, then a block its threads by halves, all in double. It
// depends on M and C alone.
// Bytes: reads x once; writes and reads 8 bytes a column and chunk; writes C numbers. Operations: an addition an
// element, so that memory is what limits.

#define THREADS 256

// y is (chunks, C): of double for the chunks' sums, of x's type for the result. Each sum, rounded to S, is divided by
// `count`: M for a mean, in its last launch, else 1.
template <typename T, typename S>
__global__ void column_sums(const T* x, S* y, S count, long long rows, long long columns, long long chunk) {
    __shared__ double shared[THREADS];
    long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    int place = threadIdx.y * blockDim.x + threadIdx.x;
    long long start = blockIdx.y * chunk, stop = min(start + chunk, rows);
    double sum = 0;
    if (column < columns) {
#pragma unroll 4
        for (long long r = start + threadIdx.y; r < stop; r += blockDim.y) sum += (double)x[r * columns + column];
    }
    shared[place] = sum;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) shared[place] += shared[place + half * blockDim.x];
        __syncthreads();
    }
    if (threadIdx.y == 0 && column < columns) y[blockIdx.y * columns + column] = (S)shared[place] / count;
}
