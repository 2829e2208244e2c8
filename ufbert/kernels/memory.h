/* Aligned memory: for packed weights, and for what threads wait on. */
#ifndef UFBERT_MEMORY_H
#define UFBERT_MEMORY_H

#include <stddef.h>

/* Zeroed bytes that begin at a cache line, on huge pages where the system grants them; NULL if there are none. */
void *ufbert_allocate_pages(size_t bytes);

/* Not free(): Windows keeps aligned memory apart. */
void ufbert_free_pages(void *pages);

#endif
