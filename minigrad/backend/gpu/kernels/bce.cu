// The mean binary cross-entropy and its gradient in one launch, of logits x or of probabilities p, with labels t.
//
// logit_bce: must equal Backend.logit_bce.
//   loss = mean of max(x, 0) - x t + log(1 + exp(-|x|)),  gradient = ((1 - t) sigmoid(x) - t sigmoid(-x)) / n
// bce: must equal Backend.bce.
//   loss = mean of -(t log(p + e) + (1 - t) log(1 - p + e)),  gradient = ((1 - t) / (1 - p + e) - t / (p + e)) / n;
//   floored, the logarithms are of p and 1 - p and at least -100, and the divisors at least 1e-12.
//
// Launch: one block of 256 threads, which go through the elements in strides of 256 and add up, in double and
// in a fixed order, in shared memory: a discriminator has one output an image, a few thousand at the most.
// Bytes: reads x or p (and t), writes the gradient and one number. Operations: an exponential and a logarithm an
// element, or two logarithms and two divisions.

#define THREADS 256

template <typename T>
__device__ T stable_sigmoid(T x) {
    T e = exp(-abs(x));
    return x >= T(0) ? T(1) / (T(1) + e) : e / (T(1) + e);
}

// The larger of a value and a bound; NaN stays NaN.
template <typename T>
__device__ T at_least(T value, T bound) {
    return value < bound ? bound : value;
}

// Adds up the threads of the block, in a fixed order. A kernel may call it once: no barrier follows the last
// read of `shared`.
__device__ double over_block(double sum) {
    __shared__ double shared[THREADS];
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

// target is null where all labels are `label`.
template <typename T>
__global__ void logit_bce(const T* x, const T* target, T label, T* loss, T* gradient, long long count) {
    double sum = 0;
    for (long long i = threadIdx.x; i < count; i += THREADS) {
        T value = x[i], t = target ? target[i] : label;
        sum += (double)((at_least(value, T(0)) - value * t) + log1p(exp(-abs(value))));
        gradient[i] = ((T(1) - t) * stable_sigmoid(value) - t * stable_sigmoid(-value)) / (T)count;
    }
    sum = over_block(sum);
    if (threadIdx.x == 0) *loss = (T)sum / (T)count;
}

// target is null where all labels are `label`. epsilon is not read where `floored`.
template <typename T>
__global__ void bce(const T* p, const T* target, T label, int floored, T epsilon, T* loss, T* gradient,
                    long long count) {
    double sum = 0;
    T share = T(-1) / (T)count;
    for (long long i = threadIdx.x; i < count; i += THREADS) {
        T value = p[i], rest = T(1) - value, t = target ? target[i] : label;
        T log_p, log_q;
        if (floored) {
            log_p = value <= T(0) ? T(-100) : at_least(log(value), T(-100));
            log_q = value >= T(1) ? T(-100) : log1p(-value);
            value = at_least(value, T(1e-12));
            rest = at_least(rest, T(1e-12));
        } else {
            value += epsilon;
            rest += epsilon;
            log_p = log(value);
            log_q = log(rest);
        }
        sum -= (double)(t * log_p + (T(1) - t) * log_q);
        gradient[i] = share * t / value - share * (T(1) - t) / rest;
    }
    sum = over_block(sum);
    if (threadIdx.x == 0) *loss = (T)sum / (T)count;
}
