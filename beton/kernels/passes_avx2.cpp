#include "passes.h"

namespace kernels {
void passes_avx2(const Job& job, const Target& target) { all_passes(job, target); }
}  // namespace kernels
