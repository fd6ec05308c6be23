// Dropout, with the random numbers written out: must equal Backend.dropout bit for bit; and in the same pass the
// bias and the leaky ReLU before it, as GPUEpilogue.finish_rows says. y may be x.
//
// Element i is dropped where word i of the Philox4x64-10 stream is under `limit` = p * 2^16 (words of 16
// bits, the lowest first); the first block's counter is one more than the given one. One thread makes one
// block: four words of 64 bits, for sixteen elements. Source: Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3" (2011), section 3.3; minigrad.naive.philox.
// A warp reads and writes neighbouring elements: each thread takes every 128th of the 2,048 of its block of threads,
// whose words lie in shared memory. x is asked for first, so that it comes while the words are made.
// The place of the draw lies in memory: it changes from step to step, and a captured launch keeps its arguments.
// `limit` has 32 bits, since a probability next to 1 rounds to 2^16, which drops all.
// Launch: one thread for each 16 elements, in blocks of 128.
// Bytes: reads x, writes y and one byte of mask an element. Operations: 20 wide products for 16 elements.

#define THREADS 128
#define DRAWS 16  // of a block of Philox

typedef unsigned long long u64;

struct Place {
    u64 key0, key1, counter0, counter1, counter2, counter3;
};

__device__ void philox(const Place& place, u64 block, u64 out[4]) {
    u64 x0 = place.counter0 + block, x1 = place.counter1, x2 = place.counter2, x3 = place.counter3;
    if (x0 < block && ++x1 == 0 && ++x2 == 0) ++x3;  // a counter of 256 bits
    u64 k0 = place.key0, k1 = place.key1;
    for (int round = 0; round < 10; ++round) {
        u64 low0 = 0xD2E7470EE14C6C93ull * x0, high0 = __umul64hi(0xD2E7470EE14C6C93ull, x0);
        u64 low1 = 0xCA5A826395121157ull * x2, high1 = __umul64hi(0xCA5A826395121157ull, x2);
        x0 = high1 ^ x1 ^ k0;
        x1 = low1;
        x2 = high0 ^ x3 ^ k1;
        x3 = low0;
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

// bias (channels,) is null for none; slope is 1 for no activation.
template <typename T>
__global__ void dropout(
    const T* x, const T* bias, T* y, bool* mask, const Place* place, unsigned int limit, T slope, T scale, int channels,
    long long count
) {
    __shared__ u64 words[THREADS * 4];
    u64 block = (u64)blockIdx.x * THREADS + threadIdx.x;
    long long start = (long long)blockIdx.x * THREADS * DRAWS + threadIdx.x;
    T values[DRAWS];
#pragma unroll
    for (int k = 0; k < DRAWS; ++k) {
        long long i = start + k * THREADS;
        values[k] = i < count ? x[i] : T(0);
    }
    philox(*place, block + 1, words + threadIdx.x * 4);
    __syncthreads();
    int channel = (int)(start % channels), step = THREADS % channels;
#pragma unroll
    for (int k = 0; k < DRAWS; ++k) {
        long long i = start + k * THREADS;
        if (i >= count) return;
        int draw = k * THREADS + threadIdx.x;  // of the block's
        bool keep = ((unsigned int)(words[draw / 4] >> (16 * (draw % 4))) & 0xFFFF) >= limit;
        T value = values[k];
        if (bias) value += bias[channel];
        channel += step;
        if (channel >= channels) channel -= channels;
        // NaN stays NaN, as in NumPy's maximum.
        if (slope != T(1) && value <= T(0)) value = slope == T(0) ? T(0) : value * slope;
        mask[i] = keep;
        y[i] = keep ? value * scale : T(0);  // whatever the value is
    }
}
