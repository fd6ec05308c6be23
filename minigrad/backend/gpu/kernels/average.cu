// Running averages of many arrays in one launch: must equal Backend.average_updates.
//
//   average = keep * average + share * fresh
//
// The two arrays of a pair lie in the same memory order, without gaps; which one, does not matter.
// The addresses come by value, in the kernel's own arguments; keep and share from memory, since they change from
// step to step and a captured launch keeps its arguments.
// Launch: grid (blocks, arrays), block 256; block (b, k) takes every blocks-th stretch of array k.
// Bytes: reads both arrays once, writes the average once. Operations: 3 an element.

#define MAX_ARRAYS 48

template <typename T>
struct Pairs {
    T* average[MAX_ARRAYS];
    const T* fresh[MAX_ARRAYS];
    long long size[MAX_ARRAYS];
};

template <typename T>
__global__ void average(Pairs<T> pairs, const T* weights) {
    int k = blockIdx.y;
    T* kept = pairs.average[k];
    const T* fresh = pairs.fresh[k];
    T keep = weights[0], share = weights[1];
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < pairs.size[k];
         i += (long long)gridDim.x * blockDim.x)
        kept[i] = keep * kept[i] + share * fresh[i];
}
