/* What an x86-64 processor has, and the system lets programs use. By the instruction itself and not by the compiler's
 * __builtin_cpu_supports: on Windows that needs a library of Clang's, and Clang 14 has no name for AVX-VNNI. */
#ifndef UFBERT_X86_FEATURES_H
#define UFBERT_X86_FEATURES_H

#include "../compiler.h"

#include <cpuid.h>

enum {
    AVX_STATE = 0x06,    /* registers that the system keeps: of 128 and 256 bits */
    AVX512_STATE = 0xe6, /* masks and registers of 512 bits too */
};
enum { A, B, C, D };

/* Whether all `bits` are set in register `which` of a leaf of CPUID. */
INLINE int cpuid_has(unsigned leaf, unsigned subleaf, int which, unsigned bits) {
    unsigned found[4] = {0, 0, 0, 0};
    return __get_cpuid_count(leaf, subleaf, &found[A], &found[B], &found[C], &found[D]) &&
           (found[which] & bits) == bits;
}

INLINE int system_keeps(unsigned state) {
    unsigned low, high;
    if (!cpuid_has(1, 0, C, 1u << 27)) /* OSXSAVE */
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & state) == state;
}

INLINE int has_avx2_fma(void) {
    return cpuid_has(1, 0, C, 1u << 12) && cpuid_has(7, 0, B, 1u << 5) && system_keeps(AVX_STATE);
}
INLINE int has_avx_vnni(void) { return has_avx2_fma() && cpuid_has(7, 1, A, 1u << 4); }
/* F, DQ, BW and VL. */
INLINE int has_avx512(void) {
    return has_avx2_fma() && cpuid_has(7, 0, B, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) &&
           system_keeps(AVX512_STATE);
}
INLINE int has_avx512_vnni(void) { return has_avx512() && cpuid_has(7, 0, C, 1u << 11); }
INLINE int has_avx512_bf16(void) { return has_avx512_vnni() && cpuid_has(7, 1, A, 1u << 5); }

#endif
