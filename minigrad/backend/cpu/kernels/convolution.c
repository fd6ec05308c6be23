// The three products of a convolution. They read their factors where these lie: no im2col, no col2im.
//
// Words: A row is one row of the left factor, such as all pixels and channels under the kernel at one position; a
// column is one channel of the result. The canvas is an image with zeros around it, its channels innermost. A row
// consists of segments, runs of numbers that lie side by side in the canvas: one tap of the kernel, or several. A
// piece is the part of a call that one thread computes at a time.
//
// gather: must equal ReferenceConvolution.convolve and convolve_input_gradient. Both are, for each row r and column o,
//
//     y[out[r] + o] = f(bias[o] + sum over s < segments, k < length of canvas[row[r] + segment[s] + k] b[s, k, o]),
//
//   f a leaky ReLU. The tables row, out and segment are a plan (minigrad/backend/cpu/plans.py). A convolution has one
//   plan, with a row for each position of the kernel. Its input gradient has one for each phase of the stride: pixels
//   of x that lie a stride apart meet the same taps of dy.
//   Operations: 2 for each number of a row and each column. Bytes: each image and each result once; b once in each
//   piece. A piece is a few images, with all columns; where the images are few, it has only some of the columns.
// pack: copies a weight into b, plan by plan, so that the columns of a tile lie side by side. Zeros fill the last tile.
// weight_gradient: must equal ReferenceConvolution.convolve_weight_gradient, up to the order of its numbers: here
//   (taps * C, O), with zeros behind O up to whole tiles. `each` images are a group, whose factors stay in the cache;
//   the sum over a group is added to the result. A piece has the groups of one of `parts` equal shares of the batch,
//   which have a result each, and the rows of one of `splits` equal shares of the result.
// weight_sum: the sum of the parts, in the order of a weight (O, C, kh, kw).
//
// Everything that depends on the geometry alone is in tables of int64, which are made once.

#define CHAIN 512  // products that are added up in a register
#define COLUMNS 4  // that are taken at a time where k lies along the columns

// A plan: where its tables begin among those of all plans.
typedef struct {
    int64_t rows, first_row, segments, first_segment, length;
    int64_t first_number;  // of a column of b
} NAME(Plan);

typedef struct {
    const REAL *x;
    int64_t along_n, along_h, along_w, along_c;                // strides of x, in numbers
    int64_t height, width, channels, top, left, canvas_height, canvas_width;
} NAME(Images);

typedef struct {
    NAME(Images) images;
    const REAL *b, *bias;
    REAL *y, *scratch;
    const NAME(Plan) *plans;
    const int64_t *row, *out, *segment;
    int64_t n, plan_count, columns, vectors, each, splits, scratch_each, y_each;
    REAL slope;
} NAME(Gather);

// Copies image `i` onto its canvas, zeros around it.
static void NAME(copy_to_canvas)(const NAME(Images) *m, int64_t i, REAL *place) {
    const REAL *x = m->x + i * m->along_n;
    const int64_t c = m->channels, line = m->canvas_width * c;
    memset(place, 0, sizeof(REAL) * m->top * line);
    memset(place + (m->top + m->height) * line, 0,
           sizeof(REAL) * (m->canvas_height - m->top - m->height) * line);
    for (int64_t h = 0; h < m->height; ++h) {
        REAL *to = place + (m->top + h) * line;
        const REAL *from = x + h * m->along_h;
        memset(to, 0, sizeof(REAL) * m->left * c);
        to += m->left * c;
        if (m->along_c == 1 && m->along_w == c) {
            memcpy(to, from, sizeof(REAL) * m->width * c);
        } else {
            for (int64_t w = 0; w < m->width; ++w)
                for (int64_t k = 0; k < c; ++k) to[w * c + k] = from[w * m->along_w + k * m->along_c];
        }
        memset(to + m->width * c, 0, sizeof(REAL) * (m->canvas_width - m->left - m->width) * c);
    }
}

// Adds the bias of a column, and applies the leaky ReLU.
INLINE REAL NAME(finish)(const REAL *bias, REAL slope, REAL sum, int64_t column) {
    if (bias) sum += bias[column];
    return slope == 1 ? sum : NAME(leaky)(sum, slope);
}

// The same of a vector of columns.
INLINE VECTOR NAME(finish_vector)(const REAL *bias, REAL slope, VECTOR sums, int64_t column) {
    if (bias) sums += *(const VECTOR *)(bias + column);
    if (slope == 1) return sums;
    const VECTOR_MASK below = sums <= 0;
    VECTOR scaled = {0};  // for a slope of 0: times infinity, it would be NaN
    if (slope != 0) scaled = sums * slope;
    return (VECTOR)(((VECTOR_MASK)scaled & below) | ((VECTOR_MASK)sums & ~below));
}

// `rows` rows by `wide` vectors of columns, from column `first` on. Sums of CHAIN products and more are put aside:
// in one long sum the rounding of each addition would be that of the whole.
INLINE void NAME(gather_tile)(const int rows, const int wide, const NAME(Gather) *g, const NAME(Plan) *p,
                              const REAL *const *row, REAL *const *out, const REAL *b, int64_t first) {
    VECTOR sums[ROWS][2];
    REAL total[ROWS][2 * LANES];
    const int64_t ahead = p->segments * p->length * wide * LANES;  // to the next columns
    int64_t chain = 0;
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < wide; ++v) *(VECTOR *)(total[r] + v * LANES) = sums[r][v] = (VECTOR){0};
    for (int64_t s = 0; s < p->segments; ++s)
        for (int64_t start = 0; start < p->length; start += CHAIN) {
            const int64_t stop = start + CHAIN < p->length ? start + CHAIN : p->length;
            const REAL *from[ROWS];
            UNROLL for (int r = 0; r < rows; ++r) from[r] = row[r] + g->segment[p->first_segment + s];
            for (int64_t k = start; k < stop; ++k, b += wide * LANES) {
                VECTOR factor[2];
                UNROLL for (int v = 0; v < wide; ++v) factor[v] = *(const VECTOR *)(b + v * LANES);
                UNROLL for (int v = 0; v < wide; ++v) __builtin_prefetch(b + ahead + v * LANES);
                UNROLL for (int r = 0; r < rows; ++r)
                    UNROLL for (int v = 0; v < wide; ++v) sums[r][v] += from[r][k] * factor[v];
            }
            chain += stop - start;
            if (chain < CHAIN) continue;
            UNROLL for (int r = 0; r < rows; ++r)
                UNROLL for (int v = 0; v < wide; ++v) {
                    *(VECTOR *)(total[r] + v * LANES) += sums[r][v];
                    sums[r][v] = (VECTOR){0};
                }
            chain = 0;
        }
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < wide; ++v) *(VECTOR *)(total[r] + v * LANES) += sums[r][v];
    const int64_t count = g->columns - first;  // of columns, and zeros behind them
    if (count >= wide * LANES) {
        for (int r = 0; r < rows; ++r)
            UNROLL for (int v = 0; v < wide; ++v) {
                const int64_t column = first + v * LANES;
                *(VECTOR *)(out[r] + column) =
                    NAME(finish_vector)(g->bias, g->slope, *(VECTOR *)(total[r] + v * LANES), column);
            }
        return;
    }
    for (int r = 0; r < rows; ++r)
        for (int64_t o = 0; o < count; ++o) out[r][first + o] = NAME(finish)(g->bias, g->slope, total[r][o], first + o);
}

// The same for a few columns, along which k lies: a vector of sums for each row and column, added up at the end.
INLINE void NAME(gather_columns)(const int rows, const int columns, const NAME(Gather) *g, const NAME(Plan) *p,
                                 const REAL *const *row, REAL *const *out, const REAL *b, int64_t first) {
    VECTOR sums[ROWS][COLUMNS];
    REAL rest[ROWS][COLUMNS];
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int c = 0; c < columns; ++c) sums[r][c] = (VECTOR){0}, rest[r][c] = 0;
    const int64_t whole = p->length / LANES * LANES, depth = p->segments * p->length;
    for (int64_t s = 0; s < p->segments; ++s, b += p->length) {
        const REAL *from[ROWS];
        UNROLL for (int r = 0; r < rows; ++r) from[r] = row[r] + g->segment[p->first_segment + s];
        for (int64_t k = 0; k < whole; k += LANES) {
            VECTOR factor[COLUMNS];
            UNROLL for (int c = 0; c < columns; ++c) factor[c] = *(const VECTOR *)(b + c * depth + k);
            UNROLL for (int r = 0; r < rows; ++r) {
                const VECTOR there = *(const VECTOR *)(from[r] + k);
                UNROLL for (int c = 0; c < columns; ++c) sums[r][c] += there * factor[c];
            }
        }
        for (int64_t k = whole; k < p->length; ++k)
            for (int r = 0; r < rows; ++r)
                for (int c = 0; c < columns; ++c) rest[r][c] += from[r][k] * b[c * depth + k];
    }
    REAL flat[ROWS * COLUMNS][LANES];
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int c = 0; c < columns; ++c) *(VECTOR *)flat[r * columns + c] = sums[r][c];
    UNROLL for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < rows * columns; ++i)
            for (int j = 0; j < half; ++j) flat[i][j] += flat[i][j + half];
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c)
            out[r][first + c] = NAME(finish)(g->bias, g->slope, flat[r * columns + c][0] + rest[r][c], first + c);
}

#define GATHER_1(rows, ...) NAME(gather_tile)(rows, 1, __VA_ARGS__)
#define GATHER_2(rows, ...) NAME(gather_tile)(rows, 2, __VA_ARGS__)
#define ALONG_1(rows, ...) NAME(gather_columns)(rows, 1, __VA_ARGS__)
#define ALONG_2(rows, ...) NAME(gather_columns)(rows, 2, __VA_ARGS__)
#define ALONG_3(rows, ...) NAME(gather_columns)(rows, 3, __VA_ARGS__)
#define ALONG_4(rows, ...) NAME(gather_columns)(rows, 4, __VA_ARGS__)

__attribute__((noinline)) static void NAME(gather_rows)(const NAME(Gather) *g, const NAME(Plan) *p, int64_t rows,
                                                        const REAL *const *row, REAL *const *out,
                                                        const REAL *b, int64_t first) {
    if (g->vectors == 2) {
        TILE_OF(rows, GATHER_2, g, p, row, out, b, first)
    } else {
        TILE_OF(rows, GATHER_1, g, p, row, out, b, first)
    }
}

// Up to COLUMNS columns along which k lies, in as many rows at a time as there are registers for.
__attribute__((noinline)) static void NAME(gather_rows_along)(const NAME(Gather) *g, const NAME(Plan) *p,
                                                              int64_t rows, const REAL *const *row,
                                                              REAL *const *out, const REAL *b, int64_t first) {
    const int64_t columns = g->columns - first < COLUMNS ? g->columns - first : COLUMNS;
    const int64_t most = columns < 3 ? ROWS : columns == 3 ? ROWS * 2 / 3 : ROWS / 2;
    for (int64_t left = rows, count; left > 0; left -= count, row += count, out += count) {
        count = left < most ? tile_rows(left) : most;
        if (columns == 1) {
            TILE_OF(count, ALONG_1, g, p, row, out, b, first)
        } else if (columns == 2) {
            TILE_OF(count, ALONG_2, g, p, row, out, b, first)
        } else if (columns == 3) {
            TILE_OF(count, ALONG_3, g, p, row, out, b, first)
        } else {
            TILE_OF(count, ALONG_4, g, p, row, out, b, first)
        }
    }
}

static void NAME(gather_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(Gather) *g = arguments;
    const NAME(Images) *m = &g->images;
    const int64_t start = piece / g->splits * g->each, stop = start + g->each < g->n ? start + g->each : g->n;
    const int64_t size = m->canvas_height * m->canvas_width * m->channels;
    const REAL *canvas = m->x + start * m->along_n;
    int64_t step = m->along_n;
    if (g->scratch) {
        REAL *place = g->scratch + member * g->scratch_each;
        for (int64_t i = start; i < stop; ++i) NAME(copy_to_canvas)(m, i, place + (i - start) * size);
        canvas = place;
        step = size;
    }
    const int64_t wide = g->vectors ? g->vectors * LANES : COLUMNS;
    const int64_t blocks = (g->columns + wide - 1) / wide, split = piece % g->splits;
    const int64_t stored = g->vectors ? blocks * wide : g->columns;  // columns of b
    for (const NAME(Plan) *p = g->plans; p < g->plans + g->plan_count; ++p) {
        const int64_t depth = p->segments * p->length;
        for (int64_t block = split; block < blocks; block += g->splits) {
            const REAL *b = g->b + p->first_number * stored + block * wide * depth;
            int64_t image = 0, r = 0;
            for (int64_t left = (stop - start) * p->rows; left > 0;) {
                const int64_t rows = tile_rows(left);
                const REAL *row[ROWS];
                REAL *out[ROWS];
                for (int64_t i = 0; i < rows; ++i) {
                    row[i] = canvas + image * step + g->row[p->first_row + r];
                    out[i] = g->y + (start + image) * g->y_each + g->out[p->first_row + r];
                    if (++r == p->rows) r = 0, ++image;
                }
                if (g->vectors) {
                    NAME(gather_rows)(g, p, rows, row, out, b, block * wide);
                } else {
                    NAME(gather_rows_along)(g, p, rows, row, out, b, block * wide);
                }
                left -= rows;
            }
        }
    }
}

// x: (n, height, width, channels), at these strides. b: as `pack` makes it, plan by plan. vectors: of a tile; 0 for
// columns along which k lies. bias: may be NULL.
// row, out, segment: the tables of all plans. scratch: for each of `members`, the canvases of `each`
// images; NULL where each image is its own canvas.
KERNEL(gather)(int64_t n, const REAL *x, int64_t along_n, int64_t along_h, int64_t along_w, int64_t along_c,
               int64_t height, int64_t width, int64_t channels, int64_t top, int64_t left, int64_t canvas_height,
               int64_t canvas_width, const REAL *b, const REAL *bias, REAL *y, int64_t y_each, int64_t columns,
               int64_t vectors, const int64_t *plans, int64_t plan_count, const int64_t *row,
               const int64_t *out, const int64_t *segment, int64_t each, int64_t splits, REAL *scratch,
               int64_t members, double slope) {
    const NAME(Gather) g = {
        {x, along_n, along_h, along_w, along_c, height, width, channels, top, left, canvas_height, canvas_width},
        b, bias, y, scratch, (const NAME(Plan) *)plans, row, out, segment, n, plan_count, columns, vectors, each,
        splits, each * canvas_height * canvas_width * channels, y_each, (REAL)slope,
    };
    share_among(NAME(gather_piece), &g, (n + each - 1) / each * splits, members);
}

// -- the factor b ------------------------------------------------------------------------------------

#define PACKED 16  // numbers along k of a piece: a line of the cache in float

typedef struct {
    const REAL *weight;
    REAL *b;
    const NAME(Plan) *plans;
    const int64_t *taps;
    int64_t inner, along_inner, columns, along_columns, wide, blocks, pieces_each;
    int64_t *not_finite;
} NAME(Pack);

// Whether a number of these is infinite or NaN.
static int NAME(any_not_finite)(const REAL *from, int64_t count) {
    int found = 0;
    for (int64_t i = 0; i < count; ++i) found |= !(from[i] - from[i] == 0);
    return found;
}

static void NAME(pack_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(Pack) *p = arguments;
    const NAME(Plan) *plan = p->plans + piece / (p->blocks * p->pieces_each);
    const int64_t *taps = p->taps + plan->first_number / p->inner, tap_count = plan->segments * plan->length / p->inner;
    const int64_t block = piece / p->pieces_each % p->blocks, first = piece % p->pieces_each * PACKED;
    const int64_t last = first + PACKED < p->inner ? first + PACKED : p->inner;
    const int64_t there = p->columns - block * p->wide, count = there < p->wide ? there : p->wide;
    const REAL *weight = p->weight + block * p->wide * p->along_columns;
    REAL *b = p->b + (plan->first_number * p->blocks + block * tap_count * p->inner) * p->wide;
    if (p->along_columns < p->along_inner) {  // along the nearer numbers first
        for (int64_t k = first; k < last; ++k)
            for (int64_t t = 0; t < tap_count; ++t) {
                const REAL *from = weight + k * p->along_inner + taps[t];
                REAL *to = b + (t * p->inner + k) * p->wide;
                if (p->along_columns == 1) {
                    memcpy(to, from, sizeof(REAL) * count);
                } else {
                    for (int64_t i = 0; i < count; ++i) to[i] = from[i * p->along_columns];
                }
            }
    } else {
        for (int64_t i = 0; i < count; ++i)
            for (int64_t t = 0; t < tap_count; ++t) {
                const REAL *from = weight + i * p->along_columns + taps[t];
                REAL *to = b + t * p->inner * p->wide + i;
                for (int64_t k = first; k < last; ++k) to[k * p->wide] = from[k * p->along_inner];
            }
    }
    for (int64_t t = 0; t < tap_count && count < p->wide; ++t)
        for (int64_t k = first; k < last; ++k)
            memset(b + (t * p->inner + k) * p->wide + count, 0, sizeof(REAL) * (p->wide - count));
    for (int64_t t = 0; t < tap_count && p->not_finite; ++t)
        if (NAME(any_not_finite)(b + (t * p->inner + first) * p->wide, (last - first) * p->wide))
            __atomic_store_n(p->not_finite, 1, __ATOMIC_RELAXED);
}

// b, of each plan (ceil(columns / wide), taps, inner, wide), from a weight at these strides. A tap is 1 apart from the
// next. taps: those of all plans. *not_finite becomes 1 if one of these numbers is infinite or NaN; it may be NULL.
KERNEL(pack)(const REAL *weight, REAL *b, const int64_t *plans, int64_t plan_count, const int64_t *taps,
             int64_t inner, int64_t along_inner, int64_t columns, int64_t along_columns, int64_t wide,
             int64_t *not_finite) {
    const NAME(Pack) p = {weight, b, (const NAME(Plan) *)plans, taps, inner, along_inner, columns, along_columns, wide,
                          (columns + wide - 1) / wide, (inner + PACKED - 1) / PACKED, not_finite};
    share(NAME(pack_piece), &p, plan_count * p.blocks * p.pieces_each);
}

// -- the weight gradient -------------------------------------------------------------------------------

typedef struct {
    NAME(Images) images, dy_images;
    REAL *dy, *dw, *canvas;
    const int64_t *row, *segment;
    int64_t n, positions, segments, length, columns, vectors, parts, splits, each, x_each, blocks, along_dy;
} NAME(Weights);

// Adds, to `rows` rows by `wide` vectors of dw, the products at all positions of some images. Sums of CHAIN products
// and more are put aside, as in `gather_tile`: they are added to dw, and begin anew.
INLINE void NAME(weight_tile)(const int rows, const int wide, const NAME(Weights) *w, const REAL *x,
                              const REAL *dy, int64_t images, REAL *dw) {
    const int64_t pitch = w->blocks * wide * LANES;
    VECTOR sums[ROWS][2];
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < wide; ++v) sums[r][v] = (VECTOR){0};
    int64_t chain = 0;
    for (int64_t i = 0; i < images; ++i, x += w->x_each)
        for (int64_t start = 0; start < w->positions; start += CHAIN) {
            const int64_t stop = start + CHAIN < w->positions ? start + CHAIN : w->positions;
            for (int64_t p = start; p < stop; ++p, dy += w->along_dy) {
                const REAL *a = x + w->row[p];
                VECTOR factor[2];
                UNROLL for (int v = 0; v < wide; ++v) factor[v] = *(const VECTOR *)(dy + v * LANES);
                UNROLL for (int r = 0; r < rows; ++r)
                    UNROLL for (int v = 0; v < wide; ++v) sums[r][v] += a[r] * factor[v];
            }
            chain += stop - start;
            if (chain < CHAIN) continue;
            UNROLL for (int r = 0; r < rows; ++r)
                UNROLL for (int v = 0; v < wide; ++v) {
                    *(VECTOR *)(dw + r * pitch + v * LANES) += sums[r][v];
                    sums[r][v] = (VECTOR){0};
                }
            chain = 0;
        }
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < wide; ++v) *(VECTOR *)(dw + r * pitch + v * LANES) += sums[r][v];
}

#define WEIGHT_1(rows, ...) NAME(weight_tile)(rows, 1, __VA_ARGS__)
#define WEIGHT_2(rows, ...) NAME(weight_tile)(rows, 2, __VA_ARGS__)

__attribute__((noinline)) static void NAME(weight_rows)(const NAME(Weights) *w, int64_t rows, const REAL *x,
                                                        const REAL *dy, int64_t images, REAL *dw) {
    if (w->vectors == 2) {
        TILE_OF(rows, WEIGHT_2, w, x, dy, images, dw)
    } else {
        TILE_OF(rows, WEIGHT_1, w, x, dy, images, dw)
    }
}

// Copies an image onto its canvas, and its dy to its place among that of a group: (blocks, positions, columns).
static void NAME(copy_factors)(const NAME(Weights) *w, int64_t image, REAL *canvas, REAL *dy, int64_t images) {
    const NAME(Images) *m = &w->dy_images;
    if (canvas) NAME(copy_to_canvas)(&w->images, image, canvas);
    const int64_t wide = w->vectors * LANES;
    for (int64_t block = 0; block < w->blocks; ++block, dy += images * w->positions * wide) {
        const int64_t left = w->columns - block * wide, count = left < wide ? left : wide;
        REAL *to = dy;
        for (int64_t h = 0; h < m->height; ++h)
            for (int64_t i = 0; i < m->width; ++i, to += wide) {
                const REAL *from = m->x + image * m->along_n + h * m->along_h + i * m->along_w +
                                   block * wide * m->along_c;
                if (m->along_c == 1) {
                    memcpy(to, from, sizeof(REAL) * count);
                } else {
                    for (int64_t o = 0; o < count; ++o) to[o] = from[o * m->along_c];
                }
                memset(to + count, 0, sizeof(REAL) * (wide - count));
            }
    }
}

// The images of the group in which an image is: the first, and how many.
static int64_t NAME(group_of)(const NAME(Weights) *w, int64_t image, int64_t *images) {
    const int64_t first = image / w->each * w->each, left = w->n - first;
    *images = left < w->each ? left : w->each;
    return first;
}

static void NAME(copy_factors_piece)(const void *arguments, int64_t image, int64_t member) {
    (void)member;
    const NAME(Weights) *w = arguments;
    int64_t images;
    const int64_t first = NAME(group_of)(w, image, &images), wide = w->vectors * LANES;
    REAL *dy = w->dy + (first * w->blocks + image - first) * w->positions * wide;
    NAME(copy_factors)(w, image, w->canvas ? w->canvas + image * w->x_each : NULL, dy, images);
}

static void NAME(weight_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(Weights) *w = arguments;
    const int64_t part = piece / w->splits, split = piece % w->splits, wide = w->vectors * LANES;
    const int64_t groups = (w->n + w->each - 1) / w->each, pitch = w->blocks * wide;
    const int64_t first_group = groups * part / w->parts, last_group = groups * (part + 1) / w->parts;
    const int64_t tiles = (w->length + ROWS - 1) / ROWS, all = w->segments * tiles;
    const int64_t first = all * split / w->splits, last = all * (split + 1) / w->splits;
    REAL *dw = w->dw + part * w->segments * w->length * pitch;
    for (int64_t group = first_group; group < last_group; ++group) {
        int64_t images;
        const int64_t image = NAME(group_of)(w, group * w->each, &images);
        // A piece with all rows copies the group itself, into the cache; others share copies that are made before.
        const int64_t place = w->splits == 1 ? member * w->each : image;
        REAL *canvas = w->canvas ? w->canvas + place * w->x_each : NULL, *dy = w->dy + place * w->positions * pitch;
        for (int64_t i = 0; i < images && w->splits == 1; ++i)
            NAME(copy_factors)(w, image + i, canvas ? canvas + i * w->x_each : NULL, dy + i * w->positions * wide,
                             images);
        const REAL *x = canvas ? canvas : w->images.x + image * w->x_each;
        for (int64_t b = 0; b < w->blocks; ++b)
            for (int64_t tile = first; tile < last; ++tile) {
                const int64_t s = tile / tiles, start_k = tile % tiles * ROWS;
                const int64_t stop_k = start_k + ROWS < w->length ? start_k + ROWS : w->length;
                for (int64_t k = start_k, rows; k < stop_k; k += rows) {
                    rows = tile_rows(stop_k - k);
                    REAL *to = dw + (s * w->length + k) * pitch + b * wide;
                    if (group == first_group)
                        for (int64_t r = 0; r < rows; ++r) memset(to + r * pitch, 0, sizeof(REAL) * wide);
                    NAME(weight_rows)(w, rows, x + w->segment[s] + k, dy + b * images * w->positions * wide, images,
                                      to);
                }
            }
    }
}

// dy_images: (n, out_height, out_width, columns), at these strides. row, segment: as in `gather`, of a convolution's
// plan. dw: (parts, taps * channels, pitch), pitch the columns up to whole tiles of `vectors`. dy: memory for
// (images, positions, pitch). canvas: memory for those of as many images, which are all of them, or `each` for each of
// `members` where there is one split; NULL where each image is its own canvas.
KERNEL(weight_gradient)(int64_t n, const REAL *x, int64_t along_n, int64_t along_h, int64_t along_w,
                        int64_t along_c, int64_t height, int64_t width, int64_t channels, int64_t top,
                        int64_t left, int64_t canvas_height, int64_t canvas_width, const REAL *dy_images,
                        int64_t dy_along_n, int64_t dy_along_h, int64_t dy_along_w, int64_t dy_along_c,
                        int64_t out_height, int64_t out_width, int64_t columns, REAL *dw, REAL *dy, REAL *canvas,
                        const int64_t *row, const int64_t *segment, int64_t segments, int64_t length,
                        int64_t vectors, int64_t parts, int64_t splits, int64_t each, int64_t members) {
    const int64_t size = canvas_height * canvas_width * channels, wide = vectors * LANES;
    const NAME(Weights) w = {
        {x, along_n, along_h, along_w, along_c, height, width, channels, top, left, canvas_height, canvas_width},
        {dy_images, dy_along_n, dy_along_h, dy_along_w, dy_along_c, out_height, out_width, columns, 0, 0,
         out_height, out_width},
        dy, dw, canvas, row, segment, n, out_height * out_width, segments, length, columns,
        vectors, parts, splits, each, canvas ? size : along_n, (columns + wide - 1) / wide, wide,
    };
    if (splits > 1) share(NAME(copy_factors_piece), &w, n);
    share_among(NAME(weight_piece), &w, parts * splits, splits > 1 ? MAX_MEMBERS : members);
}

#define TURNED 16  // taps, and columns, that are transposed at a time: a line of the cache in float

typedef struct {
    const REAL *dw;
    REAL *weight;
    int64_t parts, taps, channels, columns, pitch;
} NAME(WeightSum);

static void NAME(weight_sum_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(WeightSum) *w = arguments;
    const int64_t c = w->channels, first = piece * PACKED, last = first + PACKED < c ? first + PACKED : c;
    const int64_t part = w->taps * c * w->pitch;
    for (int64_t o = 0; o < w->columns; o += TURNED) {
        const int64_t count = o + TURNED < w->columns ? TURNED : w->columns - o;
        for (int64_t t = 0; t < w->taps; t += TURNED) {
            const int64_t taps = t + TURNED < w->taps ? TURNED : w->taps - t;
            REAL near[TURNED][PACKED][TURNED];
            for (int64_t i = 0; i < taps; ++i)
                for (int64_t k = first; k < last; ++k) {
                    const REAL *from = w->dw + ((t + i) * c + k) * w->pitch + o;
                    REAL *to = near[i][k - first];
                    for (int64_t j = 0; j < count; ++j) to[j] = from[j];
                    for (int64_t p = 1; p < w->parts; ++p)
                        for (int64_t j = 0; j < count; ++j) to[j] += from[p * part + j];
                }
            for (int64_t j = 0; j < count; ++j)
                for (int64_t k = first; k < last; ++k)
                    for (int64_t i = 0; i < taps; ++i)
                        w->weight[((o + j) * c + k) * w->taps + t + i] = near[i][k - first][j];
        }
    }
}

// The sum of the parts of `weight_gradient` as a weight (columns, channels, taps).
KERNEL(weight_sum)(const REAL *dw, REAL *weight, int64_t parts, int64_t taps, int64_t channels, int64_t columns,
                   int64_t pitch) {
    const NAME(WeightSum) w = {dw, weight, parts, taps, channels, columns, pitch};
    share(NAME(weight_sum_piece), &w, (channels + PACKED - 1) / PACKED);
}

#undef CHAIN
#undef PACKED
#undef TURNED
#undef GATHER_1
#undef GATHER_2
#undef ALONG_1
#undef ALONG_2
#undef ALONG_3
#undef ALONG_4
#undef COLUMNS
#undef WEIGHT_1
#undef WEIGHT_2
