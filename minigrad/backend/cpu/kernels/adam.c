// Updates of many arrays in place, in one call: a step of Adam; running averages.
//
// adam: must equal ReferenceOptimizers.adam_update (backend/optimizers.py) for each array.
//     g = gradient + decay * p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
//     p -= rate * m / (sqrt(v / correction) + eps)
//   Bytes: p, the gradient, m and v are read once; p, m and v are written. Operations: 15 a number.
// average: must equal ReferenceOptimizers.average_updates. average = keep * average + share * fresh.
//   Bytes: both are read once, the average is written. Operations: 3 a number.
//
// The arrays of an update have the same memory order, without gaps. A piece is MIN_PIECE numbers of one update.

#define TABLE_WIDTH 5  // addresses of up to four arrays, and how many numbers each has

typedef struct {
    const int64_t *table;  // (updates, TABLE_WIDTH)
    const double *factors;
    REAL beta1, rest1, beta2, rest2, eps, decay;
} NAME(Updates);

// Finds the update that a piece belongs to. The piece goes from number *start to the returned one, which is excluded.
static int64_t NAME(numbers_of)(const int64_t *table, int64_t piece, int64_t *update, int64_t *start) {
    for (*update = 0;; ++*update) {
        const int64_t count = table[*update * TABLE_WIDTH + 4], pieces = over(count, MIN_PIECE);
        if (piece < pieces) {
            *start = piece * MIN_PIECE;
            return smaller(*start + MIN_PIECE, count);
        }
        piece -= pieces;
    }
}

static int64_t NAME(all_pieces)(const int64_t *table, int64_t updates) {
    int64_t pieces = 0;
    for (int64_t i = 0; i < updates; ++i) pieces += over(table[i * TABLE_WIDTH + 4], MIN_PIECE);
    return pieces;
}

static void NAME(adam_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(Updates) a = *(const NAME(Updates) *)arguments;
    int64_t update, start;
    const int64_t stop = NAME(numbers_of)(a.table, piece, &update, &start);
    const int64_t *addresses = a.table + update * TABLE_WIDTH;
    REAL *restrict p = (REAL *)(intptr_t)addresses[0], *restrict m = (REAL *)(intptr_t)addresses[2];
    REAL *restrict v = (REAL *)(intptr_t)addresses[3];
    const REAL *restrict g = (const REAL *)(intptr_t)addresses[1];
    const REAL rate = (REAL)a.factors[2 * update], correction = (REAL)a.factors[2 * update + 1];
    for (int64_t i = start; i < stop; ++i) {
        const REAL gradient = a.decay != 0 ? g[i] + a.decay * p[i] : g[i];
        const REAL first = a.beta1 * m[i] + a.rest1 * gradient;
        const REAL second = a.beta2 * v[i] + a.rest2 * (gradient * gradient);
        m[i] = first;
        v[i] = second;
        p[i] -= rate * first / ((REAL)sqrt(second / correction) + a.eps);
    }
}

// table (updates, 5): the addresses of a parameter, its gradient and its two moments, and how many numbers each has.
// factors (updates, 2): rate and correction.
KERNEL(adam)(const int64_t *table, const double *factors, int64_t updates, double beta1, double beta2, double eps,
             double weight_decay) {
    const NAME(Updates) a = {
        table, factors, (REAL)beta1, (REAL)(1 - beta1), (REAL)beta2, (REAL)(1 - beta2), (REAL)eps,
        (REAL)weight_decay,
    };
    share(NAME(adam_piece), &a, NAME(all_pieces)(table, updates));
}

static void NAME(average_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(Updates) a = *(const NAME(Updates) *)arguments;
    int64_t update, start;
    const int64_t stop = NAME(numbers_of)(a.table, piece, &update, &start);
    const int64_t *addresses = a.table + update * TABLE_WIDTH;
    REAL *average = (REAL *)(intptr_t)addresses[0];
    const REAL *fresh = (const REAL *)(intptr_t)addresses[1], keep = (REAL)a.factors[0], part = (REAL)a.factors[1];
#pragma GCC ivdep
    for (int64_t i = start; i < stop; ++i) average[i] = keep * average[i] + part * fresh[i];
}

// table (updates, 5): the addresses of an average and of the fresh values, two numbers that are not read, and how many
// numbers each array has. factors: keep and share.
KERNEL(average)(const int64_t *table, const double *factors, int64_t updates) {
    const NAME(Updates) a = {.table = table, .factors = factors};
    share(NAME(average_piece), &a, NAME(all_pieces)(table, updates));
}

#undef TABLE_WIDTH
