/* The FFF kernels of an instruction set, ufbert_fff_NAME. Its file defines what `vectors.h` asks for, then includes this. */
#ifndef UFBERT_FFF_TABLE_H
#define UFBERT_FFF_TABLE_H

#include "backward.h"
#include "descend.h"
#include "leaf.h"
#ifdef WALK_IN_ORDER
#include "walk.h"
#endif

#define FFF_NAME_(isa) ufbert_fff_##isa
#define FFF_NAME(isa) FFF_NAME_(isa)

static void forward(const ufbert_fff *fff, const float *x, ptrdiff_t tokens, float *y, int32_t *path, float *scores,
                    int stream, void *scratch) {
#ifdef WALK_IN_ORDER
    if (tokens >= WALK_LEAST) {
        walk_all(fff, x, tokens, y, path, scores, stream, scratch);
        return;
    }
#endif
    fff_forward(fff, x, tokens, y, path, scores, stream, scratch);
}

extern const ufbert_fff_kernels FFF_NAME(ISA);
const ufbert_fff_kernels FFF_NAME(ISA) = {forward, leaf_forward, fff_backward};

#endif
