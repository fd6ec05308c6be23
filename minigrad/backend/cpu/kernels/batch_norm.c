// Batch normalisation of rows (M, C): the channels of (N, C), or of (N, C, H, W) with the channels innermost.
//
// Each kernel goes through the rows in the pieces of rows.h. There are fewer than ten operations a number, so that
// memory limits the speed.
//
// moments: must equal Backend.moments. One pass: sums of x - k and of (x - k)^2 in double, where k is the channel's
//   first value, so that a large mean does not cancel. The sums of the chunks are added in order.
//   Bytes: x is read once.
// normalize: must equal Backend.normalize, the leaky ReLU included. Bytes: x is read once, y written once.
// normalize_backward: must equal Backend.normalize_backward. Two passes: the sums of dy and of dy (x - near); then
//   dx = (dy - (x - near) * tilt - shift) * scale. dy is that behind the leaky ReLU.
//   Bytes: each pass reads dy, x and, with an activation, y; the second writes dx.
//
// `partial` is memory for the sums of the chunks: 2 C doubles for each of up to MAX_CHUNKS (rows.h).
// `constants` is memory for numbers of the channels: 3 C numbers for normalize, 4 C for normalize_backward.

typedef struct {
    Rows rows;
    const REAL *dy, *x, *y;
    REAL *out;
    double *partial;
    const REAL *near, *scale, *shift, *tilt;
    REAL slope;
} NAME(Norm);

// Fills a line with the numbers of a block's channels, repeated.
static inline void NAME(along)(REAL *line, const REAL *channels, Piece piece) {
    for (int64_t at = 0; at < piece.width; at += piece.channels)
        memcpy(line + at, channels + piece.channel, piece.channels * sizeof(REAL));
}

// Adds up each of two lines by channel, and stores the sums as those of the piece's chunk.
static inline void NAME(keep_sums)(double *partial, const double *first, const double *second, Rows rows,
                                   Piece piece) {
    double *a = partial + piece.chunk * 2 * rows.channels + piece.channel, *b = a + rows.channels;
    for (int64_t c = 0; c < piece.channels; ++c) {
        double sum = 0, other = 0;
        for (int64_t at = c; at < piece.width; at += piece.channels) sum += first[at], other += second[at];
        a[c] = sum;
        b[c] = other;
    }
}

// Adds the sums of all chunks, in order, to those of the first.
static void NAME(merge_sums)(double *partial, Rows rows) {
    const int64_t count = 2 * rows.channels;
    for (int64_t chunk = 1; chunk < rows.chunks; ++chunk)
        for (int64_t i = 0; i < count; ++i) partial[i] += partial[chunk * count + i];
}

// The k of a channel (see above). It is 0 if the first value is infinite, NaN or very large: differences from it would
// be NaN or overflow.
static inline double NAME(origin)(REAL first) { return fabs((double)first) < 1e150 ? (double)first : 0; }

static void NAME(moments_piece)(const void *arguments, int64_t number, int64_t member) {
    (void)member;
    const NAME(Norm) a = *(const NAME(Norm) *)arguments;
    const Piece piece = piece_of(a.rows, number);
    double sum[LINE] = {0}, squares[LINE] = {0}, origin[LINE];
    for (int64_t at = 0; at < piece.width; ++at)
        origin[at] = NAME(origin)(a.x[piece.channel + at % piece.channels]);
    for (int64_t line = 0; line < piece.lines; ++line) {
        const int64_t start = start_of(&piece, line), width = width_of(&piece, line);
        const REAL *x = a.x + start;
        for (int64_t i = 0; i < width; ++i) {
            const double centred = (double)x[i] - origin[i];
            sum[i] += centred;
            squares[i] += centred * centred;
        }
    }
    NAME(keep_sums)(a.partial, sum, squares, a.rows, piece);
}

KERNEL(moments)(const REAL *x, double *partial, double *mean, double *variance, int64_t rows, int64_t channels) {
    const NAME(Norm) a = {.rows = rows_of(rows, channels), .x = x, .partial = partial};
    share(NAME(moments_piece), &a, pieces_of(a.rows));
    NAME(merge_sums)(partial, a.rows);
    for (int64_t c = 0; c < channels; ++c) {
        const double offset = partial[c] / rows, found = partial[channels + c] / rows - offset * offset;
        mean[c] = NAME(origin)(x[c]) + offset;
        variance[c] = found < 0 ? 0 : found;  // NaN stays NaN, as in NumPy's maximum
    }
}

static void NAME(normalize_piece)(const void *arguments, int64_t number, int64_t member) {
    (void)member;
    const NAME(Norm) a = *(const NAME(Norm) *)arguments;
    const Piece piece = piece_of(a.rows, number);
    REAL near[LINE], scale[LINE], shift[LINE];
    NAME(along)(near, a.near, piece);
    NAME(along)(scale, a.scale, piece);
    NAME(along)(shift, a.shift, piece);
    for (int64_t line = 0; line < piece.lines; ++line) {
        const int64_t start = start_of(&piece, line), width = width_of(&piece, line);
        const REAL *x = a.x + start;
        REAL *out = a.out + start;
#pragma GCC ivdep
        for (int64_t i = 0; i < width; ++i)
            out[i] = NAME(leaky)((x[i] - near[i]) * scale[i] + shift[i], a.slope);
    }
}

KERNEL(normalize)(const REAL *x, const double *mean, const double *variance, const REAL *weight, const REAL *bias,
                  REAL *constants, REAL *y, int64_t rows, int64_t channels, double eps, double slope) {
    REAL *near = constants, *scale = near + channels, *shift = scale + channels;
    for (int64_t c = 0; c < channels; ++c) {
        const double factor = 1 / sqrt(variance[c] + eps) * weight[c];
        near[c] = (REAL)mean[c];
        scale[c] = (REAL)factor;
        shift[c] = (REAL)(bias[c] - (mean[c] - near[c]) * factor);
    }
    const NAME(Norm) a = {
        .rows = rows_of(rows, channels), .x = x, .out = y, .near = near, .scale = scale, .shift = shift,
        .slope = (REAL)slope,
    };
    share(NAME(normalize_piece), &a, pieces_of(a.rows));
}

static void NAME(gradient_sums_piece)(const void *arguments, int64_t number, int64_t member) {
    (void)member;
    const NAME(Norm) a = *(const NAME(Norm) *)arguments;
    const Piece piece = piece_of(a.rows, number);
    double products[LINE] = {0}, sum[LINE] = {0};
    REAL near[LINE];
    NAME(along)(near, a.near, piece);
    for (int64_t line = 0; line < piece.lines; ++line) {
        const int64_t start = start_of(&piece, line), width = width_of(&piece, line);
        const REAL *dy = a.dy + start, *x = a.x + start, *y = a.y + start;
        for (int64_t i = 0; i < width; ++i) {
            const double gradient = NAME(back)(dy[i], y[i], a.slope);
            products[i] += gradient * (double)(x[i] - near[i]);
            sum[i] += gradient;
        }
    }
    NAME(keep_sums)(a.partial, products, sum, a.rows, piece);
}

static void NAME(gradient_piece)(const void *arguments, int64_t number, int64_t member) {
    (void)member;
    const NAME(Norm) a = *(const NAME(Norm) *)arguments;
    const Piece piece = piece_of(a.rows, number);
    REAL near[LINE], tilt[LINE], shift[LINE], scale[LINE];
    NAME(along)(near, a.near, piece);
    NAME(along)(tilt, a.tilt, piece);
    NAME(along)(shift, a.shift, piece);
    NAME(along)(scale, a.scale, piece);
    for (int64_t line = 0; line < piece.lines; ++line) {
        const int64_t start = start_of(&piece, line), width = width_of(&piece, line);
        const REAL *dy = a.dy + start, *x = a.x + start, *y = a.y + start;
        REAL *out = a.out + start;
#pragma GCC ivdep
        for (int64_t i = 0; i < width; ++i) {
            const REAL gradient = NAME(back)(dy[i], y[i], a.slope);
            out[i] = (gradient - (x[i] - near[i]) * tilt[i] - shift[i]) * scale[i];
        }
    }
}

// Without an activation slope is 1, and any array may be given for y.
KERNEL(normalize_backward)(const REAL *dy, const REAL *x, const REAL *y, const double *mean,
                           const double *variance, const REAL *weight, double *partial, REAL *constants, REAL *dx,
                           REAL *dweight, REAL *dbias, int64_t rows, int64_t channels, double eps, double slope) {
    REAL *near = constants, *tilt = near + channels, *shift = tilt + channels, *scale = shift + channels;
    for (int64_t c = 0; c < channels; ++c) near[c] = (REAL)mean[c];
    const NAME(Norm) a = {
        .rows = rows_of(rows, channels), .dy = dy, .x = x, .y = y, .out = dx, .partial = partial, .near = near,
        .tilt = tilt, .shift = shift, .scale = scale, .slope = (REAL)slope,
    };
    share(NAME(gradient_sums_piece), &a, pieces_of(a.rows));
    NAME(merge_sums)(partial, a.rows);
    const double *products = partial, *sums = partial + channels;
    for (int64_t c = 0; c < channels; ++c) {  // as Backend.normalize_coefficients
        const double inv_std = 1 / sqrt(variance[c] + eps), rest = mean[c] - near[c];
        const double along_xhat = (products[c] - rest * sums[c]) * inv_std, slant = inv_std * along_xhat / rows;
        dweight[c] = (REAL)along_xhat;
        dbias[c] = (REAL)sums[c];
        tilt[c] = (REAL)slant;
        shift[c] = (REAL)(sums[c] / rows - rest * slant);
        scale[c] = (REAL)(weight[c] * inv_std);
    }
    share(NAME(gradient_piece), &a, pieces_of(a.rows));
}
