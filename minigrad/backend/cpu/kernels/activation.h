// The leaky ReLU and the mask of one number, and the gradient.

// NaN stays NaN, as in NumPy's maximum. A slope of 1 changes nothing.
static inline REAL NAME(leaky)(REAL value, REAL slope) {
    return value <= 0 ? (slope == 0 ? 0 : value * slope) : value;  // 0 times infinity is NaN
}

// Back through `leaky`, whose result y was: 0 for a slope of 0, whatever dy is.
static inline REAL NAME(back)(REAL dy, REAL y, REAL slope) {
    return y > 0 ? dy : slope == 0 ? 0 : dy * slope;
}

// A number where it is kept, 0 elsewhere, whatever it is.
static inline REAL NAME(masked)(bool keep, REAL value) { return keep ? value : 0; }
