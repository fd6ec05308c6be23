// Activations and their backward, element by element, over arrays of one memory order.
//
// Each must equal the Backend method of its name.
// Launch: one thread an element, in blocks of 256.
// Bytes: every input is read once and the result written once. Operations: a few an element, and one
// exponential in tanh, sigmoid and softplus.

#define ELEMENT                                                             \
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;         \
    if (i >= count) return;

template <typename T>
__global__ void leaky_relu(const T* x, T* y, T slope, long long count) {
    ELEMENT
    T value = x[i];
    // NaN stays NaN, as in NumPy's maximum.
    if (value <= T(0)) value = slope == T(0) ? T(0) : value * slope;
    y[i] = value;
}

template <typename T>
__global__ void leaky_relu_backward(const T* dy, const T* y, T* dx, T slope, long long count) {
    ELEMENT
    dx[i] = y[i] > T(0) ? dy[i] : slope == T(0) ? T(0) : dy[i] * slope;  // 0 times infinity is NaN
}

// The row (M, C) + bias (C,), then the leaky ReLU, in place.
template <typename T>
__global__ void bias_leaky_relu(T* y, const T* bias, T slope, int channels, long long count) {
    ELEMENT
    T value = y[i] + (bias ? bias[i % channels] : T(0));
    if (slope != T(1) && value <= T(0)) value = slope == T(0) ? T(0) : value * slope;
    y[i] = value;
}

template <typename T>
__global__ void tanh_forward(const T* x, T* y, long long count) {
    ELEMENT
    y[i] = tanh(x[i]);
}

template <typename T>
__global__ void tanh_backward(const T* dy, const T* y, T* dx, long long count) {
    ELEMENT
    dx[i] = dy[i] * (T(1) - y[i] * y[i]);
}

template <typename T>
__global__ void sigmoid(const T* x, T* y, long long count) {
    ELEMENT
    T e = exp(-abs(x[i]));
    y[i] = x[i] >= T(0) ? T(1) / (T(1) + e) : e / (T(1) + e);
}

template <typename T>
__global__ void sigmoid_backward(const T* dy, const T* y, T* dx, long long count) {
    ELEMENT
    dx[i] = dy[i] * (y[i] * (T(1) - y[i]));
}

template <typename T>
__global__ void softplus(const T* x, T* y, long long count) {
    ELEMENT
    T value = x[i];
    T positive = value > T(0) || value != value ? value : T(0);
    y[i] = positive + log1p(exp(-abs(value)));
}

template <typename T>
__global__ void mask_scale(const T* x, const bool* mask, T* y, T scale, long long count) {
    ELEMENT
    y[i] = mask[i] ? x[i] * scale : T(0);  // whatever x is
}

template <typename T>
__global__ void leaky_dropout_backward(const T* dy, const T* y, const bool* mask, T* dx, T slope, T scale,
                                       long long count) {
    ELEMENT
    T value = mask[i] ? dy[i] * scale : T(0);  // whatever dy is
    dx[i] = y[i] > T(0) ? value : slope == T(0) ? T(0) : value * slope;  // 0 times infinity is NaN
}
