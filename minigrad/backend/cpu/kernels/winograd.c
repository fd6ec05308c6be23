// Convolution by Winograd's minimal filtering: fewer multiplications for small kernels.
//
// minigrad/backend/cpu/winograd.py explains it, and calls the kernels. With a stride, pixels that lie a stride apart
// are a phase. A square of m x m pixels of the result depends on a square of `size` x `size` pixels of each phase of
// the image. Both are transformed, channel by channel, to size x size numbers each. The numbers of all squares at one
// of these places are a plane. In a plane, the convolution is a product of matrices over the channels.
//
// winograd_convolve: must equal ReferenceConvolution.convolve. The squares of the image are transformed, multiplied by
//   the weight, and transformed to squares of the result.
// winograd_input_gradient: must equal ReferenceConvolution.convolve_input_gradient. The same backwards, with the
//   transposed matrices. Squares of the image overlap, so they are added up on a canvas.
//   A piece is a few images, `chunk` squares at a time, whose transforms stay in the cache.
//   Operations: 2 size^2 / m^2 for each pixel of the result, phase, channel of the image and channel of the result, and
//   about a tenth more for the transforms. Bytes: images and results once; the weight once for each chunk.
// winograd_weight: the transform of a weight, in the order in which the products read it.
// winograd_weight_gradient: must equal ReferenceConvolution.convolve_weight_gradient. The squares of a group of images
//   and of dy are transformed, their products are added up over all squares, and the sums are transformed back.

#define LARGEST 4  // size of a square
#define APART 48  // unused numbers between two planes
#define MOST_TAPS 64  // of a kernel

typedef struct {
    int64_t n, height, width, channels, top, left, canvas_height, canvas_width;  // of images
    int64_t stride_h, stride_w, out_height, out_width, columns;                  // of results
    int64_t m, size, each, chunk, scratch_each;
    const REAL *from, *u, *bias;
    REAL *to, *scratch;
    REAL slope;
} NAME(Winograd);

// The place of a square: the image, and its first pixel in the result.
typedef struct {
    int64_t image, row, column;
} NAME(Square);

// The squares of a result lie in four regions: whole squares, those that the right edge cuts, those that the bottom
// edge cuts, and the one that both cut. A cut square lacks its last row or column, and so needs no products at
// infinity.
typedef struct {
    int64_t row, column, down, across;  // the first square, and how many there are
    int64_t high, wide;                 // planes with products, along both axes
} NAME(Region);

#define REGIONS 4

// The steps: transforms of squares of the image, of the result and of the weight; and back, by the transposed matrices.
// TO_RESULT also leads back to a weight: both are polynomials, of which V gives values.
enum { NAME(OF_IMAGE), NAME(OF_RESULT), NAME(OF_WEIGHT), NAME(TO_IMAGE), NAME(TO_RESULT) };

// The matrix V: its row number `point` gives the value of a polynomial with so many coefficients at 0, 1, -1 (for a
// size of 4) or infinity, the last one, where it is the last coefficient.
INLINE REAL NAME(value_at)(const int size, const int count, const int point, const int coefficient) {
    if (point == 0) return coefficient == 0;
    if (point == size - 1) return coefficient == count - 1;
    return point == 2 && coefficient % 2 ? -1 : 1;
}

// The inverse of the square V, transposed.
INLINE REAL NAME(coefficient_of)(const int size, const int row, const int column) {
    static const REAL of_3[3][3] = {{1, -1, 0}, {0, 1, 0}, {0, -1, 1}};
    static const REAL of_4[4][4] = {
        {1, 0, -1, 0}, {0, (REAL)0.5, (REAL)0.5, 0}, {0, (REAL)-0.5, (REAL)0.5, 0}, {0, -1, 0, 1}};
    return size == 3 ? of_3[row][column] : of_4[row][column];
}

// An element of the (q, p) matrix of a step.
INLINE REAL NAME(element)(const int step, const int p, const int q, const int row, const int column) {
    if (step == NAME(OF_IMAGE)) return NAME(coefficient_of)(p, row, column);
    if (step == NAME(TO_IMAGE)) return NAME(coefficient_of)(p, column, row);
    if (step == NAME(TO_RESULT)) return NAME(value_at)(p, q, column, row);
    return NAME(value_at)(q, p, row, column);
}

// The product of a row of the matrix of a step and p vectors, `apart` from each other. Zeros are left out.
INLINE VECTOR NAME(combined)(const int step, const int p, const int q, const int row, const VECTOR *in,
                             const int apart) {
    VECTOR sum = {0};
    bool begun = false;
    UNROLL for (int i = 0; i < p; ++i) {
        const REAL factor = NAME(element)(step, p, q, row, i);
        if (factor == 0) continue;
        VECTOR term = in[i * apart];
        if (factor == -1) term = -term;
        else if (factor != 1) term *= factor;
        if (begun) sum += term;
        else sum = term;
        begun = true;
    }
    return sum;
}

// made = matrix in matrix^T, with the matrix of a step: (q, p) by (p, p) by (p, q), a vector of channels at a time.
INLINE void NAME(both_sides)(const int step, const int p, const int q, const VECTOR *in, VECTOR *made) {
    VECTOR half[LARGEST * LARGEST];  // (p, q)
    UNROLL for (int i = 0; i < p; ++i)
        UNROLL for (int k = 0; k < q; ++k) half[i * q + k] = NAME(combined)(step, p, q, k, in + i * p, 1);
    UNROLL for (int k = 0; k < q; ++k)
        UNROLL for (int l = 0; l < q; ++l) made[l * q + k] = NAME(combined)(step, p, q, l, half + k, q);
}

// The same for a weight: from taps x taps to size x size numbers (OF_WEIGHT), or back (TO_RESULT).
__attribute__((noinline)) static void NAME(transform_taps)(bool back, int64_t taps, int64_t size, const VECTOR *in,
                                                           VECTOR *made) {
    if (back && size == 3) NAME(both_sides)(NAME(TO_RESULT), 3, 2, in, made);
    else if (back && taps == 2) NAME(both_sides)(NAME(TO_RESULT), 4, 2, in, made);
    else if (back) NAME(both_sides)(NAME(TO_RESULT), 4, 3, in, made);
    else if (size == 3) NAME(both_sides)(NAME(OF_WEIGHT), 2, 3, in, made);
    else if (taps == 2) NAME(both_sides)(NAME(OF_WEIGHT), 2, 4, in, made);
    else NAME(both_sides)(NAME(OF_WEIGHT), 3, 4, in, made);
}

static NAME(Region) NAME(region_of)(const NAME(Winograd) *w, int64_t number) {
    const int64_t m = w->m, down = w->out_height / m, across = w->out_width / m;
    const bool bottom = number / 2, right = number % 2;
    return (NAME(Region)){bottom ? down : 0,
                          right ? across : 0,
                          bottom ? w->out_height % m != 0 : down,
                          right ? w->out_width % m != 0 : across,
                          w->size - bottom,
                          w->size - right};
}

static inline int64_t NAME(squares_each)(const NAME(Region) *r) { return r->down * r->across; }

static NAME(Square) NAME(square_of)(const NAME(Winograd) *w, const NAME(Region) *r, int64_t number) {
    const int64_t each = NAME(squares_each)(r), place = number % each;
    return (NAME(Square)){number / each, (r->row + place / r->across) * w->m,
                          (r->column + place % r->across) * w->m};
}

// Returns true if the squares of a region have products in a plane.
static inline bool NAME(has_plane)(const NAME(Winograd) *w, const NAME(Region) *r, int64_t plane) {
    return plane / w->size < r->high && plane % w->size < r->wide;
}

static inline int64_t NAME(inner)(const NAME(Winograd) *w) { return w->stride_h * w->stride_w * w->channels; }

// The distance of two planes of transforms. Else they often lie a power of two apart, and such addresses share few
// places in the cache.
static inline int64_t NAME(plane)(const NAME(Winograd) *w, int64_t channels) { return w->chunk * channels + APART; }

// The place of a phase's square on a canvas, in numbers.
static inline int64_t NAME(place_of)(const NAME(Winograd) *w, NAME(Square) s, int64_t phase) {
    const int64_t row = s.row * w->stride_h + phase / w->stride_w;
    const int64_t column = s.column * w->stride_w + phase % w->stride_w;
    return (row * w->canvas_width + column) * w->channels;
}

// The distances on a canvas from a pixel of a phase to the one below it, and to the one on its right, in numbers.
static inline int64_t NAME(down)(const NAME(Winograd) *w) { return w->stride_h * w->canvas_width * w->channels; }
static inline int64_t NAME(across)(const NAME(Winograd) *w) { return w->stride_w * w->channels; }

// Transforms a square of a canvas to a row of `image`: (size^2, chunk, phases * channels) if `block` is LANES. Else
// blocks of LANES channels lie `block` numbers apart.
INLINE void NAME(read_image_of)(const int size, const NAME(Winograd) *w, const REAL *canvas, NAME(Square) s,
                                REAL *image, int64_t block) {
    const int64_t plane = NAME(plane)(w, NAME(inner)(w)), down = NAME(down)(w), across = NAME(across)(w);
    VECTOR in[LARGEST * LARGEST], made[LARGEST * LARGEST];
    for (int64_t phase = 0; phase < w->stride_h * w->stride_w; ++phase) {
        const REAL *from = canvas + NAME(place_of)(w, s, phase);
        for (int64_t c = 0; c < w->channels; c += LANES, image += block) {
            UNROLL for (int i = 0; i < size; ++i)
                UNROLL for (int j = 0; j < size; ++j)
                    in[i * size + j] = *(const VECTOR *)(from + i * down + j * across + c);
            NAME(both_sides)(NAME(OF_IMAGE), size, size, in, made);
            UNROLL for (int f = 0; f < size * size; ++f) *(VECTOR *)(image + f * plane) = made[f];
        }
    }
}

static void NAME(read_image)(const NAME(Winograd) *w, const REAL *canvas, NAME(Square) s, REAL *image, int64_t block) {
    if (w->size == 3) NAME(read_image_of)(3, w, canvas, s, image, block);
    else NAME(read_image_of)(4, w, canvas, s, image, block);
}

// Transforms a row of `image` back, and adds it to a canvas.
INLINE void NAME(add_image_of)(const int size, const NAME(Winograd) *w, const REAL *image, NAME(Square) s,
                               REAL *canvas) {
    const int64_t down = NAME(down)(w), across = NAME(across)(w), plane = NAME(plane)(w, NAME(inner)(w));
    VECTOR in[LARGEST * LARGEST], made[LARGEST * LARGEST];
    for (int64_t phase = 0; phase < w->stride_h * w->stride_w; ++phase, image += w->channels) {
        REAL *to = canvas + NAME(place_of)(w, s, phase);
        for (int64_t c = 0; c < w->channels; c += LANES) {
            UNROLL for (int f = 0; f < size * size; ++f) in[f] = *(const VECTOR *)(image + f * plane + c);
            NAME(both_sides)(NAME(TO_IMAGE), size, size, in, made);
            UNROLL for (int i = 0; i < size; ++i)
                UNROLL for (int j = 0; j < size; ++j)
                    *(VECTOR *)(to + i * down + j * across + c) += made[i * size + j];
        }
    }
}

static void NAME(add_image)(const NAME(Winograd) *w, const REAL *image, NAME(Square) s, REAL *canvas) {
    if (w->size == 3) NAME(add_image_of)(3, w, image, s, canvas);
    else NAME(add_image_of)(4, w, image, s, canvas);
}

// The columns of a tile of products: two vectors if they fill tiles.
static inline int64_t NAME(wide_of)(int64_t columns) { return columns % (2 * LANES) ? LANES : 2 * LANES; }

// Transforms a square of a result, zeros past its edges, to a row of `result`: (size^2, chunk, columns), or tile by
// tile of columns. Planes are `plane` numbers apart, tiles `tile`.
INLINE void NAME(read_result_of)(const int m, const int size, const NAME(Winograd) *w, const REAL *from,
                                 NAME(Square) s, REAL *result, int64_t plane, int64_t tile) {
    const int64_t wide = NAME(wide_of)(w->columns), rows = w->out_height - s.row, across = w->out_width - s.column;
    VECTOR in[LARGEST * LARGEST], made[LARGEST * LARGEST];
    from += (s.row * w->out_width + s.column) * w->columns;
    for (int64_t o = 0; o < w->columns; o += LANES) {
        UNROLL for (int i = 0; i < m; ++i)
            UNROLL for (int j = 0; j < m; ++j) {
                in[i * m + j] = (VECTOR){0};
                if (i < rows && j < across)
                    in[i * m + j] = *(const VECTOR *)(from + (i * w->out_width + j) * w->columns + o);
            }
        NAME(both_sides)(NAME(OF_RESULT), m, size, in, made);
        REAL *to = result + o / wide * tile + o % wide;
        UNROLL for (int f = 0; f < size * size; ++f) *(VECTOR *)(to + f * plane) = made[f];
    }
}

static void NAME(read_result)(const NAME(Winograd) *w, const REAL *from, NAME(Square) s, REAL *result, int64_t plane,
                              int64_t tile) {
    if (w->m == 3) NAME(read_result_of)(3, 4, w, from, s, result, plane, tile);
    else if (w->size == 3) NAME(read_result_of)(2, 3, w, from, s, result, plane, tile);
    else NAME(read_result_of)(2, 4, w, from, s, result, plane, tile);
}

// Transforms a row of `result` back, and finishes the pixels of the square that the result has.
INLINE void NAME(write_result_of)(const int m, const int size, const NAME(Winograd) *w, const REAL *result,
                                  NAME(Square) s, REAL *to) {
    const int64_t plane = NAME(plane)(w, w->columns), rows = w->out_height - s.row, across = w->out_width - s.column;
    VECTOR in[LARGEST * LARGEST], made[LARGEST * LARGEST];
    to += (s.row * w->out_width + s.column) * w->columns;
    for (int64_t o = 0; o < w->columns; o += LANES) {
        UNROLL for (int f = 0; f < size * size; ++f) in[f] = *(const VECTOR *)(result + f * plane + o);
        NAME(both_sides)(NAME(TO_RESULT), size, m, in, made);
        UNROLL for (int i = 0; i < m; ++i)
            UNROLL for (int j = 0; j < m; ++j)
                if (i < rows && j < across)
                    *(VECTOR *)(to + (i * w->out_width + j) * w->columns + o) =
                        NAME(finish_vector)(w->bias, w->slope, made[i * m + j], o);
    }
}

static void NAME(write_result)(const NAME(Winograd) *w, const REAL *result, NAME(Square) s, REAL *to) {
    if (w->m == 3) NAME(write_result_of)(3, 4, w, result, s, to);
    else if (w->size == 3) NAME(write_result_of)(2, 3, w, result, s, to);
    else NAME(write_result_of)(2, 4, w, result, s, to);
}

// c = a u in the planes in which a region has products, zeros in the others: (count, inner) by (inner, columns). Planes
// of a and c have room for `chunk` rows.
static void NAME(square_products)(const NAME(Winograd) *w, const NAME(Region) *r, const REAL *a, int64_t inner,
                                  REAL *c, int64_t columns, int64_t count) {
    const REAL *u = w->u;
    for (int64_t f = 0; f < w->size * w->size; ++f, u += inner * columns) {
        REAL *to = c + f * NAME(plane)(w, columns);
        const NAME(Packed) p = {a + f * NAME(plane)(w, inner), u, NULL, to, 1, 1, count, inner, columns};
        if (NAME(has_plane)(w, r, f)) NAME(product_by_rows)(NAME(wide_of)(columns) / LANES, p);
        else memset(to, 0, sizeof(REAL) * count * columns);
    }
}

static NAME(Images) NAME(images_of)(const NAME(Winograd) *w) {
    return (NAME(Images)){w->from, w->height * w->width * w->channels, w->width * w->channels, w->channels, 1,
                          w->height, w->width, w->channels, w->top, w->left, w->canvas_height, w->canvas_width};
}

// Squares of one region that are transformed together: `count` of those of some images, from number `first` on.
typedef struct {
    NAME(Region) region;
    int64_t number, first, count;  // the region's number
} NAME(Chunk);

// Goes to the next squares of so many images. Returns whether there are any.
static bool NAME(next_chunk)(const NAME(Winograd) *w, int64_t images, NAME(Chunk) *c) {
    c->first += c->count;
    for (; c->number < REGIONS; ++c->number, c->first = 0) {
        c->region = NAME(region_of)(w, c->number);
        c->count = smaller(w->chunk, images * NAME(squares_each)(&c->region) - c->first);
        if (c->count > 0) return true;
    }
    return false;
}

// A piece: its images, and its part of the scratch memory.
typedef struct {
    int64_t start, images;
    int64_t inner, canvas_each, result_each;  // channels of all phases; numbers of a canvas, and of a result in memory
    REAL *canvas, *image, *result;            // canvases, and the transforms of a chunk
} NAME(WinogradPiece);

static NAME(WinogradPiece) NAME(winograd_piece)(const NAME(Winograd) *w, int64_t piece, int64_t member) {
    NAME(WinogradPiece) p = {.start = piece * w->each, .inner = NAME(inner)(w)};
    p.images = smaller(w->each, w->n - p.start);
    p.canvas_each = w->canvas_height * w->canvas_width * w->channels;
    p.result_each = w->out_height * w->out_width * w->columns;
    p.canvas = w->scratch + member * w->scratch_each;
    p.image = p.canvas + w->each * p.canvas_each;
    p.result = p.image + w->size * w->size * NAME(plane)(w, p.inner);
    return p;
}

static void NAME(winograd_convolve_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(Winograd) *w = arguments;
    const NAME(WinogradPiece) p = NAME(winograd_piece)(w, piece, member);
    const NAME(Images) m = NAME(images_of)(w);
    for (int64_t i = 0; i < p.images; ++i) NAME(copy_to_canvas)(&m, p.start + i, p.canvas + i * p.canvas_each);
    NAME(Chunk) c = {.number = 0};
    while (NAME(next_chunk)(w, p.images, &c)) {
        for (int64_t i = 0; i < c.count; ++i) {
            const NAME(Square) s = NAME(square_of)(w, &c.region, c.first + i);
            NAME(read_image)(w, p.canvas + s.image * p.canvas_each, s, p.image + i * p.inner, LANES);
        }
        NAME(square_products)(w, &c.region, p.image, p.inner, p.result, w->columns, c.count);
        for (int64_t i = 0; i < c.count; ++i) {
            const NAME(Square) s = NAME(square_of)(w, &c.region, c.first + i);
            NAME(write_result)(w, p.result + i * w->columns, s, w->to + (p.start + s.image) * p.result_each);
        }
    }
}

// Copies the image on a canvas to its place, and finishes its pixels.
static void NAME(copy_from_canvas)(const NAME(Winograd) *w, const REAL *canvas, REAL *to) {
    for (int64_t h = 0; h < w->height; ++h)
        for (int64_t i = 0; i < w->width; ++i, to += w->channels) {
            const REAL *from = canvas + ((w->top + h) * w->canvas_width + w->left + i) * w->channels;
            for (int64_t c = 0; c < w->channels; c += LANES)
                *(VECTOR *)(to + c) = NAME(finish_vector)(w->bias, w->slope, *(const VECTOR *)(from + c), c);
        }
}

static void NAME(winograd_input_gradient_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(Winograd) *w = arguments;
    const NAME(WinogradPiece) p = NAME(winograd_piece)(w, piece, member);
    memset(p.canvas, 0, sizeof(REAL) * p.images * p.canvas_each);
    NAME(Chunk) c = {.number = 0};
    while (NAME(next_chunk)(w, p.images, &c)) {
        for (int64_t i = 0; i < c.count; ++i) {
            const NAME(Square) s = NAME(square_of)(w, &c.region, c.first + i);
            NAME(read_result)(w, w->from + (p.start + s.image) * p.result_each, s, p.result + i * w->columns,
                              NAME(plane)(w, w->columns), NAME(wide_of)(w->columns));
        }
        NAME(square_products)(w, &c.region, p.result, w->columns, p.image, p.inner, c.count);
        for (int64_t i = 0; i < c.count; ++i) {
            const NAME(Square) s = NAME(square_of)(w, &c.region, c.first + i);
            NAME(add_image)(w, p.image + i * p.inner, s, p.canvas + s.image * p.canvas_each);
        }
    }
    for (int64_t i = 0; i < p.images; ++i)
        NAME(copy_from_canvas)(w, p.canvas + i * p.canvas_each,
                               w->to + (p.start + i) * w->height * w->width * w->channels);
}

// from: (n, height, width, channels). to: (n, out_height, out_width, columns).
// u: as `winograd_weight` makes it. bias: may be NULL. scratch: for each of `members`, the canvases of `each` images,
// and size^2 (chunk channels + APART) numbers for the channels of all phases, and for the columns.
KERNEL(winograd_convolve)(int64_t n, const REAL *from, int64_t height, int64_t width, int64_t channels, int64_t top,
                          int64_t left, int64_t canvas_height, int64_t canvas_width, int64_t stride_h,
                          int64_t stride_w, REAL *to, int64_t out_height, int64_t out_width, int64_t columns,
                          int64_t m, int64_t size, const REAL *u,
                          const REAL *bias, int64_t each, int64_t chunk, REAL *scratch, int64_t scratch_each,
                          int64_t members, double slope) {
    const NAME(Winograd) w = {
        n, height, width, channels, top, left, canvas_height, canvas_width, stride_h, stride_w, out_height, out_width,
        columns, m, size, each, chunk, scratch_each, from, u, bias, to, scratch, (REAL)slope};
    share_among(NAME(winograd_convolve_piece), &w, over(n, each), members);
}

// The same with `from` and `to` exchanged.
KERNEL(winograd_input_gradient)(int64_t n, REAL *to, int64_t height, int64_t width, int64_t channels, int64_t top,
                                int64_t left, int64_t canvas_height, int64_t canvas_width, int64_t stride_h,
                                int64_t stride_w, const REAL *from, int64_t out_height, int64_t out_width,
                                int64_t columns, int64_t m, int64_t size,
                                const REAL *u, const REAL *bias, int64_t each, int64_t chunk, REAL *scratch,
                                int64_t scratch_each, int64_t members, double slope) {
    const NAME(Winograd) w = {
        n, height, width, channels, top, left, canvas_height, canvas_width, stride_h, stride_w, out_height, out_width,
        columns, m, size, each, chunk, scratch_each, from, u, bias, to, scratch, (REAL)slope};
    share_among(NAME(winograd_input_gradient_piece), &w, over(n, each), members);
}

// -- the weight --------------------------------------------------------------------------------------

typedef struct {
    const REAL *weight;
    REAL *u, *made;  // the transform of a weight, and a weight made of one
    int64_t channels, columns, kh, kw, stride_h, stride_w, size, taps, along_k, along_lane;
    bool by_inner;
    int64_t parts, sums_each;
} NAME(WinogradWeight);

// The number of the tap (i, j) of a phase, in the kernel; -1 if the phase lacks it.
static inline int64_t NAME(tap_of)(const NAME(WinogradWeight) *w, int64_t phase, int64_t i, int64_t j) {
    const int64_t row = i * w->stride_h + phase / w->stride_w, column = j * w->stride_w + phase % w->stride_w;
    return row < w->kh && column < w->kw ? row * w->kw + column : -1;
}

// The taps of a phase, of a vector of columns: those that it lacks are zeros.
static void NAME(taps_of)(const NAME(WinogradWeight) *w, const REAL near[][LANES], int64_t phase, VECTOR *in) {
    for (int64_t i = 0; i < w->taps; ++i)
        for (int64_t j = 0; j < w->taps; ++j) {
            const int64_t tap = NAME(tap_of)(w, phase, i, j);
            in[i * w->taps + j] = (VECTOR){0};
            if (tap >= 0) in[i * w->taps + j] = *(const VECTOR *)near[tap];
        }
}

static void NAME(winograd_weight_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(WinogradWeight) *w = arguments;
    const int64_t phases = w->stride_h * w->stride_w, size = w->size * w->size, count = w->kh * w->kw;
    const int64_t lane_blocks = (w->by_inner ? w->channels : w->columns) / LANES, lane = piece % lane_blocks * LANES;
    const int64_t first = piece / lane_blocks * LANES, there = w->by_inner ? w->columns : w->channels;
    const int64_t inner = w->by_inner ? w->columns : phases * w->channels;  // rows of u, and its columns
    const int64_t columns = w->by_inner ? phases * w->channels : w->columns, wide = NAME(wide_of)(columns);
    REAL near[MOST_TAPS][LANES];
    VECTOR in[LARGEST * LARGEST], made[LARGEST * LARGEST];
    for (int64_t k = first; k < smaller(first + LANES, there); ++k) {
        const REAL *from = w->weight + k * w->along_k + lane * w->along_lane;
        for (int64_t t = 0; t < count; ++t)
            for (int64_t i = 0; i < LANES; ++i) near[t][i] = from[i * w->along_lane + t];
        for (int64_t phase = 0; phase < phases; ++phase) {
            const int64_t row = w->by_inner ? k : phase * w->channels + k;
            const int64_t column = w->by_inner ? phase * w->channels + lane : lane;
            REAL *to = w->u + column / wide * wide * inner + row * wide + column % wide;
            NAME(taps_of)(w, near, phase, in);
            NAME(transform_taps)(false, w->taps, w->size, in, made);
            for (int64_t f = 0; f < size; ++f) *(VECTOR *)(to + f * inner * columns) = made[f];
        }
    }
}

// u: (size^2, blocks of columns, rows, columns of a block), from a weight (columns, channels, kh, kw). Rows are the
// phases and channels, and columns those of the weight; or the other way round if `by_inner`.
KERNEL(winograd_weight)(const REAL *weight, REAL *u, int64_t channels, int64_t columns, int64_t kh,
                        int64_t kw, int64_t stride_h, int64_t stride_w, int64_t size, int64_t taps, int64_t by_inner) {
    const int64_t each = kh * kw * channels;
    const NAME(WinogradWeight) w = {
        weight, u, NULL, channels, columns, kh, kw, stride_h, stride_w, size, taps,
        by_inner ? each : kh * kw, by_inner ? kh * kw : each, by_inner, 0, 0};
    share(NAME(winograd_weight_piece), &w, over(channels, LANES) * over(columns, LANES));
}

// -- the weight gradient -------------------------------------------------------------------------------

#define SPLITS 8  // of the rows of a plane, each of which is a piece
#define DEPTH 128  // squares at a time, whose products are added up in registers

typedef struct {
    NAME(Winograd) w;
    const REAL *dy;
    REAL *image, *result, *sums;  // the transforms of a group's squares, and the sums of their products
    int64_t begin, start, images;  // the first image of a part, that of the group, and how many it has
    int64_t parts, image_each, result_each, sums_each;
} NAME(WinogradGroup);

// Transforms the squares of an image and of its dy. Squares of a region lie together, image by image.
static void NAME(group_image_piece)(const void *arguments, int64_t piece, int64_t member) {
    const NAME(WinogradGroup) *g = arguments;
    const NAME(Winograd) *w = &g->w;
    const int64_t wide = NAME(wide_of)(w->columns);
    const REAL *dy = g->dy + (g->start + piece) * w->out_height * w->out_width * w->columns;
    REAL *canvas = w->scratch + member * w->scratch_each;
    const NAME(Images) m = NAME(images_of)(w);
    NAME(copy_to_canvas)(&m, g->start + piece, canvas);
    for (int64_t region = 0, start = 0; region < REGIONS; ++region) {
        const NAME(Region) r = NAME(region_of)(w, region);
        const int64_t squares = NAME(squares_each)(&r);
        for (int64_t i = 0; i < squares; ++i) {
            const NAME(Square) s = NAME(square_of)(w, &r, i);
            const int64_t place = start + piece * squares + i;
            NAME(read_image)(w, canvas, s, g->image + place * LANES, w->chunk * LANES);
            NAME(read_result)(w, dy, s, g->result + place * wide, NAME(plane)(w, w->columns), w->chunk * wide);
        }
        start += g->images * squares;
    }
}

// Squares first, first + 1, ..., stop - 1 of a group.
typedef struct {
    int64_t first, stop;
} NAME(Run);

// Finds the squares that have products in a plane. Regions that follow each other in memory are one run. Returns the
// number of runs.
static int64_t NAME(runs_of)(const NAME(WinogradGroup) *g, int64_t plane, NAME(Run) *runs) {
    int64_t count = 0, start = 0;
    for (int64_t region = 0; region < REGIONS; ++region) {
        const NAME(Region) r = NAME(region_of)(&g->w, region);
        const int64_t stop = start + g->images * NAME(squares_each)(&r);
        if (start < stop && NAME(has_plane)(&g->w, &r, plane)) {
            if (count && runs[count - 1].stop == start) runs[count - 1].stop = stop;
            else runs[count++] = (NAME(Run)){start, stop};
        }
        start = stop;
    }
    return count;
}

// Adds the products of a group's squares to some rows of a plane of the sums: (inner, squares) by (squares, columns).
// The rows of a tile belong to one block of channels.
static void NAME(group_product_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(WinogradGroup) *g = arguments;
    const NAME(Winograd) *w = &g->w;
    const int64_t f = piece / SPLITS, split = piece % SPLITS, inner = NAME(inner)(w), blocks = inner / LANES;
    const int64_t top = blocks * split / SPLITS * LANES, bottom = blocks * (split + 1) / SPLITS * LANES;
    const int64_t rows = LANES > ROWS ? LANES / 2 : LANES, wide = NAME(wide_of)(w->columns);
    const REAL *image = g->image + f * NAME(plane)(w, inner), *result = g->result + f * NAME(plane)(w, w->columns);
    REAL *sums = g->sums + f * inner * w->columns;
    const NAME(Product) p = {.along_m = w->columns, .along_n = 1, .b_along_k = wide};
    NAME(Run) runs[REGIONS];
    const int64_t count = NAME(runs_of)(g, f, runs);
    bool begun = g->start > g->begin;
    if (!begun && !count) memset(sums + top * w->columns, 0, sizeof(REAL) * (bottom - top) * w->columns);
    for (int64_t run = 0; run < count; ++run, begun = true)
        for (int64_t o = 0; o < w->columns; o += wide)
            for (int64_t first = runs[run].first; first < runs[run].stop; first += DEPTH) {
                const int64_t depth = smaller(DEPTH, runs[run].stop - first);
                const REAL *b = result + o * w->chunk + first * wide;
                for (int64_t i = top; i < bottom; i += rows)
                    NAME(product_rows)(&p, rows, wide / LANES,
                                       image + i / LANES * LANES * w->chunk + first * LANES + i % LANES, 1, LANES, b,
                                       depth, b + depth * wide, sums + i * w->columns + o, wide,
                                       begun || first > runs[run].first);
            }
}

// All groups of a part of the batch, which has transforms and sums of its own.
static void NAME(group_part_piece)(const void *arguments, int64_t part, int64_t member) {
    NAME(WinogradGroup) g = *(const NAME(WinogradGroup) *)arguments;
    const int64_t n = g.w.n, stop = n * (part + 1) / g.parts;
    g.image += member * g.image_each, g.result += member * g.result_each, g.sums += part * g.sums_each;
    g.begin = n * part / g.parts;
    for (g.start = g.begin; g.start < stop; g.start += g.w.each) {
        g.images = smaller(g.w.each, stop - g.start);
        for (int64_t i = 0; i < g.images; ++i) NAME(group_image_piece)(&g, i, member);
        for (int64_t i = 0; i < g.w.size * g.w.size * SPLITS; ++i) NAME(group_product_piece)(&g, i, member);
    }
}

// Transforms the sums of all parts back to the taps of LANES columns and channels of a weight.
static void NAME(group_weight_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(WinogradWeight) *w = arguments;
    const int64_t phases = w->stride_h * w->stride_w, size = w->size * w->size, count = w->kh * w->kw;
    const int64_t blocks = w->columns / LANES, lane = piece % blocks * LANES, first = piece / blocks * LANES;
    REAL near[MOST_TAPS][LANES];
    VECTOR in[LARGEST * LARGEST], made[LARGEST * LARGEST];
    for (int64_t k = first; k < first + LANES; ++k) {
        for (int64_t phase = 0; phase < phases; ++phase) {
            const REAL *from = w->u + (phase * w->channels + k) * w->columns + lane;
            for (int64_t f = 0; f < size; ++f, from += phases * w->channels * w->columns) {
                in[f] = *(const VECTOR *)from;
                for (int64_t part = 1; part < w->parts; ++part) in[f] += *(const VECTOR *)(from + part * w->sums_each);
            }
            NAME(transform_taps)(true, w->taps, w->size, in, made);
            for (int64_t i = 0; i < w->taps; ++i)
                for (int64_t j = 0; j < w->taps; ++j) {
                    const int64_t tap = NAME(tap_of)(w, phase, i, j);
                    if (tap >= 0) *(VECTOR *)near[tap] = made[i * w->taps + j];
                }
        }
        REAL *to = w->made + k * count + lane * count * w->channels;
        for (int64_t i = 0; i < LANES; ++i)
            for (int64_t t = 0; t < count; ++t) to[i * count * w->channels + t] = near[t][i];
    }
}

// x: (n, height, width, channels), dy: (n, out_height, out_width, columns), dw: (columns, channels, kh, kw). `each`
// images are a group, of at most `chunk` squares. If there is one part, threads share the work of each group, and
// planes of the sums may be large. Else each of `parts` equal shares of the batch has sums of its own.
// scratch: for each of `members`, the canvas of an image. image: size^2 (chunk inner + APART) numbers, where inner is
// the number of channels of all phases. result: size^2 (chunk columns + APART) numbers. If there are several parts,
// both are that large for each of `members`. sums: for each part, size^2 inner columns numbers.
KERNEL(winograd_weight_gradient)(int64_t n, const REAL *x, int64_t height, int64_t width, int64_t channels, int64_t top,
                                 int64_t left, int64_t canvas_height, int64_t canvas_width, int64_t stride_h,
                                 int64_t stride_w, const REAL *dy, int64_t out_height, int64_t out_width,
                                 int64_t columns, int64_t m, int64_t size, REAL *dw, int64_t kh, int64_t kw,
                                 int64_t taps, int64_t each, int64_t chunk, int64_t parts, REAL *image, REAL *result,
                                 REAL *sums, REAL *scratch, int64_t scratch_each, int64_t members) {
    NAME(WinogradGroup) g = {
        {n, height, width, channels, top, left, canvas_height, canvas_width, stride_h, stride_w, out_height, out_width,
         columns, m, size, each, chunk, scratch_each, x, NULL, NULL, NULL, scratch, 1},
        dy, image, result, sums, 0, 0, 0, parts, 0, 0, size * size * stride_h * stride_w * channels * columns};
    g.image_each = size * size * NAME(plane)(&g.w, NAME(inner)(&g.w));
    g.result_each = size * size * NAME(plane)(&g.w, columns);
    if (parts > 1) share_among(NAME(group_part_piece), &g, parts, members);
    for (; parts == 1 && g.start < n; g.start += each) {
        g.images = smaller(each, n - g.start);
        share_among(NAME(group_image_piece), &g, g.images, members);
        share(NAME(group_product_piece), &g, size * size * SPLITS);
    }
    const NAME(WinogradWeight) w = {
        .u = sums, .made = dw, .channels = channels, .columns = columns, .kh = kh, .kw = kw, .stride_h = stride_h,
        .stride_w = stride_w, .size = size, .taps = taps, .parts = parts, .sums_each = g.sums_each};
    share(NAME(group_weight_piece), &w, over(channels, LANES) * over(columns, LANES));
}

#undef REGIONS
#undef SPLITS
#undef DEPTH
#undef LARGEST
#undef APART
#undef MOST_TAPS
