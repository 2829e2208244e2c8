/* What a 64-bit ARM processor has beyond NEON. */
#ifndef UFBERT_ARM_FEATURES_H
#define UFBERT_ARM_FEATURES_H

#include "../compiler.h"

/* Clang before 16 declares these intrinsics only where the whole file is compiled for them. */
#if defined(__clang__) && __clang_major__ < 16
#define __ARM_FEATURE_DOTPROD 1
#define __ARM_FEATURE_BF16_VECTOR_ARITHMETIC 1
#endif
#include <arm_neon.h>

#if defined(__linux__)
#include <sys/auxv.h>
INLINE int has_dot(void) { return getauxval(AT_HWCAP) >> 20 & 1; }   /* HWCAP_ASIMDDP */
INLINE int has_bf16(void) { return getauxval(AT_HWCAP2) >> 14 & 1; } /* HWCAP2_BF16 */
#elif defined(__APPLE__)
#include <sys/sysctl.h>
INLINE int has_feature(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, (void *)0, 0) == 0 && value;
}
INLINE int has_dot(void) { return has_feature("hw.optional.arm.FEAT_DotProd"); }
INLINE int has_bf16(void) { return has_feature("hw.optional.arm.FEAT_BF16"); }
#elif defined(_WIN32)
__declspec(dllimport) int __stdcall IsProcessorFeaturePresent(unsigned long);
INLINE int has_dot(void) { return IsProcessorFeaturePresent(43); }  /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
INLINE int has_bf16(void) { return IsProcessorFeaturePresent(68); } /* PF_ARM_V86_BF16_INSTRUCTIONS_AVAILABLE */
#else
INLINE int has_dot(void) { return 0; }
INLINE int has_bf16(void) { return 0; }
#endif

#endif
