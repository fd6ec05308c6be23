// Convolution in the frequency domain: transforms by matrices of constants, and products of channels by frequency.
//
// minigrad/backend/cpu/frequency.py explains it, and calls the kernels. Arrays of transforms are (frequencies, N,
// channels), with unused numbers between two frequencies: else frequencies often lie a power of two apart, and such
// addresses share few places in the cache.
//
// mix: for each item, out[to[r] + i] = f(bias[i] + sum over k < depth of matrix[r, k] in[from[k] + i]), i < width, f a
//   leaky ReLU. A transform of images, of kernels, or back. Operations: 2 a number of the matrix and of the width.
//   A piece is an item.
// frequency_products: must equal out[q] = image[q] @ kernel[q] for each frequency q, (N, inner) by (inner, columns);
//   the kernel in the order of `pack`. A piece is a frequency.
// frequency_weights: must equal dw[q] = image[q].T @ dy[q], (inner, N) by (N, columns). A piece is a frequency.

typedef struct {
    const REAL *matrix, *in, *bias;
    REAL *out;
    const int64_t *from, *to;
    int64_t rows, depth, width, inner, in_outer, in_inner, out_outer, out_inner;
    REAL slope;
} NAME(Mix);

INLINE void NAME(mix_tile)(const int rows, const int wide, const NAME(Mix) *m, const REAL *matrix, const REAL *in,
                           REAL *out, const int64_t *to, int64_t first) {
    VECTOR sums[ROWS][2];
    const REAL *factor[ROWS];
    UNROLL for (int r = 0; r < rows; ++r) {
        factor[r] = matrix + r * m->depth;
        UNROLL for (int v = 0; v < wide; ++v) sums[r][v] = (VECTOR){0};
    }
    for (int64_t k = 0; k < m->depth; ++k) {
        const REAL *b = in + m->from[k] + first;
        VECTOR there[2];
        UNROLL for (int v = 0; v < wide; ++v) there[v] = *(const VECTOR *)(b + v * LANES);
        UNROLL for (int v = 0; v < wide; ++v) __builtin_prefetch(b + (wide + v) * LANES);  // of the next columns
        UNROLL for (int r = 0; r < rows; ++r)
            UNROLL for (int v = 0; v < wide; ++v) sums[r][v] += factor[r][k] * there[v];
    }
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < wide; ++v) {
            const int64_t column = first + v * LANES;
            *(VECTOR *)(out + to[r] + column) = NAME(finish_vector)(m->bias, m->slope, sums[r][v], column);
        }
}

#define MIX_1(rows, ...) NAME(mix_tile)(rows, 1, __VA_ARGS__)
#define MIX_2(rows, ...) NAME(mix_tile)(rows, 2, __VA_ARGS__)

__attribute__((noinline)) static void NAME(mix_rows)(const NAME(Mix) *m, int64_t rows, int64_t wide,
                                                     const REAL *matrix, const REAL *in, REAL *out,
                                                     const int64_t *to, int64_t first) {
    if (wide == 2) {
        TILE_OF(rows, MIX_2, m, matrix, in, out, to, first)
    } else {
        TILE_OF(rows, MIX_1, m, matrix, in, out, to, first)
    }
}

static void NAME(mix_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(Mix) *m = arguments;
    const int64_t outer = piece / m->inner, inner = piece % m->inner;
    const REAL *in = m->in + outer * m->in_outer + inner * m->in_inner;
    REAL *out = m->out + outer * m->out_outer + inner * m->out_inner;
    for (int64_t first = 0, wide; first < m->width; first += wide * LANES) {
        wide = m->width - first >= 2 * LANES ? 2 : 1;
        for (int64_t row = 0, rows; row < m->rows; row += rows) {
            rows = tile_rows(m->rows - row);
            NAME(mix_rows)(m, rows, wide, m->matrix + row * m->depth, in, out, m->to + row, first);
        }
    }
}

// outer x inner items; the width is a multiple of LANES. bias: (width,), may be NULL.
KERNEL(mix)(const REAL *matrix, int64_t rows, int64_t depth, const REAL *in, const int64_t *from, REAL *out,
            const int64_t *to, int64_t width, int64_t outer, int64_t inner, int64_t in_outer, int64_t in_inner,
            int64_t out_outer, int64_t out_inner, const REAL *bias, double slope) {
    const NAME(Mix) m = {matrix, in, bias, out, from, to, rows, depth, width, inner, in_outer, in_inner, out_outer,
                         out_inner, (REAL)slope};
    share(NAME(mix_piece), &m, outer * inner);
}

typedef struct {
    NAME(Gather) gather;
    NAME(Plan) plan;
    const REAL *image;
    REAL *out;
    int64_t n, inner, along_image, along_kernel, along_out;
} NAME(Products);

static void NAME(products_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(Products) *p = arguments;
    const int64_t wide = p->gather.vectors * LANES, columns = p->gather.columns;
    const REAL *image = p->image + piece * p->along_image;
    const REAL *kernel = p->gather.b + piece * p->along_kernel;
    REAL *y = p->out + piece * p->along_out;
    for (int64_t first = 0; first < columns; first += wide, kernel += p->inner * wide)
        for (int64_t i = 0, rows; i < p->n; i += rows) {
            const REAL *row[ROWS];
            REAL *out[ROWS];
            rows = tile_rows(p->n - i);
            for (int64_t r = 0; r < rows; ++r) row[r] = image + (i + r) * p->inner, out[r] = y + (i + r) * columns;
            NAME(gather_rows)(&p->gather, &p->plan, rows, row, out, kernel, first);
        }
}

KERNEL(frequency_products)(const REAL *image, const REAL *kernel, REAL *out, int64_t frequencies, int64_t n,
                           int64_t inner, int64_t columns, int64_t vectors, int64_t along_image, int64_t along_kernel,
                           int64_t along_out) {
    const int64_t segment = 0;
    const NAME(Products) p = {
        {.b = kernel, .segment = &segment, .columns = columns, .vectors = vectors, .slope = 1},
        {.segments = 1, .length = inner},
        image, out, n, inner, along_image, along_kernel, along_out,
    };
    share(NAME(products_piece), &p, frequencies);
}

typedef struct {
    NAME(Weights) weights;
    const REAL *image, *dy;
    REAL *dw;
    int64_t inner, along_image, along_dy, along_dw;
} NAME(FrequencyWeights);

static void NAME(frequency_weights_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(FrequencyWeights) *w = arguments;
    const int64_t wide = w->weights.vectors * LANES, columns = w->weights.blocks * wide;
    const REAL *image = w->image + piece * w->along_image, *dy = w->dy + piece * w->along_dy;
    REAL *dw = w->dw + piece * w->along_dw;
    memset(dw, 0, sizeof(REAL) * w->inner * columns);
    for (int64_t first = 0; first < columns; first += wide)
        for (int64_t k = 0, rows; k < w->inner; k += rows) {
            rows = tile_rows(w->inner - k);
            NAME(weight_rows)(&w->weights, rows, image + k, dy + first, 1, dw + k * columns + first);
        }
}

// row: where the rows of an image's transform begin, (n,). columns: a multiple of vectors * LANES.
KERNEL(frequency_weights)(const REAL *image, const REAL *dy, REAL *dw, const int64_t *row, int64_t frequencies,
                          int64_t n, int64_t inner, int64_t columns, int64_t vectors, int64_t along_image,
                          int64_t along_dy, int64_t along_dw) {
    const NAME(FrequencyWeights) w = {
        {.row = row, .positions = n, .vectors = vectors, .blocks = columns / (vectors * LANES),
         .along_dy = columns},
        image, dy, dw, inner, along_image, along_dy, along_dw,
    };
    share(NAME(frequency_weights_piece), &w, frequencies);
}

#undef MIX_1
#undef MIX_2
