// One step of Adam for all parameters of a network in one launch: must equal Backend.adam_update for each.
//
//   g = gradient + decay * p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
//   p -= rate * m / (sqrt(v / correction) + eps),  rate and correction of each parameter: see `Adam._factors`
//
// The four arrays of a parameter lie in the same memory order, without gaps; which one, does not matter.
// The addresses come by value, in the kernel's own arguments (which hold 4 KB); rate and correction from memory,
// since they change from step to step and a captured launch keeps its arguments.
// Launch: grid (blocks, parameters), block 256; block (b, p) takes every blocks-th stretch of parameter p.
// Bytes: reads p, g, m and v once, writes p, m and v once. Operations: about 12 an element, one root, two
// divisions.

#define MAX_PARAMETERS 48

template <typename T>
struct Table {
    T* parameter[MAX_PARAMETERS];
    const T* gradient[MAX_PARAMETERS];
    T* first[MAX_PARAMETERS];
    T* second[MAX_PARAMETERS];
    long long size[MAX_PARAMETERS];
    long long place[MAX_PARAMETERS];  // of the parameter's rate and correction among the factors
};

template <typename T>
__global__ void adam(Table<T> table, const T* factors, T beta1, T rest1, T beta2, T rest2, T eps, T decay) {
    int k = blockIdx.y;
    T* p = table.parameter[k];
    const T* g = table.gradient[k];
    T* m = table.first[k];
    T* v = table.second[k];
    T rate = factors[2 * table.place[k]], correction = factors[2 * table.place[k] + 1];
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < table.size[k];
         i += (long long)gridDim.x * blockDim.x) {
        T gradient = decay != T(0) ? g[i] + decay * p[i] : g[i];
        T first = beta1 * m[i] + rest1 * gradient;
        T second = beta2 * v[i] + rest2 * (gradient * gradient);
        m[i] = first;
        v[i] = second;
        p[i] -= rate * first / (sqrt(second / correction) + eps);
    }
}
