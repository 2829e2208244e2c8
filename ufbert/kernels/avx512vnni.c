/* The dense kernels once more, for AVX-512 with VNNI: dot products of bytes in one instruction. */
#if defined(__GNUC__) && defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,fma,prefer-vector-width=512")
#endif
#define USE_VNNI
#include "avx512_vectors.h"

#define ISA avx512vnni

#include "activation.h"
#include "dense_table.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
