/* The dense kernels of every instruction set; included where the v_ functions are defined. */
#include "dense.h"
#include "linear.h"
#include "attention.h"
#include "layer.h"

#define UFBERT_DENSE_(isa) ufbert_dense_##isa
#define UFBERT_DENSE(isa) UFBERT_DENSE_(isa)

const ufbert_dense UFBERT_DENSE(ISA) = {linear, attention, layer_norm, encoder_layer, add_trees};
