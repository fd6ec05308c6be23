// Adam's step on one parameter, in place.
//
// adam: must equal ReferenceOptimizers.adam_update (backend/optimizers.py). Bytes: reads the parameter, its
//   gradient and both moments once, writes all but the gradient. Operations: 15 a number, so that memory is what
//   limits. A piece is PIECE numbers.

#define PIECE (1 << 14)

typedef struct {
    REAL *parameter, *first, *second;
    const REAL *gradient;
    int64_t count;
    REAL rate, correction, beta1, beta2, eps, weight_decay;
} NAME(Adam);

static void NAME(adam_piece)(const void *arguments, int64_t piece, int64_t member) {
    (void)member;
    const NAME(Adam) a = *(const NAME(Adam) *)arguments;
    const int64_t start = piece * PIECE, stop = start + PIECE < a.count ? start + PIECE : a.count;
    for (int64_t i = start; i < stop; ++i) {
        const REAL gradient = a.gradient[i] + a.weight_decay * a.parameter[i];
        const REAL first = a.beta1 * a.first[i] + (1 - a.beta1) * gradient;
        const REAL second = a.beta2 * a.second[i] + (1 - a.beta2) * (gradient * gradient);
        a.first[i] = first;
        a.second[i] = second;
        a.parameter[i] -= a.rate * first / ((REAL)sqrt(second / a.correction) + a.eps);
    }
}

KERNEL(adam)(REAL *parameter, const REAL *gradient, REAL *first, REAL *second, int64_t count, double rate,
             double correction, double beta1, double beta2, double eps, double weight_decay) {
    const NAME(Adam) a = {
        parameter, first, second, gradient, count, (REAL)rate, (REAL)correction,
        (REAL)beta1, (REAL)beta2, (REAL)eps, (REAL)weight_decay,
    };
    share(NAME(adam_piece), &a, (count + PIECE - 1) / PIECE);
}

#undef PIECE
