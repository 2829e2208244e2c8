/* AVX-512 (F, VL, BW, DQ). */
#if defined(__GNUC__) && defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512")
#endif
#include "avx512_vectors.h"

#define ISA avx512

#include "table.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
