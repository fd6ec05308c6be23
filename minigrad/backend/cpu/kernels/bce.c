// The mean binary cross-entropy and its gradient, of logits x or of probabilities p, with labels t.
//
// logit_bce: must equal Backend.logit_bce.
//   loss = mean of max(x, 0) - x t + log(1 + exp(-|x|)),  gradient = ((1 - t) sigmoid(x) - t sigmoid(-x)) / n
// bce: must equal Backend.bce.
//   loss = mean of -(t log(p + e) + (1 - t) log(1 - p + e)),  gradient = ((1 - t) / (1 - p + e) - t / (p + e)) / n
//   `floored`: e is 0, logarithms are at least -100, and divisors at least 1e-12.
//
// A call is one piece, summed up in double and in order: a discriminator has one output an image, so that there are a
// few thousand numbers at most. If target is NULL, all labels are `label`.
// Bytes: x or p (and t) are read, the gradient and one number written. Operations: an exponential and a logarithm a
// number, or two logarithms and two divisions.

// The larger of a value and a bound; NaN stays NaN.
static inline REAL NAME(at_least)(REAL value, REAL bound) { return value < bound ? bound : value; }

KERNEL(logit_bce)(const REAL *x, const REAL *target, REAL *loss, REAL *gradient, int64_t count, double label) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
        const double value = x[i], t = target ? target[i] : (REAL)label, e = exp(-fabs(value));
        const double large = 1 / (1 + e), small = e / (1 + e);  // the sigmoids of |x| and of -|x|
        sum += ((value < 0 ? 0 : value) - value * t) + log1p(e);
        gradient[i] = (REAL)(((1 - t) * (value >= 0 ? large : small) - t * (value > 0 ? small : large)) / count);
    }
    *loss = (REAL)(sum / count);
}

// epsilon is not read where `floored`.
KERNEL(bce)(const REAL *p, const REAL *target, REAL *loss, REAL *gradient, int64_t count, double label,
            double epsilon, int64_t floored) {
    double sum = 0;
    const REAL share_of_one = (REAL)-1 / (REAL)count;
    for (int64_t i = 0; i < count; ++i) {
        const REAL t = target ? target[i] : (REAL)label;
        REAL value = p[i], rest = 1 - value;
        double log_p, log_q;
        if (floored) {
            log_p = value <= 0 ? -100 : NAME(at_least)((REAL)log(value), -100);
            log_q = value >= 1 ? -100 : log1p(-(double)value);
            value = NAME(at_least)(value, (REAL)1e-12);
            rest = NAME(at_least)(rest, (REAL)1e-12);
        } else {
            value += (REAL)epsilon;
            rest += (REAL)epsilon;
            log_p = log(value);
            log_q = log(rest);
        }
        sum -= t * log_p + (1 - t) * log_q;
        gradient[i] = share_of_one * t / value - share_of_one * (1 - t) / rest;
    }
    *loss = (REAL)(sum / count);
}
