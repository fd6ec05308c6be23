// All kernels in one library: those of each file for float, and again for double.
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

#define REAL float
#define REAL_BITS uint32_t
#define NAME(name) name##_float
#include "all.h"
#undef REAL
#undef REAL_BITS
#undef NAME

#define REAL double
#define REAL_BITS uint64_t
#define NAME(name) name##_double
#include "all.h"

// What native.py reads of the library: by what it was compiled, and the bytes of a vector.
#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#if defined(__clang__)
#define COMPILER "clang " TEXT(__clang_major__) "." TEXT(__clang_minor__) "." TEXT(__clang_patchlevel__)
#else
#define COMPILER "gcc " TEXT(__GNUC__) "." TEXT(__GNUC_MINOR__) "." TEXT(__GNUC_PATCHLEVEL__)
#endif
__attribute__((visibility("default"))) const char *const compiled_by = COMPILER;
__attribute__((visibility("default"))) const int64_t vector_bytes = VECTOR_BYTES;
