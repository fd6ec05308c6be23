// The leaky ReLU of a number, its gradient, and a mask.

// The leaky ReLU. NaN stays NaN, as in NumPy's maximum. A slope of 1 changes nothing.
static inline REAL NAME(leaky)(REAL value, REAL slope) {
    return value <= 0 ? (slope == 0 ? 0 : value * slope) : value;  // 0 times infinity is NaN
}

// The gradient of `leaky`, whose result was y. With a slope of 0 it is 0 where y is not positive, whatever dy is.
static inline REAL NAME(back)(REAL dy, REAL y, REAL slope) {
    return y > 0 ? dy : slope == 0 ? 0 : dy * slope;
}

// The value if it is kept, else 0, even if the value is infinite or NaN.
static inline REAL NAME(masked)(bool keep, REAL value) { return keep ? value : 0; }
