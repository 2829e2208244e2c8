/* What the compiler and the machine must be like. */
#ifndef UFBERT_COMPILER_H
#define UFBERT_COMPILER_H

#if !defined(__GNUC__) && !defined(__clang__) /* clang-cl does not call itself GNU */
#error "the kernels need GCC or Clang, for their vector types; UFBERT_NO_EXTENSION=1 builds the package without kernels"
#endif
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ < 11
#error "the kernels need GCC 11 or later, for AVX-VNNI; UFBERT_NO_EXTENSION=1 builds the package without kernels"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the kernels need a little-endian machine: packed bfloat16 and int8 weights are read as 32-bit words"
#endif

#define INLINE static inline __attribute__((always_inline))

#endif
