from ufbert._kernels cimport ufbert_fff, ufbert_isa, ufbert_team

cdef const ufbert_isa *active
cdef ufbert_team *run_team  # of the process: there is one pool of threads, in this module

cdef const ufbert_isa *isa_named(str name) except *


cdef class PackedLayer:
    cdef ufbert_fff fff
    cdef char *memory
    cdef readonly size_t nbytes
