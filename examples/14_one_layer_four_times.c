// The three formulas of 14_one_layer_four_times.py as loops in C.
//
// It is compiled twice, for each type of number. A KERNEL is a function that Python can call. `share` calls a
// function for each of so many pieces, on all threads. No two pieces write the same number: a piece is an image
// of y or of dx, or a tap of dw. So results are the same on any number of threads. The innermost loop runs along
// numbers that lie side by side in memory, so that the compiler makes vector instructions of it.
//
// Each of these numbers is read, added to and written again for each r. The engine's kernel keeps a tile of 12 x 32
// of them in registers until their sums are whole (minigrad/backend/cpu/kernels/tiles.h): hence its speed.

#include <stdint.h>
#include <string.h>
#include "threads.h"

#ifndef DOUBLE
#define REAL float
#define KERNEL(name) __attribute__((visibility("default"))) void name##_float
#else
#define REAL double
#define KERNEL(name) __attribute__((visibility("default"))) void name##_double
#endif
#define EACH(index, count) for (int64_t index = 0; index < count; ++index)

typedef struct { int64_t images, size, channels, out_channels, kernel, stride, padding, out_size; } Sizes;
typedef struct { const REAL *a, *b; REAL *made; Sizes g; int64_t back; } Call;

// The pixel of y on which tap (i, j) lays pixel (h, v); -1 if it is cropped.
static int64_t landing(const Sizes *g, int64_t h, int64_t v, int64_t i, int64_t j) {
    const int64_t row = h * g->stride + i - g->padding, column = v * g->stride + j - g->padding;
    const int inside = row >= 0 && row < g->out_size && column >= 0 && column < g->out_size;
    return inside ? row * g->out_size + column : -1;
}

// to (columns) += from (rows) @ matrix (rows, columns).
static void add_product(REAL *restrict to, const REAL *from, const REAL *matrix, int64_t rows,
                        int64_t columns) {
    EACH(r, rows) EACH(c, columns) to[c] += from[r] * matrix[r * columns + c];
}

// An image of y, from x and w (k, k, C, O); or, `back`, of dx, from dy and w (k, k, O, C).
static void image(const void *arguments, int64_t n, int64_t member) {
    const Call *call = arguments;
    const Sizes *g = &call->g;
    const int64_t rows = call->back ? g->out_channels : g->channels, small = g->size * g->size;
    const int64_t columns = call->back ? g->channels : g->out_channels, large = g->out_size * g->out_size;
    const REAL *a = call->a + n * (call->back ? large : small) * rows;
    const int64_t count = (call->back ? small : large) * columns;
    REAL *made = memset(call->made + n * count, 0, sizeof(REAL) * count);
    EACH(h, g->size) EACH(v, g->size) EACH(i, g->kernel) EACH(j, g->kernel) {
        const int64_t at = landing(g, h, v, i, j), pixel = h * g->size + v, tap = i * g->kernel + j;
        if (at < 0) continue;
        const int64_t from = call->back ? at : pixel, to = call->back ? pixel : at;
        add_product(made + to * columns, a + from * rows, call->b + tap * rows * columns, rows, columns);
    }
}

// A tap of dw (k, k, C, O), from x and dy.
static void tap(const void *arguments, int64_t tap, int64_t member) {
    const Call *call = arguments;
    const Sizes *g = &call->g;
    const int64_t rows = g->channels, columns = g->out_channels, large = g->out_size * g->out_size;
    REAL *made = call->made + tap * rows * columns;
    memset(made, 0, sizeof(REAL) * rows * columns);
    EACH(n, g->images) EACH(h, g->size) EACH(v, g->size) {
        const int64_t at = landing(g, h, v, tap / g->kernel, tap % g->kernel);
        if (at < 0) continue;
        const REAL *x = call->a + ((n * g->size + h) * g->size + v) * rows;
        const REAL *dy = call->b + (n * large + at) * columns;
        EACH(r, rows) add_product(made + r * columns, x + r, dy, 1, columns);
    }
}

KERNEL(images)(const REAL *a, const REAL *w, REAL *made, const int64_t *sizes, int64_t back) {
    const Call call = {a, w, made, *(const Sizes *)sizes, back};
    share(image, &call, call.g.images);
}

KERNEL(taps)(const REAL *x, const REAL *dy, REAL *dw, const int64_t *sizes) {
    const Call call = {x, dy, dw, *(const Sizes *)sizes, 0};
    share(tap, &call, call.g.kernel * call.g.kernel);
}
