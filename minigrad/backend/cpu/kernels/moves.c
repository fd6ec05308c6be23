// Copies into another memory order.
//
// swap: y[n, j, i] = x[n, i, j]: images from (N, C, H W) to channels innermost, (N, H W, C), or back. Must equal
//   NumPy's copy of a transposed view. A piece is at least one n, and as many as have MIN_PIECE numbers.
// Bytes: each number is read and written once, in squares of SIDE x SIDE, so that all of a cache line is used.

#define SIDE 16

typedef struct {
    const REAL *x;
    REAL *y;
    int64_t count, rows, columns;
    int64_t each;  // items n of a piece
} NAME(Swap);

static void NAME(swap_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(Swap) a = *(const NAME(Swap) *)arguments;
    const int64_t size = a.rows * a.columns, stop = smaller((piece + 1) * a.each, a.count);
    for (int64_t n = piece * a.each; n < stop; ++n) {
        const REAL *restrict x = a.x + n * size;
        REAL *restrict y = a.y + n * size;
        for (int64_t up = 0; up < a.columns; up += SIDE)
            for (int64_t left = 0; left < a.rows; left += SIDE)
                for (int64_t j = up; j < smaller(up + SIDE, a.columns); ++j)
                    for (int64_t i = left; i < smaller(left + SIDE, a.rows); ++i)
                        y[j * a.rows + i] = x[i * a.columns + j];
    }
}

KERNEL(swap)(const REAL *x, REAL *y, int64_t count, int64_t rows, int64_t columns) {
    const int64_t each = larger(1, MIN_PIECE / larger(1, rows * columns));
    const NAME(Swap) a = {x, y, count, rows, columns, each};
    share(NAME(swap_piece), &a, over(count, each));
}

#undef SIDE
