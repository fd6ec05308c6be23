// The mean binary cross-entropy of logits, and its gradient, in one launch: must equal Backend.logit_bce.
//
//   loss = mean of max(x, 0) - x t + log(1 + exp(-|x|)),  gradient = ((1 - t) sigmoid(x) - t sigmoid(-x)) / n
//
// Launch: one block of 256 threads, which go through the elements in strides of 256 and add up, in double and
// in a fixed order, in shared memory: a discriminator has one logit an image, a few thousand at the most.
// Bytes: reads x (and t), writes the gradient and one number. Operations: an exponential and a logarithm an
// element.

#define THREADS 256

template <typename T>
__device__ T stable_sigmoid(T x) {
    T e = exp(-abs(x));
    return x >= T(0) ? T(1) / (T(1) + e) : e / (T(1) + e);
}

// target is null where all labels are `label`.
template <typename T>
__global__ void logit_bce(const T* x, const T* target, T label, T* loss, T* gradient, long long count) {
    __shared__ double shared[THREADS];
    double sum = 0;
    for (long long i = threadIdx.x; i < count; i += THREADS) {
        T value = x[i], t = target ? target[i] : label;
        T positive = value > T(0) || value != value ? value : T(0);
        sum += (double)((positive - value * t) + log1p(exp(-abs(value))));
        gradient[i] = ((T(1) - t) * stable_sigmoid(value) - t * stable_sigmoid(-value)) / (T)count;
    }
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) *loss = (T)shared[0] / (T)count;
}
