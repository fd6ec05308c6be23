// Convolution in the frequency domain: transforms of images and of the weight, and products of channels by frequency.
//
// minigrad/backend/cpu/frequency.py explains it, and calls the kernels. Arrays of transforms are (numbers, N,
// channels): a number for each real frequency, then two for each complex one, its real and its imaginary part. Unused
// memory lies between two numbers: else they often lie a power of two apart, and such addresses share few places in
// the cache.
//
// transform: a linear map in two steps (transforms.py). Each step has blocks. For one block and each column i < width,
//
//     out[to[r] + i] = f(bias[i] + sum over k < depth of factors[k, r] in[from[k] + i]),  r < rows,
//
//   where f is a leaky ReLU and, like the bias, belongs to the second step only. Must equal the product with the
//   matrix of the whole map. Operations: 2 a number of the blocks and a column. Bytes: each item is read and written
//   once; the results of the first step stay in the cache. A piece is an item, such as an image.
// transform_weight: the same of a weight, for products whose columns lie tile by tile: (blocks of columns, inner,
//   columns of a tile) for each number. A piece is a block of columns, and INNER of the inner channels.
// frequency_products: for each complex frequency, with image a + ib and kernel c + id, both matrices, the product
//   (a + ib)(c + id), by three products of real matrices (Gauss):
//
//     k = (a + b) c,   real part k - b (c + d),   imaginary part k + a (d - c).
//
// frequency_weights: the gradient of that by c + id: with dy = p + iq, t = (a - b).T q,
//
//     real part a.T (p + q) - t,   imaginary part t - b.T (p - q).
//
//   Operations of both: 6 for each image, channel and channel of the result. A piece is a frequency: its factors, and
//   the sums of them that are multiplied, stay in the cache.

#define INNER 16
#define SPARE 16  // unused numbers between two places of scratch memory, for the same reason

// A block: its size, and where its factors and its places begin.
typedef struct {
    int64_t rows, depth, factors, from, to;
} NAME(Block);

// `first` blocks of the first step, then those of the second, `blocks` in all.
typedef struct {
    const REAL *factors;
    const NAME(Block) *table;
    const int64_t *places;
    int64_t first, blocks;
} NAME(Steps);

// Rows of a block: factors and places are theirs.
typedef struct {
    const REAL *factors, *in, *bias;
    REAL *out;
    const int64_t *from, *to;
    int64_t pitch, depth, in_step, out_step, width;
    REAL slope;
} NAME(Mix);

INLINE void NAME(mix_tile)(const int rows, const int wide, const NAME(Mix) *m, int64_t first) {
    VECTOR sums[12][2];
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < wide; ++v) sums[r][v] = (VECTOR){0};
    const REAL *factor = m->factors, *in = m->in + first;
    for (int64_t k = 0; k < m->depth; ++k, factor += m->pitch) {
        const REAL *there = in + m->from[k] * m->in_step;
        VECTOR column[2];
        UNROLL for (int v = 0; v < wide; ++v) column[v] = *(const VECTOR *)(there + v * LANES);
        UNROLL for (int r = 0; r < rows; ++r)
            UNROLL for (int v = 0; v < wide; ++v) sums[r][v] += factor[r] * column[v];
    }
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < wide; ++v) {
            const int64_t at = first + v * LANES;
            *(VECTOR *)(m->out + m->to[r] * m->out_step + at) = NAME(finish_vector)(m->bias, m->slope, sums[r][v], at);
        }
}

INLINE void NAME(mix_columns)(const int rows, const NAME(Mix) *m) {
    int64_t first = 0;
    for (; first + 2 * LANES <= m->width; first += 2 * LANES) NAME(mix_tile)(rows, 2, m, first);
    if (first < m->width) NAME(mix_tile)(rows, 1, m, first);
}

__attribute__((noinline)) static void NAME(mix_rows)(int64_t rows, const NAME(Mix) *m) {
    switch (rows) {
        TILE_CASE(7, NAME(mix_columns), m) TILE_CASE(9, NAME(mix_columns), m)
        TILE_CASE(10, NAME(mix_columns), m) TILE_CASE(11, NAME(mix_columns), m)
        default: TILE_OF(rows, NAME(mix_columns), m)
    }
}

static void NAME(mix)(const NAME(Steps) *s, int64_t first, int64_t last, const REAL *in, int64_t in_step, REAL *out,
                      int64_t out_step, int64_t width, const REAL *bias, REAL slope) {
    for (const NAME(Block) *b = s->table + first; b < s->table + last; ++b) {
        const int64_t tiles = over(b->rows, ROWS);
        for (int64_t tile = 0; tile < tiles; ++tile) {  // of about equal size
            const int64_t row = b->rows * tile / tiles, rows = b->rows * (tile + 1) / tiles - row;
            const NAME(Mix) m = {s->factors + b->factors + row, in, bias, out, s->places + b->from,
                                 s->places + b->to + row, b->rows, b->depth, in_step, out_step, width, slope};
            NAME(mix_rows)(rows, &m);
        }
    }
}

typedef struct {
    NAME(Steps) steps;
    const REAL *in, *bias;
    REAL *out, *between;
    int64_t in_item, in_step, out_item, out_step, width, between_each;
    REAL slope;
} NAME(Transform);

static void NAME(transform_piece)(const void *arguments, int64_t item, int64_t member) {
    const NAME(Transform) *t = arguments;
    const int64_t step = t->width + SPARE;
    REAL *between = t->between + member * t->between_each;
    NAME(mix)(&t->steps, 0, t->steps.first, t->in + item * t->in_item, t->in_step, between, step, t->width, NULL, 1);
    NAME(mix)(&t->steps, t->steps.first, t->steps.blocks, between, step, t->out + item * t->out_item, t->out_step,
              t->width, t->bias, t->slope);
}

// Numbers of one place lie side by side: `width`, a multiple of LANES. The distance of two places is `in_step` in an
// item that is read and `out_step` in one that is written. between: memory for `between_each` numbers for each of
// `members`. bias: (width,), may be NULL.
KERNEL(transform)(const REAL *factors, const int64_t *table, const int64_t *places, int64_t first, int64_t blocks,
                  const REAL *in, int64_t in_item, int64_t in_step, REAL *out, int64_t out_item, int64_t out_step,
                  int64_t width, int64_t items, REAL *between, int64_t between_each, int64_t members,
                  const REAL *bias, double slope) {
    const NAME(Transform) t = {
        {factors, (const NAME(Block) *)table, places, first, blocks},
        in, bias, out, between, in_item, in_step, out_item, out_step, width, between_each, (REAL)slope,
    };
    share_among(NAME(transform_piece), &t, items, members);
}

typedef struct {
    NAME(Steps) steps;
    const REAL *weight;
    REAL *out, *scratch;
    const int64_t *taps;
    int64_t tap_count, inner, along_inner, along_columns, wide, out_block, out_step, scratch_each, between;
} NAME(TransformWeight);

static void NAME(transform_weight_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(TransformWeight) *t = arguments;
    const int64_t parts = t->inner / INNER, block = piece / parts, first = piece % parts * INNER, wide = t->wide;
    const int64_t width = INNER * wide, step = width + SPARE;
    const REAL *weight = t->weight + block * wide * t->along_columns + first * t->along_inner;
    REAL *between = t->scratch + member * t->scratch_each, *near = between + t->between * step;
    const bool across = t->along_columns < t->along_inner;  // the nearer numbers in the inner loops
    for (int64_t a = 0; a < (across ? INNER : wide); ++a)
        for (int64_t b = 0; b < (across ? wide : INNER); ++b) {
            const int64_t k = across ? a : b, i = across ? b : a;
            const REAL *from = weight + i * t->along_columns + k * t->along_inner;
            for (int64_t tap = 0; tap < t->tap_count; ++tap)
                near[t->taps[tap] * step + k * wide + i] = from[t->taps[tap]];
        }
    NAME(mix)(&t->steps, 0, t->steps.first, near, step, between, step, width, NULL, 1);
    NAME(mix)(&t->steps, t->steps.first, t->steps.blocks, between, step,
              t->out + block * t->out_block + first * wide, t->out_step, width, NULL, 1);
}

// inner: a multiple of INNER; columns: of wide. Their taps lie side by side. scratch: for each of `members`, memory for
// the places between the steps and for all taps, INNER * wide numbers each.
KERNEL(transform_weight)(const REAL *factors, const int64_t *table, const int64_t *places, int64_t first,
                         int64_t blocks, const REAL *weight, const int64_t *taps, int64_t tap_count, int64_t inner,
                         int64_t along_inner, int64_t columns, int64_t along_columns, int64_t wide, REAL *out,
                         int64_t out_block, int64_t out_step, REAL *scratch, int64_t scratch_each, int64_t members,
                         int64_t between) {
    const NAME(TransformWeight) t = {
        {factors, (const NAME(Block) *)table, places, first, blocks},
        weight, out, scratch, taps, tap_count, inner, along_inner, along_columns, wide, out_block, out_step,
        scratch_each, between,
    };
    share_among(NAME(transform_weight_piece), &t, columns / wide * (inner / INNER), members);
}

typedef struct {
    const REAL *left, *right;
    REAL *out, *scratch;
    int64_t real, n, inner, columns, vectors, along_left, along_right, along_out, turned, scratch_each;
} NAME(Frequencies);

static void NAME(products_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(Frequencies) *f = arguments;
    const int64_t number = piece < f->real ? piece : 2 * piece - f->real, size = f->inner * f->columns;
    const REAL *a = f->left + number * f->along_left, *c = f->right + number * f->along_right;
    REAL *re = f->out + number * f->along_out;
    NAME(Packed) p = {a, c, NULL, re, 1, 1, f->n, f->inner, f->columns};
    if (piece < f->real) {
        NAME(product_by_rows)(f->vectors, p);
        return;
    }
    const REAL *b = a + f->along_left, *d = c + f->along_right;
    REAL *im = re + f->along_out;
    if (f->turned) {
        const REAL *other = a;
        a = b, b = other;
        REAL *part = re;
        re = im, im = part;
    }
    REAL *restrict sum = f->scratch + member * f->scratch_each, *restrict plus = sum + f->n * f->inner;
    REAL *restrict minus = plus + size;
    for (int64_t i = 0; i < f->n * f->inner; ++i) sum[i] = a[i] + b[i];
    for (int64_t i = 0; i < size; ++i) plus[i] = c[i] + d[i], minus[i] = d[i] - c[i];
    p.left = sum, p.to = re;
    NAME(product_by_rows)(f->vectors, p);
    p.left = a, p.right = minus, p.base = re, p.to = im;
    NAME(product_by_rows)(f->vectors, p);
    p.left = b, p.right = plus, p.to = re, p.sign = -1;
    NAME(product_by_rows)(f->vectors, p);
}

// left: (numbers, n, inner); right: (numbers, columns / wide, inner, wide), wide = vectors * LANES; out: (numbers, n,
// columns); their numbers `along_...` apart. `real` frequencies, then pairs of numbers. turned: the real and the
// imaginary part change places, in `left` and in `out`, as the gradient by `left` needs it.
// scratch: n * inner + 2 * inner * columns numbers for each of `members`.
KERNEL(frequency_products)(const REAL *left, const REAL *right, REAL *out, int64_t real, int64_t numbers, int64_t n,
                           int64_t inner, int64_t columns, int64_t vectors, int64_t along_left, int64_t along_right,
                           int64_t along_out, int64_t turned, REAL *scratch, int64_t scratch_each, int64_t members) {
    const NAME(Frequencies) f = {left, right, out, scratch, real, n, inner, columns, vectors, along_left, along_right,
                                 along_out, turned, scratch_each};
    share_among(NAME(products_piece), &f, real + (numbers - real) / 2, members);
}

// Copies `count` columns of a + sign * b into one panel: (n, count). b may be NULL.
INLINE void NAME(into_panel)(const int64_t count, const REAL *restrict a, const REAL *restrict b, REAL sign, int64_t n,
                             int64_t columns, REAL *restrict to) {
    for (int64_t i = 0; i < n; ++i, a += columns, to += count) {
        if (b == NULL) {
            for (int64_t j = 0; j < count; ++j) to[j] = a[j];
            continue;
        }
        for (int64_t j = 0; j < count; ++j) to[j] = a[j] + sign * b[j];
        b += columns;
    }
}

// Copies a + sign * b, (n, columns), into panels of `wide` columns, or of tiles of rows where `wide` is 0. The usual
// widths are passed as constants, for which the compiler turns the loops over a panel's columns into a few vectors.
static void NAME(into_panels)(const REAL *a, const REAL *b, REAL sign, int64_t n, int64_t columns, int64_t wide,
                              REAL *to) {
    for (int64_t first = 0, count; first < columns; first += count) {
        const REAL *other = b ? b + first : NULL;
        count = wide ? wide : tile_rows(columns - first);
        if (count == ROWS) NAME(into_panel)(ROWS, a + first, other, sign, n, columns, to);
        else if (count == 2 * LANES) NAME(into_panel)(2 * LANES, a + first, other, sign, n, columns, to);
        else NAME(into_panel)(count, a + first, other, sign, n, columns, to);
        to += n * count;
    }
}

static void NAME(frequency_weights_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(Frequencies) *f = arguments;
    const int64_t number = piece < f->real ? piece : 2 * piece - f->real;
    const int64_t left = f->n * f->inner, wide = f->vectors * LANES;
    const REAL *a = f->left + number * f->along_left, *p = f->right + number * f->along_right;
    REAL *re = f->out + number * f->along_out, *to = f->scratch + member * f->scratch_each;
    NAME(Packed) m = {to, to + left, NULL, re, 1, 1, f->inner, f->n, f->columns};
    if (piece < f->real) {
        NAME(into_panels)(a, NULL, 0, f->n, f->inner, 0, to);
        NAME(into_panels)(p, NULL, 0, f->n, f->columns, wide, to + left);
        NAME(product_of_panels)(f->vectors, m);
        return;
    }
    const REAL *b = a + f->along_left, *q = p + f->along_right;
    REAL *im = re + f->along_out;
    NAME(into_panels)(a, b, -1, f->n, f->inner, 0, to);
    NAME(into_panels)(q, NULL, 0, f->n, f->columns, wide, to + left);
    m.to = im;
    NAME(product_of_panels)(f->vectors, m);
    NAME(into_panels)(a, NULL, 0, f->n, f->inner, 0, to);
    NAME(into_panels)(p, q, 1, f->n, f->columns, wide, to + left);
    m.base = im, m.side = -1, m.to = re;
    NAME(product_of_panels)(f->vectors, m);
    NAME(into_panels)(b, NULL, 0, f->n, f->inner, 0, to);
    NAME(into_panels)(p, q, -1, f->n, f->columns, wide, to + left);
    m.side = 1, m.sign = -1, m.to = im;
    NAME(product_of_panels)(f->vectors, m);
}

// left: (numbers, n, inner), right: (numbers, n, columns), out: (numbers, inner, columns); columns: a multiple of
// vectors * LANES. scratch: n * (inner + columns) numbers for each of `members`.
KERNEL(frequency_weights)(const REAL *left, const REAL *right, REAL *out, int64_t real, int64_t numbers, int64_t n,
                          int64_t inner, int64_t columns, int64_t vectors, int64_t along_left, int64_t along_right,
                          int64_t along_out, REAL *scratch, int64_t scratch_each, int64_t members) {
    const NAME(Frequencies) f = {left, right, out, scratch, real, n, inner, columns, vectors, along_left, along_right,
                                 along_out, 0, scratch_each};
    share_among(NAME(frequency_weights_piece), &f, real + (numbers - real) / 2, members);
}

#undef INNER
#undef SPARE
