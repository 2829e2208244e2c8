/* NEON with dot products of bytes and of bfloat16 in one instruction (FEAT_DotProd, FEAT_BF16). */
#if defined(__aarch64__)
#include "../isa.h"
#include "arm_features.h"

static int is_supported(void) { return has_dot() && has_bf16(); }

extern const ufbert_fff_kernels ufbert_fff_neon;

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod,bf16"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod+bf16")
#endif
#define ISA neonbf16
#define USE_DOT
#define USE_BF16
#include "neon_vectors.h"

#include "../dense/table.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const ufbert_isa ufbert_isa_neonbf16 = {"neonbf16", is_supported, &ufbert_fff_neon, &dense_kernels};
#endif
