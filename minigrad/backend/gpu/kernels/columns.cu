// im2col and col2im: a convolution as a matrix product, and the way back.
//
//   columns[(n, oy, ox), (i, j, c)] = x[n, oy * sh + i * dh - top, ox * sw + j * dw - left, c], 0 outside of x
//
// im2col must equal Backend.im2col. One thread makes V neighbouring channels of one column element: the
// channels lie innermost in the columns, and V > 1 (16-byte loads and stores) where they do in x too.
// Launch: one thread for each V elements of the columns, in blocks of 256.
// Bytes: reads and writes every element of the columns once (x's repeats come from the caches).
// Operations: index arithmetic alone.
//
// col2im must equal Backend.col2im, with a bias and a leaky ReLU on top (Backend.convolve_input_gradient). It
// gathers: one thread makes V channels of one pixel of x, and adds up, in the order of the taps, the column
// elements that im2col would have filled from it. No two threads write one place, so that there are no
// atomics and every run gives the same bits.
// Launch: one thread for each V elements of x, in blocks of 256.
// Bytes: reads the columns once, writes x once. Operations: one addition for each column element.

struct Geometry {
    int height, width, channels;          // of x
    int out_height, out_width;            // positions of the kernel
    int kernel_height, kernel_width;
    int stride_y, stride_x, dilation_y, dilation_x;
    int top, left;                        // padding
};

template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
    T v[V];
};

// x has any strides (in elements); `stride_c` is 1 where V > 1.
template <typename T, int V>
__global__ void im2col(const T* x, T* columns, Geometry g, long long stride_n, long long stride_y,
                       long long stride_x, long long stride_c, long long count) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int groups = g.channels / V;
    long long rest = index;
    int c = (int)(rest % groups) * V;
    rest /= groups;
    int j = (int)(rest % g.kernel_width);
    rest /= g.kernel_width;
    int i = (int)(rest % g.kernel_height);
    rest /= g.kernel_height;
    int ox = (int)(rest % g.out_width);
    rest /= g.out_width;
    int oy = (int)(rest % g.out_height);
    long long n = rest / g.out_height;
    int y = oy * g.stride_y + i * g.dilation_y - g.top;
    int px = ox * g.stride_x + j * g.dilation_x - g.left;
    Pack<T, V> value;
    if (y >= 0 && y < g.height && px >= 0 && px < g.width) {
        const T* from = x + n * stride_n + y * stride_y + px * stride_x + c * stride_c;
        value = *reinterpret_cast<const Pack<T, V>*>(from);
    } else {
        for (int k = 0; k < V; ++k) value.v[k] = T(0);
    }
    reinterpret_cast<Pack<T, V>*>(columns)[index] = value;
}

// bias is null for none; slope is 1 for no activation.
template <typename T, int V>
__global__ void col2im(const T* columns, const T* bias, T* x, Geometry g, T slope, long long count) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int groups = g.channels / V;
    long long rest = index;
    int c = (int)(rest % groups) * V;
    rest /= groups;
    int px = (int)(rest % g.width);
    rest /= g.width;
    int y = (int)(rest % g.height);
    long long n = rest / g.height;
    long long row = (long long)g.kernel_height * g.kernel_width * g.channels;  // elements of a row of columns
    Pack<T, V> sum;
    for (int k = 0; k < V; ++k) sum.v[k] = T(0);
    for (int i = 0; i < g.kernel_height; ++i) {
        int from_y = y + g.top - i * g.dilation_y;
        if (from_y < 0 || from_y % g.stride_y) continue;
        int oy = from_y / g.stride_y;
        if (oy >= g.out_height) continue;
        for (int j = 0; j < g.kernel_width; ++j) {
            int from_x = px + g.left - j * g.dilation_x;
            if (from_x < 0 || from_x % g.stride_x) continue;
            int ox = from_x / g.stride_x;
            if (ox >= g.out_width) continue;
            long long position = (n * g.out_height + oy) * g.out_width + ox;
            const T* from = columns + position * row + ((long long)i * g.kernel_width + j) * g.channels + c;
            Pack<T, V> value = *reinterpret_cast<const Pack<T, V>*>(from);
            for (int k = 0; k < V; ++k) sum.v[k] += value.v[k];
        }
    }
    for (int k = 0; k < V; ++k) {
        T value = sum.v[k] + (bias ? bias[c + k] : T(0));
        // NaN stays NaN, as in NumPy's maximum.
        if (slope != T(1) && value <= T(0)) value = slope == T(0) ? T(0) : value * slope;
        sum.v[k] = value;
    }
    reinterpret_cast<Pack<T, V>*>(x)[index] = sum;
}
