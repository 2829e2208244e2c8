/* One encoder layer, from its input rows to its output rows, by one member of a team of threads.
 *
 * Many tokens: members take groups of whole texts, and a group goes through the layer while it is in the cache. Few
 * tokens: members share out the columns of each linear layer and the heads, and meet after each. Either way a row's
 * sums are those of `linear`, `attention` and `layer_norm` above, bit for bit. */

enum { FEED_FORWARD_ROWS = UFBERT_ROWS_IN_CHUNK };

#ifdef UFBERT_BARRIER /* the sanitizers' driver brings its own team */
void UFBERT_BARRIER(void);
static void wait_for_team(void) { UFBERT_BARRIER(); }
#else
static void wait_for_team(void) {
#ifdef _OPENMP
#pragma omp barrier
#endif
}
#endif

static ptrdiff_t next_group(ufbert_pass *pass) {
#ifdef __GNUC__
    return __atomic_fetch_add(&pass->next, 1, __ATOMIC_RELAXED);
#else
    return pass->next++; /* built without OpenMP: there is one member */
#endif
}

INLINE void normalize(const ufbert_norm *norm, const float *x, ptrdiff_t rows, ptrdiff_t width, float *y) {
    layer_norm(x, rows, width, norm->weight, norm->bias, norm->eps, y);
}

INLINE ptrdiff_t panels_of(const ufbert_linear *layer) { return (layer->width_out + UFBERT_PANEL - 1) / UFBERT_PANEL; }

/* All columns of a linear layer. */
INLINE void whole_linear(const ufbert_linear *layer, const float *x, ptrdiff_t rows, const float *residual, float *y,
                         void *scratch) {
    linear(layer, x, rows, residual, y, 0, panels_of(layer), scratch);
}

/* A member's share of the columns of a linear layer. */
INLINE void shared_linear(const ufbert_linear *layer, const float *x, ptrdiff_t rows, const float *residual, float *y,
                          int member, int members, void *scratch) {
    const ptrdiff_t panels = panels_of(layer);
    linear(layer, x, rows, residual, y, panels * member / members, panels * (member + 1) / members, scratch);
}

/* Texts first to last - 1: attention and its residual sum, with the norm that belongs to it. */
static void attend_texts(const ufbert_layer *layer, const ufbert_pass *pass, ptrdiff_t first, ptrdiff_t last,
                         const ufbert_member *own) {
    const ptrdiff_t width = layer->width, token = pass->cu_seqlens[first], rows = pass->cu_seqlens[last] - token;
    const float *x = pass->x + token * width, *from = x;
    float *y = pass->y + token * width;
    if (layer->pre) {
        normalize(&layer->norm1, x, rows, width, own->normed);
        from = own->normed;
    }
    whole_linear(layer->query_key_value, from, rows, NULL, own->qkv, own->scratch);
    const ufbert_attention work = {layer->num_heads, width / layer->num_heads, layer->scale, own->qkv,
                                   pass->attended ? pass->attended + token : NULL, own->context};
    for (ptrdiff_t text = first; text < last; text++) {
        const ptrdiff_t start = pass->cu_seqlens[text], length = pass->cu_seqlens[text + 1] - start;
        for (ptrdiff_t head = 0; head < layer->num_heads && length > 0; head++)
            attention(&work, start - token, length, head, own->scratch);
    }
    whole_linear(layer->output, own->context, rows, x, y, own->scratch);
    if (!layer->pre)
        normalize(&layer->norm1, y, rows, width, y);
}

/* Rows of y in place: the dense feed-forward layer and its residual sum, with the norm that belongs to it. */
static void feed_forward_rows(const ufbert_layer *layer, float *y, ptrdiff_t rows, const ufbert_member *own) {
    for (ptrdiff_t done = 0; done < rows; done += FEED_FORWARD_ROWS) {
        const ptrdiff_t now = rows - done < FEED_FORWARD_ROWS ? rows - done : FEED_FORWARD_ROWS;
        float *to = y + done * layer->width, *from = to;
        if (layer->pre)
            normalize(&layer->norm2, to, now, layer->width, from = own->normed);
        whole_linear(layer->dense_in, from, now, NULL, own->hidden, own->scratch);
        whole_linear(layer->dense_out, own->hidden, now, to, to, own->scratch);
        if (!layer->pre)
            normalize(&layer->norm2, to, now, layer->width, to);
    }
}

static void layer_by_groups(const ufbert_layer *layer, ufbert_pass *pass, const ufbert_member *own) {
    for (ptrdiff_t group = next_group(pass); group < pass->num_groups; group = next_group(pass)) {
        const ptrdiff_t first = pass->groups[group], last = pass->groups[group + 1];
        const ptrdiff_t token = pass->cu_seqlens[first], rows = pass->cu_seqlens[last] - token;
        attend_texts(layer, pass, first, last, own);
        if (layer->dense_in)
            feed_forward_rows(layer, pass->y + token * layer->width, rows, own);
    }
}

static void layer_by_columns(const ufbert_layer *layer, const ufbert_pass *pass, int member, int members,
                             const ufbert_member *own) {
    const ptrdiff_t width = layer->width, heads = layer->num_heads, rows = pass->cu_seqlens[pass->num_texts];
    const ptrdiff_t mine = rows * member / members, behind = rows * (member + 1) / members;
    const float *from = pass->x, *sums = pass->sums;
    float *y = pass->y;
    if (layer->pre)
        normalize(&layer->norm1, pass->x, rows, width, own->normed), from = own->normed;
    shared_linear(layer->query_key_value, from, rows, NULL, own->qkv, member, members, own->scratch);
    wait_for_team();
    const ufbert_attention work = {heads, width / heads, layer->scale, own->qkv, pass->attended, own->context};
    for (ptrdiff_t text = 0; text < pass->num_texts; text++) {
        const ptrdiff_t start = pass->cu_seqlens[text], length = pass->cu_seqlens[text + 1] - start;
        for (ptrdiff_t head = heads * member / members; head < heads * (member + 1) / members && length > 0; head++)
            attention(&work, start, length, head, own->scratch);
    }
    wait_for_team();
    shared_linear(layer->output, own->context, rows, pass->x, pass->sums, member, members, own->scratch);
    wait_for_team();
    if (!layer->dense_in) {
        if (layer->pre)
            memcpy(y + mine * width, sums + mine * width, (size_t)((behind - mine) * width) * sizeof(float));
        else
            normalize(&layer->norm1, sums + mine * width, behind - mine, width, y + mine * width);
        return;
    }
    /* Every member normalises all rows for itself: that is less than another meeting. */
    normalize(layer->pre ? &layer->norm2 : &layer->norm1, sums, rows, width, own->normed);
    shared_linear(layer->dense_in, own->normed, rows, NULL, own->hidden, member, members, own->scratch);
    wait_for_team();
    shared_linear(layer->dense_out, own->hidden, rows, layer->pre ? sums : own->normed, y, member, members,
                  own->scratch);
    wait_for_team();
    if (!layer->pre)
        normalize(&layer->norm2, y + mine * width, behind - mine, width, y + mine * width);
}

/* What is left of a layer after its trees gave `sums`: the residual sum, with the norm that belongs to it. */
static void add_trees(const ufbert_layer *layer, const float *sums, ptrdiff_t rows, float *y) {
    const ptrdiff_t width = layer->width;
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t i = 0; i < width; i += LANES) {
            const ptrdiff_t at = row * width + i, left = width - i;
            vec sum = v_load_part(sums + at, left);
            if (layer->tree_bias)
                sum = v_add(sum, v_load_part(layer->tree_bias + i, left));
            v_store_part(y + at, v_add(sum, v_load_part(y + at, left)), left);
        }
    if (!layer->pre)
        normalize(&layer->norm2, y, rows, width, y);
}

static void encoder_layer(const ufbert_layer *layer, ufbert_pass *pass, int member, int members) {
    const ufbert_member own = ufbert_member_of(layer, pass, member);
    if (pass->by_columns)
        layer_by_columns(layer, pass, member, members, &own);
    else
        layer_by_groups(layer, pass, &own);
}
