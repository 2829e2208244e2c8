#!/bin/sh
# Builds the kernels under AddressSanitizer + UndefinedBehaviorSanitizer and under ThreadSanitizer, and runs them on every
# instruction set of this machine. Needs GCC with its sanitizer libraries, and in the Python that PYTHON names (python3): numpy,
# cython, setuptools, pytest, hypothesis. Builds in a temporary folder; takes some minutes.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
compiler=${CC:-gcc}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
kernels="$root/ufbert/kernels"
sources=$(find "$kernels" -name '*.c')

for sanitizer in address,undefined thread; do
    echo "== C driver under -fsanitize=$sanitizer"
    "$compiler" -std=c11 -O1 -g -Wall -Wextra -Werror -ffp-contract=off \
        -fsanitize=$sanitizer -fno-sanitize-recover=undefined \
        -I "$kernels" "$root/tests/sanitizers/driver.c" $sources -lm -lpthread -o "$folder/driver"
    "$folder/driver"
    "$compiler" -std=gnu11 -O1 -g -Wall -Wextra -Werror -ffp-contract=off \
        -fsanitize=$sanitizer -fno-sanitize-recover=undefined \
        -I "$kernels" "$root/tests/sanitizers/layers.c" $sources -lm -lpthread -o "$folder/layers"
    "$folder/layers" 1 0 50000 4  # random layers of four callers at once, against plain loops
done

echo "== Python tests under AddressSanitizer and UndefinedBehaviorSanitizer"
flags="-g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
cp -r "$root/ufbert" "$root/setup.py" "$root/pyproject.toml" "$root/README.md" "$root/LICENSE" "$folder"
rm -f "$folder"/ufbert/*.so "$folder"/ufbert/_cmm.c "$folder"/ufbert/_dense.c
(cd "$folder" && CFLAGS="$flags" LDFLAGS="$flags" "$python" setup.py -q build_ext --inplace -j 2)
# The interpreter is not built with ASan, so its library has to come first; Python itself leaks at exit by design.
cd "$folder"
LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$folder" \
    "$python" -c "
import sys, pytest, ufbert._cmm, ufbert._dense
for module in (ufbert._cmm, ufbert._dense):
    assert module.__file__.startswith('$folder'), 'the tests would run another build: ' + module.__file__
names = ['dense', 'compiled', 'cmm', 'cmm_packed', 'cmm_walk', 'cmm_backward', 'cmm_robust']
tests = [f'$root/tests/test_{name}.py' for name in names]
sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'not leak and not zeros_of', *tests]))
"
echo "== Hostile files and random layers on that build"
LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$folder" \
    "$python" "$root/tests/campaign/run.py" files kernels --seconds "${CAMPAIGN_SECONDS:-20}" --hang 60
echo "all clean"
