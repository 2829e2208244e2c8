#ifndef UFBERT_INLINE_H
#define UFBERT_INLINE_H

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

#endif
