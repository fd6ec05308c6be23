// All kernels, for one type of number: float, or double where DOUBLE is defined. A library has both.
//
// A kernel is a function `void name_float(...)`, which `minigrad/backend/cpu/native.py` finds by its KERNEL line.
// Its arguments are pointers, int64_t and double alone. Arrays are contiguous, images lie with their channels
// innermost (N, H, W, C), and nothing overlaps unless a file says so. No kernel asks for memory.

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vectors.h"
#include "threads.h"
#include "rows.h"
#include "philox.h"
#include "tiles.h"

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

