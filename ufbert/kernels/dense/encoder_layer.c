/* Memory and threads of an encoder layer: the same for every instruction set. */
#include "dense.h"

#include <stdlib.h>
#include <string.h>

static size_t whole_lines(size_t bytes) { return (size_t)ufbert_round_up((ptrdiff_t)bytes, UFBERT_CACHE_LINE); }

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

typedef struct {
    size_t normed, qkv, context, hidden, tree_sums, scratch;
} sizes;

/* Bytes of each buffer: for one thread or, of qkv, context and hidden by columns, for all. */
static sizes buffer_sizes(const ufbert_encoder_layer *layer, const ufbert_layer_pass *pass) {
    const size_t row = (size_t)layer->width * sizeof(float), head_size = (size_t)(layer->width / layer->num_heads);
    const size_t rows = (size_t)(pass->by_columns ? pass->cu_seqlens[pass->num_texts] : pass->largest);
    const size_t in_chunk = pass->by_columns || rows < UFBERT_ROWS_IN_CHUNK ? rows : UFBERT_ROWS_IN_CHUNK;
    sizes need = {whole_lines(rows * row), whole_lines(rows * 3 * row), whole_lines(rows * row), 0, 0, 0};
    need.scratch = max_size(ufbert_linear_scratch(layer->query_key_value), ufbert_linear_scratch(layer->output));
    need.scratch = max_size(need.scratch, ufbert_attention_scratch(pass->longest, (ptrdiff_t)head_size));
    if (layer->trees) {
        need.tree_sums = whole_lines((size_t)pass->tree_rows * row);
        need.normed = max_size(need.normed, need.tree_sums);
        need.scratch = max_size(need.scratch, ufbert_fff_scratch(layer->trees, pass->tree_rows));
    } else {
        const ptrdiff_t behind = layer->gated ? layer->dense_out->width_in : 0;
        need.hidden = whole_lines(in_chunk * (size_t)(layer->dense_in->width_out + behind) * sizeof(float));
        need.scratch = max_size(need.scratch, ufbert_linear_scratch(layer->dense_in));
        need.scratch = max_size(need.scratch, ufbert_linear_scratch(layer->dense_out));
    }
    need.scratch = whole_lines(need.scratch);
    return need;
}

static size_t bytes_of_thread(const sizes *need, int by_columns) {
    const size_t shared = need->qkv + need->context + need->hidden;
    return need->normed + need->tree_sums + need->scratch + (by_columns ? 0 : shared);
}

static ufbert_layer_buffers buffers_of(const ufbert_encoder_layer *layer, const ufbert_layer_pass *pass, int member) {
    const sizes need = buffer_sizes(layer, pass);
    char *normed = pass->scratch + (size_t)member * bytes_of_thread(&need, pass->by_columns);
    char *tree_sums = normed + need.normed, *scratch = tree_sums + need.tree_sums, *qkv = scratch + need.scratch;
    ufbert_layer_buffers buffers = {(float *)normed, pass->qkv,          pass->context,
                                    pass->hidden,    (float *)tree_sums, scratch};
    if (!pass->by_columns) {
        buffers.qkv = (float *)qkv;
        buffers.context = (float *)(qkv + need.qkv);
        buffers.hidden = (float *)(qkv + need.qkv + need.context);
    }
    return buffers;
}

/* Memory of the last layer, for the next one: pages that are new at each layer cost 1 to 3 % of its time. */
typedef struct {
    size_t bytes;
} block;
#ifdef __SANITIZE_ADDRESS__
enum { MOST_SPARE = 0 }; /* none is kept, so that whatever is beyond a pass's own is found */
#else
enum { MOST_SPARE = 8 << 20 };
#endif
static block *spare;

/* At least that many bytes, which put_back() takes; NULL if there are none. */
static void *take_memory(size_t bytes) {
    block *found = __atomic_exchange_n(&spare, NULL, __ATOMIC_SEQ_CST);
    if (!found || found->bytes < bytes) {
        free(found);
        found = malloc(sizeof *found + bytes);
        if (!found)
            return NULL;
        found->bytes = bytes;
    }
    return found + 1;
}

static void put_back(void *memory) {
    block *found = (block *)memory - 1;
    free(found->bytes > MOST_SPARE ? found : __atomic_exchange_n(&spare, found, __ATOMIC_SEQ_CST));
}

/* Takes the scratch of a pass, which put_back() takes; NULL if there is none. */
static void *begin_layer(const ufbert_fff_kernels *fff, const ufbert_encoder_layer *layer, ufbert_layer_pass *pass,
                         int threads) {
    const ptrdiff_t share = ufbert_round_up((pass->cu_seqlens[pass->num_texts] + threads - 1) / threads, 8);
    const ptrdiff_t most = layer->trees ? ufbert_tile_tokens(layer->trees) : 0;
    pass->fff = fff;
    memset(pass->steps, 0, sizeof pass->steps);
    pass->tree_rows = share < most ? share : most;
    const sizes need = buffer_sizes(layer, pass);
    const size_t shared = pass->by_columns ? need.qkv + need.context + need.hidden : 0;
    const size_t sums = pass->by_columns ? need.normed : 0;
    char *memory =
        take_memory(shared + sums + (size_t)threads * bytes_of_thread(&need, pass->by_columns) + UFBERT_CACHE_LINE);
    if (!memory)
        return NULL;
    char *start = memory + (UFBERT_CACHE_LINE - (uintptr_t)memory % UFBERT_CACHE_LINE) % UFBERT_CACHE_LINE;
    if (pass->by_columns) {
        pass->qkv = (float *)start;
        pass->context = (float *)(start + need.qkv);
        pass->hidden = (float *)(start + need.qkv + need.context);
        pass->sums = (float *)(start + shared);
    }
    pass->scratch = start + shared + sums;
    return memory;
}

typedef struct {
    const ufbert_dense_kernels *dense;
    const ufbert_encoder_layer *layer;
    ufbert_layer_pass *pass;
    int threads;
} layer_work;

static void run_member(void *argument, int member) {
    const layer_work *work = argument;
    const ufbert_layer_buffers buffers = buffers_of(work->layer, work->pass, member);
    work->dense->encoder_layer(work->layer, work->pass, &buffers, work->threads);
}

int ufbert_run_layer(const ufbert_dense_kernels *dense, const ufbert_fff_kernels *fff,
                     const ufbert_encoder_layer *layer, ufbert_layer_pass *pass, ufbert_team *team, int threads) {
    void *memory = begin_layer(fff, layer, pass, threads);
    if (!memory)
        return -1;
    layer_work work = {dense, layer, pass, threads};
    team(threads, run_member, &work);
    put_back(memory);
    return 0;
}
