/* AVX2 and FMA. */
#if defined(__x86_64__)
#include "../isa.h"
#include "x86_features.h"

#include <immintrin.h>

static int is_supported(void) { return has_avx2_fma(); }

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#include "avx2_vectors.h"

#include "../dense/table.h"
#include "../fff/table.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const ufbert_isa ufbert_isa_avx2 = {"avx2", is_supported, &ufbert_fff_avx2, &dense_kernels};
#endif
