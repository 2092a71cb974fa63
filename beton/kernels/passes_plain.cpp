#include "passes.h"

namespace kernels {
void passes_plain(const Job& job, const Target& target) { all_passes(job, target); }
}  // namespace kernels
