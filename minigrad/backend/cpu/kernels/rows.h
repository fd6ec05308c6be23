// How rows (M, C), channels innermost, are cut into pieces.
//
// A piece is a chunk of rows, of a block of channels. Up to LINE channels are one block, and as many rows as LINE
// has room for are taken for one line of it: a loop over 3 channels would take longer to begin than to run. More
// channels are cut into blocks of LINE; a line is the block's part of a row then. Either way a line's numbers lie
// side by side, a loop goes along it, and what channels have once is repeated for it.
//
// How the rows are cut depends on M and C alone. There are at most MAX_CHUNKS chunks, of MIN_CHUNK rows at least
// (the last may have fewer): who gives memory for a sum by chunk counts on that.

#define LINE 256
#define MIN_CHUNK 64
#define MAX_CHUNKS 64
#define MIN_PIECE (1 << 14)  // numbers that are worth another thread

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
    int64_t width, lines;    // numbers of a line, lines
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
