// The product of two matrices, which may lie in memory by rows or by columns.
//
// product: must equal NumPy's a @ b, up to the order of sums: c[i, j] = sum over k of a[i, k] b[k, j].
//   A piece is a part of the rows and columns of c. It takes DEPTH numbers of k at a time, and then one tile of columns
//   after the other: it copies this part of b so that it is read in order, small enough for the nearest cache, and
//   multiplies it by all rows of the piece. Rows of a are read where they lie if k lies along them, or else copied too.
//   Source: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
//   Operations: 2 for each i, j and k. Bytes: in a product with few rows or columns, such as that of `Dense`, the
//   larger factor and the result, once each; they take longer than the arithmetic if fewer than about 50 numbers of
//   the other side meet each of theirs.

#define DEPTH 256     // numbers of k at a time: 32 KiB of b in a tile of floats
#define MOST_ROWS 252  // of a piece
#define PIECES 8      // at least, where there are so many tiles: for so many threads

typedef struct {
    const REAL *a, *b;
    REAL *c, *scratch;
    int64_t m, k, n, a_along_m, a_along_k, b_along_k, b_along_n, along_m, along_n;
    int64_t row_parts, column_parts;
} NAME(Product);

// Copies `count` columns of b, and zeros behind them: to (depth, wide).
static void NAME(copy_columns)(const REAL *b, int64_t along_k, int64_t along_n, int64_t depth, int64_t count,
                               int64_t wide, REAL *to) {
    if (along_n == 1 && count == wide) {
        for (int64_t k = 0; k < depth; ++k) memcpy(to + k * wide, b + k * along_k, sizeof(REAL) * wide);
        return;
    }
    for (int64_t first = 0; first < depth; first += LANES) {  // a square at a time, of which all lines stay near
        const int64_t last = smaller(first + LANES, depth);
        for (int64_t j = 0; j < wide; j += LANES)
            for (int64_t k = first; k < last; ++k)
                if (j + LANES <= count) {
                    for (int64_t i = 0; i < LANES; ++i) to[k * wide + j + i] = b[k * along_k + (j + i) * along_n];
                } else {
                    for (int64_t i = j; i < j + LANES; ++i)
                        to[k * wide + i] = i < count ? b[k * along_k + i * along_n] : 0;
                }
    }
}

// Multiplies `rows` rows of a by `wide` vectors of columns, and writes or adds the sums to c. Meanwhile it fetches, for
// each k, the line of the cache at `next`, which is copied soon.
INLINE void NAME(product_tile)(const int rows, const int wide, const NAME(Product) *p, const REAL *a, int64_t along_m,
                               int64_t along_k, const REAL *b, int64_t depth, const REAL *next, REAL *c, int64_t count,
                               bool adds) {
    VECTOR sums[ROWS][2];
    const REAL *row[ROWS];
    UNROLL for (int r = 0; r < rows; ++r) {
        row[r] = a + r * along_m;
        UNROLL for (int v = 0; v < wide; ++v) sums[r][v] = (VECTOR){0};
    }
    for (int64_t k = 0, place = 0; k < depth; ++k, place += along_k, b += wide * LANES, next += p->b_along_k) {
        __builtin_prefetch(next);
        VECTOR factor[2];
        UNROLL for (int v = 0; v < wide; ++v) factor[v] = *(const VECTOR *)(b + v * LANES);
        UNROLL for (int r = 0; r < rows; ++r)
            UNROLL for (int v = 0; v < wide; ++v) sums[r][v] += row[r][place] * factor[v];
    }
    if (p->along_n == 1 && count == wide * LANES) {
        UNROLL for (int r = 0; r < rows; ++r)
            UNROLL for (int v = 0; v < wide; ++v) {
                VECTOR *to = (VECTOR *)(c + r * p->along_m + v * LANES);
                if (adds) sums[r][v] += *to;
                *to = sums[r][v];
            }
        return;
    }
    REAL total[ROWS][2 * LANES];
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < wide; ++v) *(VECTOR *)(total[r] + v * LANES) = sums[r][v];
    for (int r = 0; r < rows; ++r)
        for (int64_t j = 0; j < count; ++j) {
            REAL *to = c + r * p->along_m + j * p->along_n;
            *to = adds ? *to + total[r][j] : total[r][j];
        }
}

#define PRODUCT_1(rows, ...) NAME(product_tile)(rows, 1, __VA_ARGS__)
#define PRODUCT_2(rows, ...) NAME(product_tile)(rows, 2, __VA_ARGS__)

__attribute__((noinline)) static void NAME(product_rows)(const NAME(Product) *p, int64_t rows, int64_t wide,
                                                         const REAL *a, int64_t along_m, int64_t along_k,
                                                         const REAL *b, int64_t depth, const REAL *next, REAL *c,
                                                         int64_t count, bool adds) {
    if (wide == 2) {
        TILE_OF(rows, PRODUCT_2, p, a, along_m, along_k, b, depth, next, c, count, adds)
    } else {
        TILE_OF(rows, PRODUCT_1, p, a, along_m, along_k, b, depth, next, c, count, adds)
    }
}

static void NAME(product_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(Product) *p = arguments;
    const int64_t row_tiles = over(p->m, ROWS), column_tiles = over(p->n, 2 * LANES);
    const int64_t down = piece / p->column_parts, across = piece % p->column_parts;
    const int64_t top = row_tiles * down / p->row_parts * ROWS;
    const int64_t rows = smaller(row_tiles * (down + 1) / p->row_parts * ROWS, p->m) - top;
    const int64_t left = column_tiles * across / p->column_parts * 2 * LANES;
    const int64_t right = smaller(column_tiles * (across + 1) / p->column_parts * 2 * LANES, p->n);
    REAL *tile = p->scratch + member * DEPTH * (2 * LANES + MOST_ROWS), *copied = tile + DEPTH * 2 * LANES;
    for (int64_t first = 0; first < p->k; first += DEPTH) {
        const int64_t depth = smaller(DEPTH, p->k - first);
        const REAL *a = p->a + top * p->a_along_m + first * p->a_along_k;
        int64_t along_m = p->a_along_m, along_k = p->a_along_k;
        if (along_k != 1) {
            for (int64_t k = 0; k < depth; ++k)
                for (int64_t i = 0; i < rows; ++i) copied[k * rows + i] = a[k * along_k + i * along_m];
            a = copied, along_m = 1, along_k = rows;
        }
        for (int64_t j = left, wide; j < right; j += wide * LANES) {
            wide = right - j > LANES ? 2 : 1;
            const int64_t count = smaller(wide * LANES, right - j);
            const REAL *b = p->b + first * p->b_along_k + j * p->b_along_n;
            // The tile that is copied next: to the right, or at the left again, further down.
            const REAL *soon = j + wide * LANES < right
                ? b + wide * LANES * p->b_along_n
                : p->b + (first + depth) * p->b_along_k + left * p->b_along_n;
            NAME(copy_columns)(b, p->b_along_k, p->b_along_n, depth, count, wide * LANES, tile);
            for (int64_t i = 0, high; i < rows; i += high) {
                REAL *c = p->c + (top + i) * p->along_m + j * p->along_n;
                // One half of its columns, and the other.
                const REAL *next = soon + i / ROWS % 2 * LANES * p->b_along_n;
                high = tile_rows(rows - i);
                NAME(product_rows)(p, high, wide, a + i * along_m, along_m, along_k, tile, depth, next, c, count,
                                   first > 0);
            }
        }
    }
}

// a: (m, k), b: (k, n), and c: (m, n), each at its two strides, in numbers. scratch: for each of `members`, at least
// DEPTH (2 LANES + MOST_ROWS) numbers.
KERNEL(product)(const REAL *a, int64_t a_along_m, int64_t a_along_k, const REAL *b, int64_t b_along_k,
                int64_t b_along_n, REAL *c, int64_t along_m, int64_t along_n, int64_t m, int64_t k, int64_t n,
                REAL *scratch, int64_t members) {
    int64_t row_parts = over(m, MOST_ROWS);
    const int64_t column_parts = smaller(over(n, 2 * LANES), over(PIECES, row_parts));
    row_parts = larger(row_parts, smaller(over(m, ROWS), over(PIECES, column_parts)));
    const NAME(Product) p = {a, b, c, scratch, m, k, n, a_along_m, a_along_k, b_along_k, b_along_n, along_m, along_n,
                             row_parts, column_parts};
    share_among(NAME(product_piece), &p, row_parts * column_parts, members);
}

#undef DEPTH
#undef MOST_ROWS
#undef PIECES
#undef PRODUCT_1
#undef PRODUCT_2
