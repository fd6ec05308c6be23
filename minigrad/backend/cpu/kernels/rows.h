// Pieces of rows (M, C), channels innermost.
//
// A piece is a chunk of rows by a block of channels. It is processed line by line; the numbers of a line lie side by
// side in memory. Up to LINE channels are one block, and a line is as many rows as have LINE numbers together: a loop
// over 3 channels would be too short. More channels are cut into blocks of LINE, and a line is the block's part of one
// row. Numbers that belong to channels, such as a mean, are repeated along a line.
//
// The pieces depend on M and C only. There are at most MAX_CHUNKS chunks, of at least MIN_CHUNK rows each (the last may
// have fewer). Callers that provide memory for a sum of each chunk rely on that.

#define LINE 256
#define MIN_CHUNK 64
#define MAX_CHUNKS 64
#define MIN_PIECE (1 << 14)  // numbers of a piece: with fewer, another thread would not pay

typedef struct {
    int64_t rows, channels;
    int64_t together;  // rows in a line
    int64_t blocks, chunks;
    int64_t height;  // rows in a chunk: whole lines
} Rows;

// Where the lines of a piece lie, counted in numbers of the array.
typedef struct {
    int64_t chunk, channel;  // the number of the chunk, and the first channel
    int64_t channels;        // in the block
    int64_t start, step;     // of the first line, and from one to the next
    int64_t width, lines;    // numbers of a line, and how many lines
    int64_t last;            // numbers of the last line, which may be shorter
} Piece;

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }  // rounded up

static Rows rows_of(int64_t rows, int64_t channels) {
    const int64_t block = larger(smaller(channels, LINE), 1), together = LINE / block;
    const int64_t height = larger(larger(over(rows, MAX_CHUNKS), MIN_PIECE / block), MIN_CHUNK);
    const int64_t whole = over(height, together) * together;
    return (Rows){rows, channels, together, over(channels, LINE), over(rows, whole), whole};
}

static inline int64_t pieces_of(Rows rows) { return rows.blocks * rows.chunks; }

static Piece piece_of(Rows rows, int64_t number) {
    Piece piece;
    piece.chunk = number / rows.blocks;
    piece.channel = number % rows.blocks * LINE;
    piece.channels = smaller(LINE, rows.channels - piece.channel);
    const int64_t first = piece.chunk * rows.height, height = smaller(rows.height, rows.rows - first);
    piece.start = first * rows.channels + piece.channel;
    piece.step = rows.together * rows.channels;
    piece.width = rows.together * piece.channels;
    piece.lines = over(height, rows.together);
    piece.last = (height - (piece.lines - 1) * rows.together) * piece.channels;
    return piece;
}

// Where line number `line` of a piece starts, and how many numbers it has.
static inline int64_t start_of(const Piece *piece, int64_t line) { return piece->start + line * piece->step; }
static inline int64_t width_of(const Piece *piece, int64_t line) {
    return line + 1 < piece->lines ? piece->width : piece->last;
}
