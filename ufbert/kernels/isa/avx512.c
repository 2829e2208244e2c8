/* AVX-512 (F, VL, BW, DQ). */
#if defined(__x86_64__)
#include "../isa.h"
#include "x86_features.h"

#include <immintrin.h>

static int is_supported(void) { return has_avx512(); }

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512")
#endif
#define ISA avx512
#include "avx512_vectors.h"

#include "../dense/table.h"
#include "../fff/table.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const ufbert_isa ufbert_isa_avx512 = {"avx512", is_supported, &ufbert_fff_avx512, &dense_kernels};
#endif
