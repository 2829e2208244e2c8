/* The instruction sets: one struct, one list (UFBERT_ISAS in dispatch.c). */
#ifndef UFBERT_ISA_H
#define UFBERT_ISA_H

#include "dense/dense.h"
#include "fff/fff.h"

typedef struct {
    const char *name;
    int (*is_supported)(void);     /* by this machine */
    const ufbert_fff_kernels *fff; /* several instruction sets may share these */
    const ufbert_dense_kernels *dense;
} ufbert_isa;

/* The instruction set of that index in this build, the best last; NULL from the number of them on. */
const ufbert_isa *ufbert_isa_at(ptrdiff_t index);

#endif
