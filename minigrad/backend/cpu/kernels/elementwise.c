// Activations, masks and their backward, element by element.
//
// Each must equal the Backend method of its name; bias_leaky_relu is the bias of a convolution's result (M, C)
// and the activation behind it, in place. The arrays of a call lie in one memory order; which one, does not
// matter. A piece is MIN_PIECE numbers, or rows as rows.h cuts them.
// Bytes: every input is read once and the result written once. Operations: a few a number, so that memory limits.

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

ELEMENTWISE(leaky_relu, NAME(leaky)(a[i], slope))
ELEMENTWISE(leaky_relu_backward, NAME(back)(a[i], b[i], slope))
ELEMENTWISE(tanh_backward, a[i] * (1 - b[i] * b[i]))
ELEMENTWISE(sigmoid_backward, a[i] * (b[i] * (1 - b[i])))
ELEMENTWISE(mask_scale, NAME(masked)(mask[i], a[i] * scale))
ELEMENTWISE(leaky_dropout_backward, NAME(back)(NAME(masked)(mask[i], a[i] * scale), b[i], slope))

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

typedef struct {
    Rows rows;
    REAL *y;
    const REAL *bias;
    REAL slope;
} NAME(Finish);

static void NAME(finish_piece)(const void *arguments, int64_t number, int64_t member) {
    (void)member;
    const NAME(Finish) a = *(const NAME(Finish) *)arguments;
    const Piece piece = piece_of(a.rows, number);
    REAL bias[LINE];
    for (int64_t i = 0; i < piece.width; ++i) bias[i] = -(REAL)0;  // what changes no number, -0 neither
    for (int64_t at = 0; a.bias && at < piece.width; at += piece.channels)
        memcpy(bias + at, a.bias + piece.channel, piece.channels * sizeof(REAL));
    for (int64_t line = 0; line < piece.lines; ++line) {
        const int64_t start = start_of(&piece, line), width = width_of(&piece, line);
        REAL *y = a.y + start;
        for (int64_t i = 0; i < width; ++i) y[i] = NAME(leaky)(y[i] + bias[i], a.slope);
    }
}

// bias is null for none.
KERNEL(bias_leaky_relu)(REAL *y, const REAL *bias, int64_t rows, int64_t channels, double slope) {
    const NAME(Finish) a = {rows_of(rows, channels), y, bias, (REAL)slope};
    share(NAME(finish_piece), &a, pieces_of(a.rows));
}

#undef ELEMENTWISE
#undef SHARE
