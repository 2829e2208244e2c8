/* The dense kernels once more, for AVX-512 with VNNI and BF16: dot products of bytes and of bfloat16 in one instruction. */
#if defined(__GNUC__) && defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx512bf16,fma,prefer-vector-width=512")
#endif
#define USE_VNNI
#define USE_BF16
#include "avx512_vectors.h"

#define ISA avx512bf16

#include "activation.h"
#include "dense_table.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
