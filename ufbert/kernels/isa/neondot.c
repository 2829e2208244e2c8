/* NEON with dot products of bytes in one instruction (FEAT_DotProd, from ARMv8.2 on). */
#if defined(__aarch64__)
#include "../isa.h"
#include "arm_features.h"

static int is_supported(void) { return has_dot(); }

extern const ufbert_fff_kernels ufbert_fff_neon;

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define ISA neondot
#define USE_DOT
#include "neon_vectors.h"

#include "../dense/table.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const ufbert_isa ufbert_isa_neondot = {"neondot", is_supported, &ufbert_fff_neon, &dense_kernels};
#endif
