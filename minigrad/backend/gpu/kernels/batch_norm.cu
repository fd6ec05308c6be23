// Batch normalisation of rows (M, C): the channels of (N, C), or of (N, C, H, W) with the channels innermost.
//
// All kernels that go through the rows share one shape. A block of 32 x 8 threads has 32 neighbouring channels
// and a chunk of rows; thread (tx, ty) takes channel tx and every eighth row of the chunk, so that a warp reads
// 32 neighbouring numbers. Launch: grid (ceil(C / 32), chunks), block (32, 8). Of the others, which take what the
// channels have once, one thread has one channel, in blocks of 256.
//
// Bytes: of each pass below; what a channel needs once is small beside the rows. Operations: fewer than ten an
// element, so that memory is what limits.
//
// sums_forward, then merge_forward: must equal Backend.moments. One pass: sums of x - k and of its square in
//   double, k the channel's first value, so that a large mean does not cancel. Reads x once (2 additions, 1
//   product an element), writes two doubles a channel and chunk; merge_forward adds those up in order.
// normalize: must equal Backend.normalize, the leaky ReLU included. Reads x once, writes y once (4 operations).
// sums_backward, then merge_backward: the sums of dy and dy (x - near), dy taken back through the leaky ReLU,
//   in one pass, and from them what a channel's dx needs (Backend.normalize_coefficients). Reads dy, x and y.
// gradient: dx = (dy - (x - near) * tilt - shift) * scale. Reads dy, x and y once, writes dx once. sums_backward,
//   merge_backward and gradient together must equal Backend.normalize_backward.
// move_statistics: must equal Backend.move_statistics. Reads and writes the running statistics once.

#define CHANNELS 32
#define ROWS 8

template <typename T>
__device__ T leaky(T value, T slope) {
    // NaN stays NaN, as in NumPy's maximum.
    if (slope != T(1) && value <= T(0)) return slope == T(0) ? T(0) : value * slope;
    return value;
}

// The gradient through `leaky`, whose result y was: 0 for a slope of 0, whatever dy is.
template <typename T>
__device__ T back(T dy, T y, T slope) {
    return y > T(0) ? dy : slope == T(0) ? T(0) : dy * slope;
}

// Adds up the eight threads of each channel, in a fixed order; the result is whole where threadIdx.y == 0.
__device__ double over_rows(double value, double* shared) {
    shared[threadIdx.y * CHANNELS + threadIdx.x] = value;
    __syncthreads();
    double sum = 0;
    if (threadIdx.y == 0)
        for (int i = 0; i < ROWS; ++i) sum += shared[i * CHANNELS + threadIdx.x];
    __syncthreads();
    return sum;
}

template <typename T>
__global__ void sums_forward(const T* x, double* partial, long long rows, int channels, long long chunk) {
    __shared__ double shared[ROWS * CHANNELS];
    int c = blockIdx.x * CHANNELS + threadIdx.x;
    long long start = blockIdx.y * chunk, stop = min(start + chunk, rows);
    double sum = 0, squares = 0;
    if (c < channels) {
        double k = (double)x[c];
        for (long long r = start + threadIdx.y; r < stop; r += ROWS) {
            double d = (double)x[r * channels + c] - k;
            sum += d;
            squares += d * d;
        }
    }
    sum = over_rows(sum, shared);
    squares = over_rows(squares, shared);
    if (threadIdx.y == 0 && c < channels) {
        partial[(blockIdx.y * 2LL + 0) * channels + c] = sum;
        partial[(blockIdx.y * 2LL + 1) * channels + c] = squares;
    }
}

template <typename T>
__global__ void merge_forward(const T* x, const double* partial, double* mean, double* variance, long long rows,
                              int channels, int chunks) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    double sum = 0, squares = 0;
    for (int i = 0; i < chunks; ++i) {
        sum += partial[(i * 2LL + 0) * channels + c];
        squares += partial[(i * 2LL + 1) * channels + c];
    }
    double offset = sum / rows;
    mean[c] = (double)x[c] + offset;
    double found = squares / rows - offset * offset;
    variance[c] = found < 0 ? 0.0 : found;  // NaN stays NaN, as in NumPy's maximum
}

// S is the type of mean and variance: double from moments, T where they are running statistics.
template <typename T, typename S>
__global__ void normalize(const T* x, const S* mean, const S* variance, const T* weight, const T* bias, T* y,
                          double eps, T slope, long long rows, int channels, long long chunk) {
    int c = blockIdx.x * CHANNELS + threadIdx.x;
    if (c >= channels) return;
    T near = (T)mean[c];
    double factor = 1.0 / sqrt((double)variance[c] + eps) * (double)weight[c];
    T scale = (T)factor;
    T shift = (T)((double)bias[c] - ((double)mean[c] - (double)near) * factor);
    long long start = blockIdx.y * chunk, stop = min(start + chunk, rows);
    for (long long r = start + threadIdx.y; r < stop; r += ROWS) {
        long long i = r * channels + c;
        y[i] = leaky((x[i] - near) * scale + shift, slope);
    }
}

template <typename T>
__global__ void sums_backward(const T* dy, const T* x, const T* y, const double* mean, double* partial, T slope,
                              long long rows, int channels, long long chunk) {
    __shared__ double shared[ROWS * CHANNELS];
    int c = blockIdx.x * CHANNELS + threadIdx.x;
    long long start = blockIdx.y * chunk, stop = min(start + chunk, rows);
    double product = 0, sum = 0;
    if (c < channels) {
        T near = (T)mean[c];
        for (long long r = start + threadIdx.y; r < stop; r += ROWS) {
            long long i = r * channels + c;
            T d = dy[i];
            if (slope != T(1)) d = back(d, y[i], slope);
            product += (double)d * (double)(x[i] - near);
            sum += (double)d;
        }
    }
    product = over_rows(product, shared);
    sum = over_rows(sum, shared);
    if (threadIdx.y == 0 && c < channels) {
        partial[(blockIdx.y * 2LL + 0) * channels + c] = product;
        partial[(blockIdx.y * 2LL + 1) * channels + c] = sum;
    }
}

template <typename T>
__global__ void merge_backward(const double* partial, const double* mean, const double* variance, const T* weight,
                               T* dweight, T* dbias, T* tilt, T* shift, T* scale, double eps, long long rows,
                               int channels, int chunks) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    double product = 0, sum = 0;
    for (int i = 0; i < chunks; ++i) {
        product += partial[(i * 2LL + 0) * channels + c];
        sum += partial[(i * 2LL + 1) * channels + c];
    }
    double rest = mean[c] - (double)(T)mean[c];
    double inv_std = 1.0 / sqrt(variance[c] + eps);
    double projected = (product - rest * sum) * inv_std;  // the sum of dy * xhat
    double along = inv_std * projected / rows;
    dweight[c] = (T)projected;
    dbias[c] = (T)sum;
    tilt[c] = (T)along;
    shift[c] = (T)(sum / rows - rest * along);
    scale[c] = (T)((double)weight[c] * inv_std);
}

template <typename T>
__global__ void gradient(const T* dy, const T* x, const T* y, const double* mean, const T* tilt, const T* shift,
                         const T* scale, T* dx, T slope, long long rows, int channels, long long chunk) {
    int c = blockIdx.x * CHANNELS + threadIdx.x;
    if (c >= channels) return;
    T near = (T)mean[c];
    T along = tilt[c], down = shift[c], factor = scale[c];
    long long start = blockIdx.y * chunk, stop = min(start + chunk, rows);
    for (long long r = start + threadIdx.y; r < stop; r += ROWS) {
        long long i = r * channels + c;
        T d = dy[i];
        if (slope != T(1)) d = back(d, y[i], slope);
        dx[i] = (d - (x[i] - near) * along - down) * factor;
    }
}

// The two running statistics of each channel, in place; null for one that is not kept.
template <typename T>
__global__ void move_statistics(T* mean, T* variance, const double* batch_mean, const double* batch_variance,
                                T keep, double mean_share, double variance_share, int channels) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    if (mean) mean[c] = keep * mean[c] + (T)(mean_share * batch_mean[c]);
    if (variance) variance[c] = keep * variance[c] + (T)(variance_share * batch_variance[c]);
}
