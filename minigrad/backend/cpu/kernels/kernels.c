// All kernels, for one type of number: float, or double if DOUBLE is defined. It is compiled once for each.
//
// A kernel `name` is a function `void name_float(...)` or `void name_double(...)`. minigrad/backend/cpu/native.py finds
// it by its KERNEL line. Its arguments are pointers, int64_t and double only. Unless a file says otherwise, arrays
// have no gaps, images lie with their channels innermost (N, H, W, C), and arrays do not overlap. No kernel allocates
// memory.

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vectors.h"
#include "threads.h"
#include "rows.h"
#include "tiles.h"
#include "philox.h"

#ifndef DOUBLE
#define REAL float
#define REAL_BITS uint32_t
#define NAME(name) name##_float
#else
#define REAL double
#define REAL_BITS uint64_t
#define NAME(name) name##_double
#endif
#include "all.h"

