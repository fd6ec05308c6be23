// All files of kernels, for one type of number. kernels.c defines REAL, the type; REAL_BITS, the unsigned integer of
// its size; and NAME, which adds the type to a name.

#define KERNEL(name) __attribute__((visibility("default"))) void NAME(name)
#define VECTOR NAME(vector)
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))  // numbers in a vector

// A vector of REALs, which may lie at any address.
typedef REAL VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

// The result of a comparison of vectors: all bits of an element are set, or none.
#define VECTOR_MASK __typeof__((VECTOR){0} <= (VECTOR){0})

#include "activation.h"

#include "adam.c"
#include "batch_norm.c"
#include "bce.c"
#include "convolution.c"
#include "dropout.c"
#include "elementwise.c"
#include "packed.c"
#include "frequency.c"
#include "moves.c"
#include "product.c"
#include "sums.c"
#include "winograd.c"

#undef KERNEL
#undef VECTOR
#undef VECTOR_MASK
#undef LANES
