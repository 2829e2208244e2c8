/* The body of every instruction set. Its file defines ISA, LANES, TOKENS_AT_ONCE, PANEL_BLOCKS and the v_ functions,
 * then includes this one. */
#include "ahead.h"
#include "rows.h"
#include "activation.h"
#include "forward.h"
#include "leaf.h"
#include "backward.h"
#include "dense_table.h"

#define UFBERT_STRING_(name) #name
#define UFBERT_STRING(name) UFBERT_STRING_(name)
#define UFBERT_TABLE_(isa) ufbert_kernels_##isa
#define UFBERT_TABLE(isa) UFBERT_TABLE_(isa)

const ufbert_kernels UFBERT_TABLE(ISA) = {
    UFBERT_STRING(ISA), fff_forward, leaf_fff_forward, backward_tokens,
};
