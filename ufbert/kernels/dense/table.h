/* The dense kernels of an instruction set. Its file defines what `vectors.h` asks for, then includes this. */
#ifndef UFBERT_DENSE_TABLE_H
#define UFBERT_DENSE_TABLE_H

#include "attention.h"
#include "encoder_layer.h"
#include "gate.h"
#include "linear.h"
#include "norm.h"
#include "panels.h"

static const ufbert_dense_kernels dense_kernels = {{PANEL},       linear, attention, layer_norm,
                                                   encoder_layer, gate,   pack_panel};

#endif
