/* The FFF kernels of an instruction set, ufbert_fff_NAME. Its file defines what `vectors.h` asks for, then includes this. */
#ifndef UFBERT_FFF_TABLE_H
#define UFBERT_FFF_TABLE_H

#include "backward.h"
#include "descend.h"
#include "leaf.h"

#define FFF_NAME_(isa) ufbert_fff_##isa
#define FFF_NAME(isa) FFF_NAME_(isa)

extern const ufbert_fff_kernels FFF_NAME(ISA);
const ufbert_fff_kernels FFF_NAME(ISA) = {fff_forward, leaf_forward, fff_backward};

#endif
