// Dropout, with the random numbers written out: must equal Backend.dropout bit for bit; and in the same pass the
// bias and the leaky ReLU before it, as GPUEpilogue.finish_rows says. y may be x.
//
// Element i is dropped where word i of the Philox4x64-10 stream is under `limit` = p * 2^16 (words of 16
// bits, the lowest first); the first block's counter is one more than the given one. One thread makes one
// block: four words of 64 bits, sixteen elements. Source: Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3" (2011), section 3.3; minigrad.naive.philox.
// The place of the draw lies in memory: it changes from step to step, and a captured launch keeps its arguments.
// `limit` has 32 bits, since a probability next to 1 rounds to 2^16, which drops all.
// Launch: one thread for each 16 elements, in blocks of 128.
// Bytes: reads x, writes y and one byte of mask an element. Operations: 20 wide products for 16 elements.

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
    long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (block * 16 >= count) return;
    u64 words[4];
    philox(*place, (u64)block + 1, words);
    for (int k = 0; k < 16; ++k) {
        long long i = block * 16 + k;
        if (i >= count) return;
        unsigned int draw = (unsigned int)(words[k / 4] >> (16 * (k % 4))) & 0xFFFF;
        bool keep = draw >= limit;
        T value = x[i];
        if (bias) value += bias[i % channels];
        // NaN stays NaN, as in NumPy's maximum.
        if (slope != T(1) && value <= T(0)) value = slope == T(0) ? T(0) : value * slope;
        mask[i] = keep;
        y[i] = keep ? value * scale : T(0);  // whatever the value is
    }
}
