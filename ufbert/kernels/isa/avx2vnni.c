/* AVX2 and FMA with AVX-VNNI: dot products of bytes in one instruction. */
#if defined(__x86_64__)
#include "../isa.h"
#include "x86_features.h"

#include <immintrin.h>

static int is_supported(void) { return has_avx_vnni(); }

extern const ufbert_fff_kernels ufbert_fff_avx2;

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avxvnni")
#endif
#define ISA avx2vnni
#define USE_VNNI
#include "avx2_vectors.h"

#include "../dense/table.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const ufbert_isa ufbert_isa_avx2vnni = {"avx2vnni", is_supported, &ufbert_fff_avx2, &dense_kernels};
#endif
