// Tiles: some rows by one or two vectors of columns of a product, summed up in registers.
//
// A tile of ROWS x 2 vectors fits in the registers, with two vectors of the right factor. Each number that is read of
// the left factor is used for all columns of the tile, and each vector of the right one for all rows: so the arithmetic
// is the limit, not the loads. The sums are in the order of k. The functions of tiles are inlined with constant `rows`
// and `wide`, so that their loops unroll.

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define ROWS (REGISTERS == 32 ? 12 : 6)

// Calls a function, of which `rows` is the first argument, with constant rows: `TILE_OF(rows, f, ...)`.
#define TILE_CASE(n, call, ...) \
    case n: call(n, __VA_ARGS__); break;
#define TILE_OF(rows, call, ...)                                                                          \
    switch (rows) {                                                                                       \
        TILE_CASE(1, call, __VA_ARGS__) TILE_CASE(2, call, __VA_ARGS__) TILE_CASE(3, call, __VA_ARGS__)   \
        TILE_CASE(4, call, __VA_ARGS__) TILE_CASE(5, call, __VA_ARGS__) TILE_CASE(6, call, __VA_ARGS__)   \
        TILE_CASE(8, call, __VA_ARGS__) TILE_CASE(12, call, __VA_ARGS__)                                  \
    }

// The rows of the next tile, of so many that are left: one of the cases above, which are few, since each is compiled.
static inline int64_t tile_rows(int64_t left) {
    return left >= ROWS ? ROWS : left > 6 ? (left >= 8 ? 8 : 6) : left;
}
