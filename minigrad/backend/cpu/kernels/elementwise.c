// Sums, activations, masks and their gradients, element by element.
//
// Each must equal the Backend method of its name. The arrays of a call have the same memory order, whichever it is.
// A piece is MIN_PIECE numbers.
// Bytes: each input is read once and the result written once. Operations: a few a number, so that memory limits the
// speed.

typedef struct {
    const REAL *a, *b;
    const uint8_t *mask;
    REAL *out;
    REAL slope, scale;
    int64_t count;
} NAME(Elements);

#define ELEMENTWISE(name, formula)                                                        \
    static void NAME(name##_piece)(const void *arguments, int64_t piece, int64_t member) { \
        (void)member;                                                                     \
        const NAME(Elements) e = *(const NAME(Elements) *)arguments;                      \
        const REAL *restrict a = e.a, *restrict b = e.b;                                  \
        const uint8_t *restrict mask = e.mask;                                               \
        REAL *restrict out = e.out;                                                       \
        const REAL slope = e.slope, scale = e.scale;                                      \
        (void)a, (void)b, (void)mask, (void)slope, (void)scale;                           \
        const int64_t start = piece * MIN_PIECE, stop = smaller(start + MIN_PIECE, e.count); \
        for (int64_t i = start; i < stop; ++i) out[i] = (formula);                        \
    }

#define SHARE(name, ...)                                            \
    const NAME(Elements) e = {.out = out, .count = count, __VA_ARGS__}; \
    share(NAME(name##_piece), &e, over(count, MIN_PIECE))

ELEMENTWISE(add, a[i] + b[i])
ELEMENTWISE(leaky_relu, NAME(leaky)(a[i], slope))
ELEMENTWISE(leaky_relu_backward, NAME(back)(a[i], b[i], slope))
ELEMENTWISE(tanh_backward, a[i] * (1 - b[i] * b[i]))
ELEMENTWISE(sigmoid_backward, a[i] * (b[i] * (1 - b[i])))
ELEMENTWISE(mask_scale, NAME(masked)(mask[i], a[i] * scale))
ELEMENTWISE(leaky_dropout_backward, NAME(back)(NAME(masked)(mask[i], a[i] * scale), b[i], slope))

KERNEL(add)(const REAL *a, const REAL *b, REAL *out, int64_t count) {
    SHARE(add, .a = a, .b = b);
}

KERNEL(leaky_relu)(const REAL *x, REAL *out, int64_t count, double slope) {
    SHARE(leaky_relu, .a = x, .slope = (REAL)slope);
}

KERNEL(leaky_relu_backward)(const REAL *dy, const REAL *y, REAL *out, int64_t count, double slope) {
    SHARE(leaky_relu_backward, .a = dy, .b = y, .slope = (REAL)slope);
}

KERNEL(tanh_backward)(const REAL *dy, const REAL *y, REAL *out, int64_t count) {
    SHARE(tanh_backward, .a = dy, .b = y);
}

KERNEL(sigmoid_backward)(const REAL *dy, const REAL *y, REAL *out, int64_t count) {
    SHARE(sigmoid_backward, .a = dy, .b = y);
}

KERNEL(mask_scale)(const REAL *x, const uint8_t *mask, REAL *out, int64_t count, double scale) {
    SHARE(mask_scale, .a = x, .mask = mask, .scale = (REAL)scale);
}

KERNEL(leaky_dropout_backward)(const REAL *dy, const REAL *y, const uint8_t *mask, REAL *out, int64_t count,
                               double slope, double scale) {
    SHARE(leaky_dropout_backward, .a = dy, .b = y, .mask = mask, .slope = (REAL)slope, .scale = (REAL)scale);
}

#undef ELEMENTWISE
#undef SHARE
