/* NEON, which every 64-bit ARM processor has. */
#if defined(__aarch64__)
#include "../isa.h"

#include <arm_neon.h>

static int is_supported(void) { return 1; }

#define ISA neon
#include "neon_vectors.h"

#include "../dense/table.h"
#include "../fff/table.h"

const ufbert_isa ufbert_isa_neon = {"neon", is_supported, &ufbert_fff_neon, &dense_kernels};
#endif
