// Products of packed matrices, as transforms of images and weights are (frequency.c, winograd.c).
//
// to = side * base + sign * left @ right, with `rows` by `columns` numbers. The columns are whole vectors. All of a
// call runs on one thread, which has its factors in the cache.

#define CHAIN 128  // products that are added up in a register

// base may be NULL, or `to`. `right` lies tile by tile of columns. `left` lies row by row, or in `panels`: tile by tile
// of rows, (depth, rows of the tile).
typedef struct {
    const REAL *left, *right, *base;
    REAL *to, side, sign;
    int64_t rows, depth, columns;
} NAME(Packed);

INLINE void NAME(packed_tile)(const int rows, const int wide, const int panels, const NAME(Packed) *p, int64_t row,
                               int64_t first, int64_t start, int64_t stop) {
    VECTOR sums[ROWS][2];
    const REAL *from[ROWS], *panel = p->left + row * p->depth;
    UNROLL for (int r = 0; r < rows; ++r) {
        from[r] = p->left + (row + r) * p->depth;
        UNROLL for (int v = 0; v < wide; ++v) sums[r][v] = (VECTOR){0};
    }
    const REAL *b = p->right + first * p->depth + start * wide * LANES;
    // The next factors lie behind these: tiles of rows fetch one vector of them, and then the other.
    const REAL *next = b + (stop - start) * wide * LANES + row / ROWS % wide * LANES;
    for (int64_t k = start; k < stop; ++k, b += wide * LANES, next += wide * LANES) {
        __builtin_prefetch(next);
        VECTOR factor[2];
        UNROLL for (int v = 0; v < wide; ++v) factor[v] = *(const VECTOR *)(b + v * LANES);
        UNROLL for (int r = 0; r < rows; ++r)
            UNROLL for (int v = 0; v < wide; ++v)
                sums[r][v] += (panels ? panel[k * rows + r] : from[r][k]) * factor[v];
    }
    const REAL *base = start ? p->to : p->base, side = start ? 1 : p->side;
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < wide; ++v) {
            const int64_t at = (row + r) * p->columns + first + v * LANES;
            VECTOR sum = p->sign * sums[r][v];
            if (base) sum += side * *(const VECTOR *)(base + at);
            *(VECTOR *)(p->to + at) = sum;
        }
}

#define BY_ROWS_1(rows, ...) NAME(packed_tile)(rows, 1, 0, __VA_ARGS__)
#define BY_ROWS_2(rows, ...) NAME(packed_tile)(rows, 2, 0, __VA_ARGS__)
#define PANELS_1(rows, ...) NAME(packed_tile)(rows, 1, 1, __VA_ARGS__)
#define PANELS_2(rows, ...) NAME(packed_tile)(rows, 2, 1, __VA_ARGS__)

// Sums of more than CHAIN products are added up in parts: in one long sum the rounding of each addition would be that
// of the whole.
INLINE void NAME(packed_product)(const int vectors, const int panels, NAME(Packed) p) {
    const int64_t wide = vectors * LANES;
    for (int64_t first = 0; first < p.columns; first += wide)
        for (int64_t start = 0; start < p.depth; start += CHAIN) {
            const int64_t stop = smaller(start + CHAIN, p.depth);
            for (int64_t row = 0, rows; row < p.rows; row += rows) {
                rows = tile_rows(p.rows - row);
                if (panels && vectors == 2) {
                    TILE_OF(rows, PANELS_2, &p, row, first, start, stop)
                } else if (panels) {
                    TILE_OF(rows, PANELS_1, &p, row, first, start, stop)
                } else if (vectors == 2) {
                    TILE_OF(rows, BY_ROWS_2, &p, row, first, start, stop)
                } else {
                    TILE_OF(rows, BY_ROWS_1, &p, row, first, start, stop)
                }
            }
        }
}

__attribute__((noinline)) static void NAME(product_by_rows)(int64_t vectors, NAME(Packed) p) {
    if (vectors == 2) NAME(packed_product)(2, 0, p);
    else NAME(packed_product)(1, 0, p);
}

__attribute__((noinline)) static void NAME(product_of_panels)(int64_t vectors, NAME(Packed) p) {
    if (vectors == 2) NAME(packed_product)(2, 1, p);
    else NAME(packed_product)(1, 1, p);
}

#undef CHAIN
#undef BY_ROWS_1
#undef BY_ROWS_2
#undef PANELS_1
#undef PANELS_2
