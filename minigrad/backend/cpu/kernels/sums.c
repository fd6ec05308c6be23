// Sums, in double.
//
// sum_rows: the sum of rows (M, C) to (C,), such as the gradient of a bias; with C = 1 the sum of a whole array. Must
//   equal Backend.sum over all axes but that of the channels. The sums of the chunks (rows.h) are added in order.
// `partial` is memory for the sums of the chunks: C doubles for each.
// Bytes: the rows are read once. Operations: 1 a number.

typedef struct {
    Rows rows;
    const REAL *x;
    double *partial;
} NAME(Sum);

static void NAME(sum_piece)(const void *arguments, int64_t number, int64_t member) {
    (void)member;
    const NAME(Sum) a = *(const NAME(Sum) *)arguments;
    const Piece piece = piece_of(a.rows, number);
    double sum[LINE] = {0};
    for (int64_t line = 0; line < piece.lines; ++line) {
        const int64_t start = start_of(&piece, line), width = width_of(&piece, line);
        for (int64_t i = 0; i < width; ++i) sum[i] += (double)a.x[start + i];
    }
    double *kept = a.partial + piece.chunk * a.rows.channels + piece.channel;
    for (int64_t c = 0; c < piece.channels; ++c) {
        double total = 0;
        for (int64_t at = c; at < piece.width; at += piece.channels) total += sum[at];
        kept[c] = total;
    }
}

KERNEL(sum_rows)(const REAL *x, double *partial, REAL *sum, int64_t rows, int64_t channels) {
    const NAME(Sum) a = {rows_of(rows, channels), x, partial};
    share(NAME(sum_piece), &a, pieces_of(a.rows));
    for (int64_t c = 0; c < channels; ++c) {
        double total = 0;
        for (int64_t chunk = 0; chunk < a.rows.chunks; ++chunk) total += partial[chunk * channels + c];
        sum[c] = (REAL)total;
    }
}
