#!/bin/sh
# Builds the kernels under AddressSanitizer + UndefinedBehaviorSanitizer and under ThreadSanitizer and runs them.
# Needs GCC with its sanitizer libraries, and in the Python that PYTHON names (python3): numpy, cython, setuptools,
# pytest, hypothesis. Builds in a temporary folder; takes about two minutes. Not part of the default test run.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
compiler=${CC:-gcc}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for sanitizer in address,undefined thread; do
    echo "== C driver under -fsanitize=$sanitizer"
    "$compiler" -std=c11 -O1 -g -Wall -ffp-contract=off -DUFBERT_BARRIER=driver_barrier -fsanitize=$sanitizer -fno-sanitize-recover=undefined \
        -I "$root/ufbert/kernels" "$root/tests/sanitizers/driver.c" "$root"/ufbert/kernels/*.c -lm -lpthread \
        -o "$folder/driver"
    "$folder/driver"
done

echo "== Python tests under AddressSanitizer and UndefinedBehaviorSanitizer"
flags="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
cp -r "$root/ufbert" "$root/setup.py" "$root/pyproject.toml" "$root/README.md" "$root/LICENSE" "$folder"
rm -f "$folder"/ufbert/*.so "$folder"/ufbert/_cmm.c
(cd "$folder" && CFLAGS="$flags" LDFLAGS="$flags" "$python" setup.py -q build_ext --inplace)
# The interpreter is not built with ASan, so its library has to come first; Python itself leaks at exit by design.
cd "$folder"
LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$folder" \
    "$python" -c "
import sys, pytest, ufbert._cmm
assert ufbert._cmm.__file__.startswith('$folder'), 'the tests would run another build: ' + ufbert._cmm.__file__
tests = ['test_dense.py', 'test_compiled.py', 'test_cmm.py', 'test_cmm_packed.py', 'test_cmm_backward.py', 'test_cmm_robust.py']
sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'not leak and not zeros_of', *('$root/tests/' + t for t in tests)]))
"
echo "all clean"
