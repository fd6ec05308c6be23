// Dropout, and in the same pass the leaky ReLU before it.
//
// dropout: y = leaky(x) * scale where an element is kept, 0 elsewhere, even if x is infinite or NaN. Must equal
//   Backend.dropout bit for bit if the slope is 1, else Backend.apply_epilogue. y may be x.
// dropout_mask: must equal Backend.dropout_mask bit for bit.
//
// Element i is dropped if draw i of the stream (philox.h) is below `limit` = p * 2^16; 2^16 drops all. Elements
// are numbered as they lie in memory. A piece is MIN_PIECE elements, DRAWN at a time.
// Bytes: x is read, y and one byte of mask an element are written. Operations: 20 products of 64 by 64 bits for 16
// elements.

#define DRAWN 1024

typedef struct {
    const REAL *x;
    REAL *y;
    uint8_t *mask;
    Place place;
    int32_t limit;
    REAL slope, scale;
    int64_t count;
} NAME(Dropout);

static inline void NAME(drop)(const NAME(Dropout) *a, int64_t start, int64_t count) {
    uint16_t draws[DRAWN];
    philox(a->place, (uint64_t)(start / DRAWS + 1), over(count, DRAWS), draws);
    const int32_t limit = a->limit;
    uint8_t *mask = a->mask + start;
    for (int64_t i = 0; i < count; ++i) mask[i] = draws[i] >= limit;
    if (a->x == NULL) return;
    const REAL *x = a->x + start, slope = a->slope, scale = a->scale;
    REAL *y = a->y + start;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = NAME(masked)(draws[i] >= limit, NAME(leaky)(x[i], slope) * scale);
}

static void NAME(dropout_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(Dropout) a = *(const NAME(Dropout) *)arguments;
    const int64_t start = piece * MIN_PIECE, stop = smaller(start + MIN_PIECE, a.count);
    for (int64_t at = start; at < stop; at += DRAWN) NAME(drop)(&a, at, smaller(DRAWN, stop - at));
}

// place: the two words of the key, and the four of the counter.
KERNEL(dropout)(const REAL *x, REAL *y, uint8_t *mask, const uint64_t *place, int64_t count, int64_t limit,
                double slope, double scale) {
    NAME(Dropout) a = {
        .x = x, .y = y, .mask = mask, .limit = (int32_t)limit, .slope = (REAL)slope, .scale = (REAL)scale,
        .count = count,
    };
    memcpy(&a.place, place, sizeof(a.place));
    share(NAME(dropout_piece), &a, over(count, MIN_PIECE));
}

KERNEL(dropout_mask)(uint8_t *mask, const uint64_t *place, int64_t count, int64_t limit) {
    NAME(dropout)(NULL, NULL, mask, place, count, limit, 1, 1);
}

#undef DRAWN
