#define _DEFAULT_SOURCE /* madvise */
#include "memory.h"

#include "dtypes.h"

#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum { HUGE_PAGE = 2 << 20 };

void *ufbert_allocate_pages(size_t bytes) {
    const size_t boundary = bytes < HUGE_PAGE ? UFBERT_CACHE_LINE : HUGE_PAGE;
    void *pages = aligned_alloc(boundary, (bytes + boundary - 1) / boundary * boundary);
    if (!pages)
        return NULL;
#ifdef MADV_HUGEPAGE
    /* A random row of a few KB would otherwise miss the TLB each time. A short rest stays on small pages. */
    if (boundary == HUGE_PAGE)
        (void)madvise(pages, (bytes + boundary / 2) / boundary * boundary, MADV_HUGEPAGE);
#endif
    memset(pages, 0, bytes);
    return pages;
}
